package inbox_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// oldest is a database with the migrations before the partitions.
func oldest(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := dvtest.EmptyPostgres(t)
	script, err := migrate.Export(migrate.Config{})
	require.NoError(t, err)
	for _, one := range strings.SplitAfter(script, "\ncommit;") {
		if strings.Contains(one, "inbox_messages_other") {
			return pool
		}
		_, err := pool.Exec(t.Context(), one)
		require.NoError(t, err)
	}
	t.Fatal("no migration makes partitions")
	return nil
}

// The migration computes the bucket in SQL, the library in Go. Where they
// disagreed, a message handled before would be handled again.
func TestMigrationKeepsWhatWasHandled(t *testing.T) {
	t.Parallel()
	b := &bundle{pool: oldest(t)}
	_, err := b.pool.Exec(t.Context(), `create table effect (message text not null, at timestamptz default clock_timestamp())`)
	require.NoError(t, err)
	const bucket = 1 << 29 * time.Millisecond
	before := []inbox.Message{{Source: "maskin", ID: "ffffffff-ffff-7fff-bfff-ffffffffffff"}, {Source: "maskin", ID: "00000000-0000-7000-8000-000000000000"}}
	for i := range 40 {
		at := time.UnixMilli(int64(3_000+i) << 29)
		before = append(before, madeAt(at), madeAt(at.Add(bucket-time.Millisecond)), newMessage(),
			inbox.Message{Source: "maskin", ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte{byte(i)}).String()})
	}
	for _, m := range before {
		b.exec(t, `insert into messaging.inbox_messages (consumer, source, message_id, handled_at) values ('plattform__servers', $1, $2, '2026-01-02 03:04:05Z')`, m.Source, m.ID)
	}
	b.exec(t, `insert into messaging.inbox_messages (consumer, source, message_id, letter_id) values ('another', $1, $2, $3)`, before[0].Source, before[0].ID, letter)
	b.exec(t, `insert into messaging.inbox_attempts (consumer, source, message_id, starts, ended) values ('another', $1, $2, 3, 2)`, before[0].Source, before[0].ID)
	out, err := outbox.New(topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{MaxBytes: 1 << 20})}}, outbox.Config{})
	require.NoError(t, err)
	require.NoError(t, pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		return out.Enqueue(envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:ola", "tenant-1")), tx, provisioned.New("srv-1", serverV1{}))
	}))
	require.NoError(t, migrate.Up(t.Context(), b.pool, migrate.Config{}))
	require.NoError(t, migrate.Verify(t.Context(), b.pool, migrate.Config{}))
	b.in = b.inbox(t, "plattform__servers")
	for _, m := range before {
		require.True(t, b.remembers(t, m), "%s", m.ID)
	}
	require.Equal(t, len(before), b.count(t, `select count(*) from messaging.inbox_messages where handled_at = '2026-01-02 03:04:05Z' and letter_id is null`))
	for table, rows := range map[string]int{"inbox_messages": len(before) + 1, "inbox_attempts": 1, "outbox_events": 1, "inbox_versions": 0, "inbox_janitor": 0} {
		require.Equal(t, rows, b.count(t, `select count(*) from messaging.`+table), table)
	}
	dead := b.inbox(t, "another")
	m := before[0]
	require.ErrorIs(t, dead.Once(t.Context(), m, never(t)), envelope.ErrAlreadyProcessed)
	open, err := dead.Open(t.Context(), delivery(m, `{}`))
	require.NoError(t, err)
	require.Equal(t, 1, open)
	m.LetterID = letter
	require.NoError(t, dead.Once(t.Context(), m, apply(m)), "the replay of its letter has its effect")
	require.Greater(t, b.count(t, `select count(distinct bucket) from messaging.inbox_messages`), 16)
}
