package outbox_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
)

func (b bundle) orphans(t *testing.T, q outbox.OrphanQuery) outbox.Orphans {
	t.Helper()
	q.Service = subject.Maskin
	found, err := outbox.FindOrphans(t.Context(), b.pool, b.js, "", q)
	require.NoError(t, err)
	return found
}

// enqueueCommand commits a command to another service.
func (b bundle) enqueueCommand(t *testing.T, key string) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		return b.out.Enqueue(origin(t.Context()), tx, provision.New(key, counted{Key: key, N: 1}))
	}))
}

// The database goes back to an earlier moment: events and commands of the time
// after it are there for others, and not for the service itself. They are listed
// before a relay runs, while one does, and after it has passed them.
func TestOrphansAreWhatTheStreamsHoldAndARestoredOutboxDoesNot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	counter := map[string]int{}
	stop := b.relay(t, outbox.RelayConfig{})
	b.enqueueCounted(t, counter, 10)
	b.requireDrained(t)
	stop()
	restore := b.remember(t)
	before := time.Now().Add(-time.Minute)
	all := outbox.OrphanQuery{Since: before}
	require.Equal(t, []outbox.OrphanCount{{Stream: events, Ours: 10, Read: 10}}, b.orphans(t, all).Streams)

	stop = b.relay(t, outbox.RelayConfig{})
	b.enqueueCounted(t, counter, 4)
	b.enqueueCommand(t, "link-1") // to a stream that the backup knows nothing of
	b.requireDrained(t)
	require.Eventually(t, func() bool { // which is a stream of its own, with its own cursor
		s, err := b.js.Stream(t.Context(), "DV_NETT_CMD")
		return err == nil && s.CachedInfo().State.Msgs == 1
	}, 20*time.Second, 5*time.Millisecond)
	stop()
	b.stranger(t, 3)
	copied := nats.NewMsg("dv.maskin.evt.server.counted")
	copied.Header = nats.Header{envelope.HeaderSource: {"maskin"}, envelope.HeaderMsgID: {"no uuid"}}
	_, err := b.js.PublishMsg(t.Context(), copied)
	require.NoError(t, err)
	require.Empty(t, b.orphans(t, all).Orphans)

	restore()
	b.enqueue(t, "after", 1) // waits to be published, and is none
	want := []outbox.OrphanCount{{Stream: "DV_NETT_CMD", Ours: 1, Orphans: 1, Read: 1}, {Stream: events, Ours: 14, Orphans: 4, Read: 18}}
	requireFound := func(streams []outbox.OrphanCount) {
		t.Helper()
		found := b.orphans(t, all)
		require.False(t, found.Limited)
		require.ElementsMatch(t, streams, found.Streams)
		require.Len(t, found.Orphans, 5)
		for _, o := range found.Orphans {
			require.NotEmpty(t, o.Resource)
			require.NotEmpty(t, o.CorrelationID)
			require.Equal(t, "tenant-1", o.TenantID)
			require.Equal(t, "user:kari", o.Actor)
		}
		command := found.Orphans[0]
		if command.Stream != "DV_NETT_CMD" {
			command = found.Orphans[4]
		}
		require.Equal(t, []string{"DV_NETT_CMD", "dv.nett.cmd.provision", "link-1"}, []string{command.Stream, command.Subject, command.Resource})
	}
	requireFound(want)

	b.relay(t, outbox.RelayConfig{})
	b.requireDrained(t)
	want[1].Ours, want[1].Read = 15, 19
	requireFound(want)

	one := b.orphans(t, outbox.OrphanQuery{Since: before, Stream: events, Max: 3})
	require.True(t, one.Limited)
	require.Len(t, one.Orphans, 3)
	require.Equal(t, 4, one.Streams[0].Orphans, "all are counted")
	require.Empty(t, b.orphans(t, outbox.OrphanQuery{Since: time.Now().Add(time.Hour)}).Streams)
}

// Rows that retention deleted are no news: whether the outbox knew the messages,
// nobody can tell.
func TestMessagesWhoseRowsRetentionDeletedAreNoOrphans(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.relay(t, outbox.RelayConfig{})
	b.enqueueCounted(t, map[string]int{}, 10)
	b.requireDrained(t)
	stop()
	b.exec(t, "delete from messaging.outbox_events")
	b.exec(t, "update messaging.outbox_state set deleted_through = 6 where stream = $1", events)
	require.Equal(t, []outbox.OrphanCount{{Stream: events, Ours: 10, Orphans: 4, Unjudged: 6, Read: 10}},
		b.orphans(t, outbox.OrphanQuery{Since: time.Now().Add(-time.Hour)}).Streams)
}

func TestASearchForOrphansSaysAllThatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := outbox.FindOrphans(t.Context(), nil, nil, "Bad-Name", outbox.OrphanQuery{})
	for _, fault := range []string{"schema", "service is none", "since is zero", "js is nil"} {
		require.ErrorContains(t, err, fault)
	}
	b := setup(t)
	_, err = outbox.FindOrphans(t.Context(), b.pool, b.js, "", outbox.OrphanQuery{Service: subject.Maskin, Since: time.Now(), Stream: "DV_ODD"})
	require.ErrorContains(t, err, "DV_ODD")
}

// Commands to another site wait in a stream of their own, which a restored outbox may
// know nothing of.
func TestACommandToAnotherSiteIsAnOrphanToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const waiting = "DV_NETT_CMD_TO_TRD1"
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: waiting, Subjects: []string{"dv.xdc.trd1.nett.cmd.*"}})
	require.NoError(t, err)
	m := nats.NewMsg("dv.xdc.trd1.nett.cmd.provision")
	m.Header = nats.Header{envelope.HeaderSource: {"maskin"}, envelope.HeaderMsgID: {"01890a5d-ac96-774b-bcce-b302099a8057"}}
	_, err = b.js.PublishMsg(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, []outbox.OrphanCount{{Stream: waiting, Ours: 1, Orphans: 1, Read: 1}},
		b.orphans(t, outbox.OrphanQuery{Since: time.Now().Add(-time.Hour)}).Streams)
}
