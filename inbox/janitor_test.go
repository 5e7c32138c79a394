package inbox_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

const (
	day       = 24 * time.Hour
	streamAge = 7 * day
	// round is how long the ring of partitions takes to come round.
	round = 16 << 29 * time.Millisecond
)

// madeAt is a message whose id was made at a time: of version 7.
func madeAt(at time.Time) inbox.Message {
	id := uuid.Must(uuid.NewV7())
	binary.BigEndian.PutUint64(id[:], uint64(at.UnixMilli())<<16|uint64(id[6])<<8|uint64(id[7]))
	return inbox.Message{Source: "maskin", ID: id.String()}
}

// madeAgo is a message whose id was made some time ago.
func madeAgo(ago time.Duration) inbox.Message { return madeAt(time.Now().Add(-ago)) }

// handled handles m, as if it were some time ago.
func (b *bundle) handled(t *testing.T, m inbox.Message, ago time.Duration) inbox.Message {
	t.Helper()
	require.NoError(t, b.in.Once(t.Context(), m, apply(m)))
	b.exec(t, `update messaging.inbox_messages set handled_at = handled_at - $1::interval where message_id = $2`, ago, m.ID)
	return m
}

func (b *bundle) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// remembers tells whether a repeat of m would be recognised. It asks the handler's
// way and leaves nothing behind.
func (b *bundle) remembers(t *testing.T, m inbox.Message) bool {
	t.Helper()
	undo := errors.New("undo")
	err := b.in.Once(t.Context(), m, func(context.Context, pgx.Tx) error { return undo })
	if !errors.Is(err, undo) {
		require.ErrorIs(t, err, envelope.ErrAlreadyProcessed)
	}
	return !errors.Is(err, undo)
}

// partitionOf is the table that holds the row of m.
func (b *bundle) partitionOf(t *testing.T, m inbox.Message) (name string) {
	t.Helper()
	require.NoError(t, b.pool.QueryRow(t.Context(),
		`select tableoid::regclass::text from messaging.inbox_messages where message_id = $1`, m.ID).Scan(&name))
	return name
}

func (b *bundle) janitor(t *testing.T, cfg inbox.JanitorConfig) *inbox.Janitor {
	t.Helper()
	j, err := inbox.NewJanitor(b.pool, streamAge, cfg)
	require.NoError(t, err)
	return j
}

func (b *bundle) sweep(t *testing.T, cfg inbox.JanitorConfig) inbox.Swept {
	t.Helper()
	swept, err := b.janitor(t, cfg).Sweep(t.Context())
	require.NoError(t, err)
	return swept
}

// A day too short, and a redelivery at the end of the stream's age could find its
// first handling forgotten.
//
// A row of docs/DELIVERY.md.
func TestHorizonThatIsTooShortIsRefusedWithTheNumber(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct {
		age, rewind, horizon, least time.Duration
	}{
		{age: 7 * day, horizon: 9*day - 1, least: 9 * day},
		{age: 14 * day, horizon: day, least: 16 * day},
		{age: 7 * day, rewind: 3 * day, horizon: 10 * day, least: 11 * day},
		{age: 44 * day, least: 46 * day}, // the default is 45 days
	} {
		_, err := inbox.NewJanitor(b.pool, c.age, inbox.JanitorConfig{Horizon: c.horizon, Rewind: c.rewind})
		short, ok := errors.AsType[*inbox.HorizonError](err)
		require.True(t, ok, "%+v: %v", c, err)
		require.Equal(t, c.least, short.Minimum)
		require.ErrorContains(t, err, "use "+c.least.String()+" or longer")
		_, err = inbox.NewJanitor(b.pool, c.age, inbox.JanitorConfig{Horizon: c.least, Rewind: c.rewind})
		require.NoError(t, err, "%+v", c)
	}
}

func TestNewJanitorReportsAllFaults(t *testing.T) {
	t.Parallel()
	_, err := inbox.NewJanitor(nil, 0, inbox.JanitorConfig{
		Schema: "x;y", Rewind: -1, Interval: time.Second, Horizon: 100 * 366 * day, KeepVersions: -1,
	})
	for _, field := range []string{"pool", "streamAge", "JanitorConfig.Schema", "JanitorConfig.Rewind", "JanitorConfig.Interval", "JanitorConfig.Horizon", "JanitorConfig.KeepVersions"} {
		require.ErrorContains(t, err, "inbox: ", field)
		require.ErrorContains(t, err, field)
	}
}

// All copies of a message have to meet in one partition, whenever they come.
func TestMessagesLieInThePartitionOfTheirID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const bucket = 1 << 29 * time.Millisecond
	at := time.UnixMilli(3_300 << 29) // a beginning of bucket 4
	for name, m := range map[string]inbox.Message{
		"04":    madeAt(at),
		"03":    madeAt(at.Add(-time.Millisecond)),
		"05":    madeAt(at.Add(bucket)),
		"00":    madeAt(at.Add(12 * bucket)),
		"06":    madeAt(at.Add(2*bucket - 16*bucket)),
		"07":    madeAt(at.Add(3*bucket + 160*bucket)),
		"15":    {Source: "maskin", ID: "ffffffff-ffff-7fff-8000-000000000000"},
		"other": newMessage(), // version 4
	} {
		b.handled(t, m, 0)
		require.Equal(t, "messaging.inbox_messages_"+name, b.partitionOf(t, m), "%s", m.ID)
		require.True(t, b.remembers(t, m))
	}
}

// The work of a janitor must not meet that of a handler in a lock. To read what
// the table is like counts for nothing: the janitor never locks it.
func TestHandlerLocksOnePartitionOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := madeAgo(0)
	require.NoError(t, b.in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `select distinct c.relname from pg_locks l join pg_class c on c.oid = l.relation
where l.pid = pg_backend_pid() and c.relkind in ('r', 'p') and l.mode <> 'AccessShareLock'`)
		require.NoError(t, err)
		locked, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.Len(t, locked, 1, "%v", locked)
		return err
	}))
}

func TestOldPartitionIsEmptiedAndYoungOnesStay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.handled(t, madeAgo(60*day), 46*day)
	oldToo := b.handled(t, inbox.Message{Source: "objekt", ID: old.ID}, 0)
	b.exec(t, `update messaging.inbox_messages set handled_at = now() - interval '46 days'`)
	young := b.handled(t, madeAgo(40*day), 40*day)
	now := b.handled(t, madeAgo(0), 0)
	other := b.handled(t, newMessage(), 44*day)

	require.Equal(t, inbox.Swept{Emptied: 1}, b.sweep(t, inbox.JanitorConfig{}))
	require.False(t, b.remembers(t, old))
	require.False(t, b.remembers(t, oldToo))
	for _, m := range []inbox.Message{young, now, other} {
		require.True(t, b.remembers(t, m))
	}
	require.Zero(t, b.sweep(t, inbox.JanitorConfig{}), "nothing is left to do")
}

// A dead letter of two months ago that is replayed today has its effect today, and
// that is what must not happen twice.
func TestOldMessageHandledTodayIsRemembered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.handled(t, madeAgo(60*day), 59*day)
	today := b.handled(t, madeAgo(60*day), 0)
	require.Zero(t, b.sweep(t, inbox.JanitorConfig{}))
	require.True(t, b.remembers(t, today))

	// The replay of a letter that was recorded long ago counts from the replay.
	b.exec(t, `truncate messaging.inbox_messages`)
	m := madeAgo(60 * day)
	b.dead(t, m)
	b.exec(t, `update messaging.inbox_messages set handled_at = handled_at - interval '59 days'`)
	replay := m
	replay.LetterID = letter
	require.NoError(t, b.in.Once(t.Context(), replay, apply(m)))
	require.Zero(t, b.sweep(t, inbox.JanitorConfig{}))
	require.True(t, b.remembers(t, m))
}

// Ids that tell no time cannot go by partition. Old ones go row by row, in more
// than one batch.
func TestMessagesWithoutATimeGoByTheirHandling(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(t, 16, 2500, 46*day)
	young := b.handled(t, newMessage(), 44*day)
	require.Equal(t, inbox.Swept{Deleted: 2500}, b.sweep(t, inbox.JanitorConfig{}))
	require.True(t, b.remembers(t, young))
	require.Equal(t, 1, b.rows(t))
}

// fill stores rows that were handled some time ago, in a bucket.
func (b *bundle) fill(t testing.TB, bucket, rows int, ago time.Duration) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), `insert into messaging.inbox_messages (consumer, source, message_id, bucket, handled_at)
select 'plattform__servers', 'maskin', gen_random_uuid(), $1, now() - $3::interval - make_interval(secs => n / 2)
from generate_series(1, $2::int) n`, bucket, rows, ago)
	require.NoError(t, err)
}

// Where something kept a partition from being emptied until the ring has come
// round, its old rows go one by one: rounds must not pile up.
func TestPartitionThatIsInUseAgainLosesItsOldRows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old, late := b.handled(t, madeAgo(round), 50*day), inbox.Message{}
	old2 := b.handled(t, madeAgo(round), 46*day)
	now := b.handled(t, madeAgo(0), 0)
	require.Equal(t, b.partitionOf(t, old), b.partitionOf(t, now))
	require.Equal(t, inbox.Swept{Deleted: 2}, b.sweep(t, inbox.JanitorConfig{}))
	require.False(t, b.remembers(t, old))
	require.False(t, b.remembers(t, old2))
	require.True(t, b.remembers(t, now))

	// The next partition is prepared before its time comes.
	const bucket = 1 << 29 * time.Millisecond
	old, late = b.handled(t, madeAgo(round-bucket), 46*day), b.handled(t, madeAgo(round-bucket), 0)
	require.Equal(t, inbox.Swept{Deleted: 1}, b.sweep(t, inbox.JanitorConfig{}))
	require.False(t, b.remembers(t, old))
	require.True(t, b.remembers(t, late))
}

// A transaction that is open on an old partition keeps it, and the janitor waits
// only briefly, since others queue behind it.
func TestOpenTransactionKeepsItsPartition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.handled(t, madeAgo(60*day), 46*day)
	other := b.handled(t, newMessage(), 46*day)
	late := madeAgo(60 * day)
	require.NoError(t, b.in.Once(t.Context(), late, func(context.Context, pgx.Tx) error {
		swept, err := b.janitor(t, inbox.JanitorConfig{}).Sweep(t.Context())
		require.ErrorContains(t, err, "transactions are open on it")
		require.Equal(t, inbox.Swept{Emptied: 1}, swept, "the fault of one is not the others'")
		require.False(t, b.remembers(t, other))
		return nil
	}))
	require.True(t, b.remembers(t, old))
	require.True(t, b.remembers(t, late))
}

// The message is handled between the janitor's first look and its last.
//
// A row of docs/DELIVERY.md.
func TestMessageHandledDuringASweepKeepsThePartition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old, late := b.handled(t, madeAgo(60*day), 46*day), madeAgo(60*day)
	swept := b.sweep(t, inbox.JanitorConfig{Archive: func(context.Context, []inbox.ArchivedMessage) error {
		b.handled(t, late, 0)
		return nil
	}})
	require.Equal(t, inbox.Swept{Archived: 1}, swept)
	require.True(t, b.remembers(t, old))
	require.True(t, b.remembers(t, late))
}

// A dead message is replayed between the batch that holds it and its deletion.
func TestMessageReplayedDuringASweepIsRemembered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, old := newMessage(), b.handled(t, newMessage(), 46*day)
	young := b.handled(t, newMessage(), 0) // the partition cannot go whole
	b.dead(t, m)
	b.exec(t, `update messaging.inbox_messages set handled_at = handled_at - interval '46 days' where letter_id is not null`)
	swept := b.sweep(t, inbox.JanitorConfig{Archive: func(ctx context.Context, messages []inbox.ArchivedMessage) error {
		require.Len(t, messages, 2)
		replay := m
		replay.LetterID = letter
		return b.in.Once(ctx, replay, apply(m))
	}})
	require.Equal(t, inbox.Swept{Deleted: 1, Archived: 2}, swept)
	require.True(t, b.remembers(t, m))
	require.True(t, b.remembers(t, young))
	require.False(t, b.remembers(t, old))
}

func TestArchiveSeesEveryMessageBeforeItGoes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const rows = 2100
	b.fill(t, b.bucket(t, madeAgo(60*day)), rows, 46*day)
	b.fill(t, 16, rows, 46*day)
	b.handled(t, newMessage(), 0)
	dead := madeAgo(60 * day)
	b.dead(t, dead)
	b.exec(t, `update messaging.inbox_messages set handled_at = now() - interval '46 days' where letter_id is not null`)

	seen := map[string]inbox.ArchivedMessage{}
	swept := b.sweep(t, inbox.JanitorConfig{Archive: func(_ context.Context, messages []inbox.ArchivedMessage) error {
		require.LessOrEqual(t, len(messages), 1000)
		for i, m := range messages {
			_, again := seen[m.MessageID]
			require.False(t, again)
			seen[m.MessageID] = m
			require.False(t, i > 0 && m.HandledAt.Before(messages[i-1].HandledAt))
		}
		return nil
	}})
	require.Equal(t, inbox.Swept{Emptied: 1, Deleted: rows, Archived: 2*rows + 1}, swept)
	require.Len(t, seen, 2*rows+1)
	got := seen[dead.ID]
	require.WithinDuration(t, time.Now().Add(-46*day), got.HandledAt, time.Minute)
	got.HandledAt = time.Time{}
	require.Equal(t, inbox.ArchivedMessage{Consumer: "plattform__servers", Source: "maskin", MessageID: dead.ID, LetterID: letter}, got)
	require.Equal(t, 1, b.rows(t))
}

// bucket is that of a message, asked of the database.
func (b *bundle) bucket(t *testing.T, m inbox.Message) int {
	t.Helper()
	b.handled(t, m, 0)
	n := b.count(t, `select bucket from messaging.inbox_messages where message_id = $1`, m.ID)
	b.exec(t, `delete from messaging.inbox_messages where message_id = $1`, m.ID)
	return n
}

func TestArchiveThatFailsKeepsTheMessages(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	for name, hook := range map[string]func(context.Context, []inbox.ArchivedMessage) error{
		"disk full": func(context.Context, []inbox.ArchivedMessage) error { return full },
		"panicked":  func(context.Context, []inbox.ArchivedMessage) error { panic("disk full") },
	} {
		b := setup(t)
		whole := b.handled(t, madeAgo(60*day), 46*day)
		single := b.handled(t, newMessage(), 46*day)
		young := b.handled(t, newMessage(), 0)
		j := b.janitor(t, inbox.JanitorConfig{Archive: hook})
		swept, err := j.Sweep(t.Context())
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, "inbox_messages_other: archive of 1 messages")
		require.Zero(t, swept)
		require.Equal(t, err, j.Stats().Err)
		for _, m := range []inbox.Message{whole, single, young} {
			require.True(t, b.remembers(t, m))
		}
	}
}

// Replicas share the work, and a second one must not show the archive everything
// once more.
func TestOneJanitorWorksAtATime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.handled(t, madeAgo(60*day), 46*day)
	second := b.janitor(t, inbox.JanitorConfig{})
	b.sweep(t, inbox.JanitorConfig{Archive: func(ctx context.Context, _ []inbox.ArchivedMessage) error {
		_, err := second.Sweep(ctx)
		require.ErrorIs(t, err, inbox.ErrSweeping)
		return nil
	}})
	_, err := second.Sweep(t.Context())
	require.NoError(t, err, "afterwards it is free")

	// One that died is waited for, and then its work is taken over; if it wakes
	// again it stops.
	b.handled(t, madeAgo(60*day), 46*day)
	first := b.janitor(t, inbox.JanitorConfig{Archive: func(ctx context.Context, _ []inbox.ArchivedMessage) error {
		b.exec(t, `update messaging.inbox_janitor set expires_at = now()`)
		swept, err := second.Sweep(ctx)
		require.Equal(t, inbox.Swept{Emptied: 1}, swept)
		return err
	}})
	swept, err := first.Sweep(t.Context())
	require.Equal(t, inbox.ErrSweeping, err)
	require.Equal(t, inbox.Swept{Archived: 1}, swept)
}

func TestRunCleansAtOnceAndStopsCleanly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.handled(t, madeAgo(60*day), 46*day)
	ctx, cancel := context.WithCancel(t.Context())
	j, done := b.janitor(t, inbox.JanitorConfig{}), make(chan error, 1)
	require.Zero(t, j.Stats())
	go func() { done <- j.Run(ctx) }()
	require.Eventually(t, func() bool { return !j.Stats().LastSweep.IsZero() }, 20*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	require.ErrorContains(t, j.Run(ctx), "called twice")
	stats := j.Stats()
	require.Equal(t, 1, stats.Emptied)
	require.NoError(t, stats.Err)
	require.WithinDuration(t, time.Now().Add(-46*day), stats.Oldest, time.Minute)
	require.Zero(t, b.rows(t))
}

// A replica that starts just after another has swept has nothing to do.
func TestReplicasDoNotRepeatASweep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sweep(t, inbox.JanitorConfig{})
	b.handled(t, madeAgo(60*day), 46*day)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	j, err := inbox.NewJanitor(b.traced(t, func(tag pgconn.CommandTag) {
		if tag.RowsAffected() == 0 {
			cancel() // refused
		}
	}), streamAge, inbox.JanitorConfig{})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	require.Eventually(t, func() bool { return ctx.Err() != nil || !j.Stats().LastSweep.IsZero() }, 20*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	require.Zero(t, j.Stats())
	require.Equal(t, 1, b.rows(t))
}

// traced is another pool on the database, whose single statements are told.
func (b *bundle) traced(t *testing.T, after func(pgconn.CommandTag)) *pgxpool.Pool {
	t.Helper()
	cfg := b.pool.Config().Copy()
	cfg.ConnConfig.Tracer = tracer{after}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

type tracer struct{ after func(pgconn.CommandTag) }

func (tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (r tracer) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	r.after(data.CommandTag)
}

// What a sweep does must be bounded by what it removes, not by what is there, and
// must not depend on statistics, which a young table has none of.
func TestSweepReadsByIndexAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(t, 16, 5_000, 46*day)
	b.fill(t, 16, 5_000, 0)
	var statements atomic.Int64
	pool := b.traced(t, func(pgconn.CommandTag) { statements.Add(1) })
	j, err := inbox.NewJanitor(pool, streamAge, inbox.JanitorConfig{})
	require.NoError(t, err)
	swept, err := j.Sweep(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 5_000, swept.Deleted)
	pool.Close() // what a connection counted is told at its end
	const counted = ` from pg_stat_all_tables where relname = 'inbox_messages_other'`
	require.Eventually(t, func() bool { return b.count(t, `select n_tup_del::int`+counted) == 5_000 }, 20*time.Second, 10*time.Millisecond)
	require.Zero(t, b.count(t, `select seq_tup_read::int`+counted))
	require.Less(t, b.count(t, `select idx_tup_fetch::int`+counted), 5_100, "each row is read once, and deleted by its place")
	require.Less(t, statements.Load(), int64(20), "a few for each batch")
}

func TestJanitorWithoutItsTablesNamesTheRemedy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.handled(t, madeAgo(60*day), 46*day)
	b.exec(t, `drop table messaging.inbox_janitor`)
	_, err := b.janitor(t, inbox.JanitorConfig{}).Sweep(t.Context())
	_, ok := errors.AsType[*inbox.MigrationError](err)
	require.True(t, ok, "%v", err)
	require.ErrorContains(t, err, "inbox: the inbox's tables are missing")
}

func ExampleNewJanitor() {
	var pool *pgxpool.Pool // the service's
	_, err := inbox.NewJanitor(pool, 14*24*time.Hour, inbox.JanitorConfig{Horizon: 14 * 24 * time.Hour})
	short, ok := errors.AsType[*inbox.HorizonError](err)
	fmt.Println(ok, short.Minimum)
	// Output: true 384h0m0s
}

// as is a pool whose connections act as a fresh role with the given rights; %s in
// a grant is the role.
func (b *bundle) as(t *testing.T, grants ...string) *pgxpool.Pool {
	t.Helper()
	role := "dvmsg_role_" + uuid.NewString()[:8] // roles belong to the server
	b.exec(t, "create role "+role)
	b.exec(t, "grant "+role+" to current_user") // a role that is no superuser needs it
	t.Cleanup(func() {
		for _, sql := range []string{"drop owned by " + role, "drop role " + role} {
			_, err := b.pool.Exec(context.Background(), sql)
			require.NoError(t, err)
		}
	})
	for _, grant := range grants {
		b.exec(t, fmt.Sprintf(grant, role))
	}
	cfg := b.pool.Config().Copy()
	cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "set role "+role)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// Services whose role owns no table are told in the changelog what to grant.
func TestRolesNeedOnlyWhatIsDocumented(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.handled(t, madeAgo(60*day), 46*day)
	b.handled(t, newMessage(), 46*day)
	young := b.handled(t, newMessage(), 0)
	b.exec(t, `insert into messaging.inbox_attempts (consumer, source, message_id, starts, ended, last_at) values ('a', 'b', gen_random_uuid(), 1, 0, '2020-01-01')`)
	b.exec(t, `insert into messaging.inbox_versions (consumer, key, version, last_at) values ('a', 'b', 1, '2020-01-01')`)
	partitions := ""
	for n := range 16 {
		partitions += fmt.Sprintf("messaging.inbox_messages_%02d, ", n)
	}
	partitions += "messaging.inbox_messages_other"

	pool := b.as(t, "grant usage on schema messaging to %s", "grant select, delete, truncate on "+partitions+" to %s",
		"grant select, delete on messaging.inbox_attempts, messaging.inbox_versions to %s",
		"grant select, insert, update on messaging.inbox_janitor to %s")
	j, err := inbox.NewJanitor(pool, streamAge, inbox.JanitorConfig{KeepVersions: 45 * day})
	require.NoError(t, err)
	swept, err := j.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, inbox.Swept{Emptied: 1, Deleted: 1, Forgotten: 2}, swept)

	pool = b.as(t, "grant usage on schema messaging to %s", "grant select, insert, update on messaging.inbox_messages, "+partitions+" to %s",
		"grant select, insert, update, delete on messaging.inbox_attempts, messaging.inbox_parked to %s", "grant select, insert, update on messaging.inbox_versions to %s",
		"grant select on messaging.inbox_held_keys to %s", "grant insert on effect to %s")
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	m := newMessage()
	require.NoError(t, in.Once(t.Context(), m, apply(m)))
	require.ErrorIs(t, in.Once(t.Context(), young, never(t)), envelope.ErrAlreadyProcessed)
	d := delivery(newMessage(), `{}`)
	_, err = in.Begin(t.Context(), d)
	require.NoError(t, errors.Join(err, in.End(t.Context(), d), in.Undo(t.Context(), d), in.Forget(t.Context(), d)))
	require.NoError(t, inbox.On(in, provisioned, failing(nil)).MarkDead(t.Context(), d, letter))
	requireParkingWorks(t, in)
	requireNone(t, together(t, inbox.OnBatch(in, provisioned, inbox.FullBatch(2), func(ctx context.Context, tx pgx.Tx, _ []received) error {
		_, err := in.Newer(ctx, tx, "server/1", 1)
		return err
	}), deliveries(2)...))
}
