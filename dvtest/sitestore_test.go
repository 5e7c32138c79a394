package dvtest_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
)

const (
	resentToB = "DV_MASKIN_EVT_RESENT_TO_DC2"
	onResent  = "dv.xdr.dc2.maskin.evt.server.provisioned"
)

// resend stores n messages again, for SiteB.
func (e *end) resend(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		msg := nats.NewMsg(onResent)
		msg.Data = []byte(id)
		require.Eventually(t, func() bool {
			_, err := e.conn.JetStream().PublishMsg(t.Context(), msg, jetstream.WithMsgID(id), jetstream.WithExpectStream(resentToB))
			return err == nil
		}, soon, 10*time.Millisecond)
	}
}

// awaitCopy waits until the copy at the site holds as many messages, the last of
// them as given.
func (e *end) awaitCopy(t *testing.T, stream string, messages int, last string) {
	t.Helper()
	require.Eventually(t, func() bool {
		s, err := e.conn.JetStream().Stream(t.Context(), stream)
		if err != nil || s.CachedInfo().State.Msgs != uint64(messages) {
			return false
		}
		m, err := s.GetMsg(t.Context(), s.CachedInfo().State.LastSeq)
		return err == nil && string(m.Data) == last && m.Subject == "dv.maskin.evt.server.provisioned"
	}, soon, 10*time.Millisecond, "%s has not %d messages with %s as the last", stream, messages, last)
}

// A site that is put back gives out its sequences again. What has one of them
// never comes to the copy by itself, and comes over the stream of what is resent.
func TestARolledBackSiteGivesOutItsSequencesAgainAndWhatIsResentArrives(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, bothWays()...)
	a, b := ends(t, s, 1)
	a.publish(t, 20)
	b.requireHolds(t, copyAtB, a)
	before := s.A().Snapshot(t)
	a.publish(t, 20)
	s.AwaitFlows(t)
	b.requireHolds(t, copyAtB, a)

	s.A().RollBack(t, before)
	s.AwaitFlows(t)
	stream, err := a.conn.JetStream().Stream(t.Context(), "DV_MASKIN_EVT")
	require.NoError(t, err)
	require.EqualValues(t, 20, stream.CachedInfo().State.LastSeq)
	a.sent = 100 // another 20, with ids that were never used
	a.publish(t, 10)
	a.resend(t, "resent 1", "resent 2")
	b.awaitCopy(t, copyAtB, 42, "resent 2")
}

// The stream of what is resent is rolled back as well, and then goes on behind
// what the copy has: a purge up to there moves its sequence.
func TestTheStreamOfWhatIsResentGoesOnBehindWhatTheCopyHasSeen(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, bothWays()...)
	a, b := ends(t, s, 1)
	before := s.A().Snapshot(t)
	s.AwaitFlows(t)
	a.resend(t, "1", "2", "3", "4", "5")
	b.awaitCopy(t, copyAtB, 5, "5")
	s.A().RollBack(t, before)
	s.AwaitFlows(t)

	stream, err := a.conn.JetStream().Stream(t.Context(), resentToB)
	require.NoError(t, err)
	require.NoError(t, stream.Purge(t.Context(), jetstream.WithPurgeSequence(6)))
	a.resend(t, "6")
	b.awaitCopy(t, copyAtB, 6, "6")
	info, err := stream.Info(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 6, info.State.LastSeq)
}
