package sites_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

const resentToB = "DV_MASKIN_EVT_RESENT_TO_DC2"

// compares is fast, comparing often.
func compares() sites.Config {
	cfg := fast()
	cfg.Compare = 100 * time.Millisecond
	return cfg
}

// newIDs returns n ids of version 7.
func newIDs(n int) []string {
	ids := make([]string, 0, n)
	for range n {
		ids = append(ids, uuid.Must(uuid.NewV7()).String())
	}
	return ids
}

// idAt returns an id of version 7 of that time.
func idAt(at time.Time) string {
	id := uuid.Must(uuid.NewV7())
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i)))
	}
	return id.String()
}

// store publishes an event with each id at the site.
func (e *end) store(t *testing.T, ids ...string) {
	t.Helper()
	e.storeOn(t, "dv.maskin.evt.server.provisioned", events, ids...)
}

func (e *end) storeOn(t *testing.T, on, stream string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		msg := nats.NewMsg(on)
		msg.Data = []byte(id)
		msg.Header.Set("Dv-Site", e.site.Name())
		require.Eventually(t, func() bool {
			_, err := e.conn.JetStream().PublishMsg(t.Context(), msg, jetstream.WithMsgID(id), jetstream.WithExpectStream(stream))
			return err == nil
		}, soon, tick)
	}
}

// held returns the ids in a stream of the site, in order.
func (e *end) held(t *testing.T, stream string) []string {
	t.Helper()
	s, err := e.conn.JetStream().Stream(t.Context(), stream)
	if err != nil {
		return nil
	}
	var ids []string
	state := s.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		if m, err := s.GetMsg(t.Context(), seq); err == nil {
			ids = append(ids, m.Header.Get("Nats-Msg-Id"))
		}
	}
	return ids
}

// requireHeld waits until a stream of the site holds all ids.
func (e *end) requireHeld(t *testing.T, stream string, ids ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return containsAll(e.held(t, stream), ids) }, soon, 4*tick, "%s lacks some", stream)
}

func containsAll(all, some []string) bool {
	has := map[string]bool{}
	for _, id := range all {
		has[id] = true
	}
	return !slices.ContainsFunc(some, func(id string) bool { return !has[id] })
}

// requireOnce demands that a stream holds nothing twice.
func (e *end) requireOnce(t *testing.T, stream string) {
	t.Helper()
	ids := e.held(t, stream)
	before := len(ids)
	slices.Sort(ids)
	require.Len(t, slices.Compact(ids), before, "%s holds something twice", stream)
}

// complete: both ends were compared since, and nothing is missing.
func completeSince(since time.Time) func(sites.Flow) bool {
	return func(f sites.Flow) bool { return f.Compared.After(since) && f.Missing == 0 && f.CompareErr == "" }
}

// rollBack makes the origin lose its newest lost events, which the copy has, and
// returns when both sites are up again.
func rollBack(t *testing.T, s *dvtest.TwoSites, a, b *end, lost int) {
	t.Helper()
	a.store(t, newIDs(5)...)
	before := s.A().Snapshot(t)
	s.AwaitFlows(t)
	gone := newIDs(lost)
	a.store(t, gone...)
	b.requireHeld(t, copyAtB, gone...)
	s.A().RollBack(t, before)
	s.AwaitFlows(t)
}

// The promise of the package: sourcing does not survive an origin that was put back,
// what it stores on the sequences it gives out again never comes by itself, and the
// watchers bring it. A row of docs/DELIVERY.md.
func TestWhatARolledBackOriginStoresAnewArrivesWithoutAnOperator(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	rollBack(t, s, a, b, 20)
	odd := []string{uuid.NewString(), "maskin-4711", idAt(time.Now().Add(-3 * time.Hour)), idAt(time.Now().Add(3 * time.Hour))}
	anew := append(newIDs(8), odd...)
	a.store(t, anew...)
	began := time.Now()
	a.watcher(t, compares())
	w := b.watcher(t, compares())
	b.requireHeld(t, copyAtB, anew...)
	f := requireFlow(t, w, "complete", completeSince(began))
	t.Logf("reconciled after %s", time.Since(began))
	require.GreaterOrEqual(t, f.Resent, uint64(len(anew)))
	require.EqualValues(t, 20, f.OriginLacks, "what the origin lost is told")
	b.requireOnce(t, copyAtB)
	stream, err := b.conn.JetStream().Stream(t.Context(), copyAtB)
	require.NoError(t, err)
	m, err := stream.GetLastMsgForSubject(t.Context(), "dv.maskin.evt.server.provisioned")
	require.NoError(t, err)
	require.Equal(t, m.Header.Get("Nats-Msg-Id"), string(m.Data), "the bytes are as they were")
	require.Equal(t, dvtest.SiteA, m.Header.Get("Dv-Site"))
}

func TestWithoutWatchersARolledBackOriginIsNotNoticed(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	rollBack(t, s, a, b, 20)
	anew := newIDs(10)
	a.store(t, anew...)
	// What comes behind the remembered sequence does come, so that the link is fine.
	a.store(t, newIDs(10)...)
	later := newIDs(1)
	a.store(t, later...)
	b.requireHeld(t, copyAtB, later...)
	require.False(t, slices.ContainsFunc(b.held(t, copyAtB), func(id string) bool { return slices.Contains(anew, id) }))
}

// A row of docs/DELIVERY.md.
func TestADestinationThatWasPutBackIsCompleteAgain(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	a.watcher(t, compares())
	w := b.watcher(t, compares())
	first, second := newIDs(10), newIDs(10)
	a.store(t, first...)
	b.requireHeld(t, copyAtB, first...)
	before := s.B().Snapshot(t)
	a.store(t, second...)
	b.requireHeld(t, copyAtB, second...)
	s.B().RollBack(t, before)
	began := time.Now()
	b.requireHeld(t, copyAtB, append(first, second...)...)
	requireFlow(t, w, "complete", completeSince(began))
	b.requireOnce(t, copyAtB)
}

// A row of docs/DELIVERY.md.
func TestCommandsAreReconciledToo(t *testing.T) {
	t.Parallel()
	flow := topology.Flow{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoCommands, Service: subject.Maskin}
	s, a, b := ends(t, flow)
	const waiting, there, on = "DV_MASKIN_CMD_TO_DC2", "DV_MASKIN_CMD", "dv.xdc.dc2.maskin.cmd.resize"
	before := s.A().Snapshot(t)
	s.AwaitFlows(t)
	gone := newIDs(10)
	a.storeOn(t, on, waiting, gone...)
	b.requireHeld(t, there, gone...)
	s.A().RollBack(t, before)
	s.AwaitFlows(t)
	b.storeOn(t, "dv.maskin.cmd.resize", there, newIDs(3)...) // local ones are nobody's loss
	anew := newIDs(4)
	a.storeOn(t, on, waiting, anew...)
	began := time.Now()
	a.watcher(t, compares())
	w := b.watcher(t, compares())
	b.requireHeld(t, there, anew...)
	f := requireFlow(t, w, "complete", completeSince(began))
	require.EqualValues(t, 10, f.OriginLacks)
	b.requireOnce(t, there)
	stream, err := b.conn.JetStream().Stream(t.Context(), there)
	require.NoError(t, err)
	last, err := stream.GetMsg(t.Context(), stream.CachedInfo().State.LastSeq)
	require.NoError(t, err)
	require.Equal(t, "dv.maskin.cmd.resize", last.Subject)
}

// What a watcher remembers of a stream does not outlive the stream, also where that
// has grown beyond what was read of it since.
func TestAnOriginThatGrewBeyondWhatItLostIsReadAnew(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	before := s.A().Snapshot(t)
	s.AwaitFlows(t)
	a.watcher(t, fast()) // which compares nothing: no flow ends there
	verify := func() sites.Comparison {
		var found []sites.Comparison
		require.Eventually(t, func() bool {
			var err error
			found, err = sites.Verify(t.Context(), b.conn, s.Network(), dvtest.SiteB, fast(), false)
			require.NoError(t, err)
			return found[0].Err == ""
		}, soon, tick)
		return found[0]
	}
	lost := newIDs(10)
	a.store(t, lost...)
	b.requireHeld(t, copyAtB, lost...)
	require.Zero(t, verify().Missing)
	s.A().RollBack(t, before)
	s.AwaitFlows(t)
	anew := newIDs(12)
	a.store(t, anew...)
	b.requireHeld(t, copyAtB, anew[10:]...) // on sequences that were never given out
	found := verify()
	require.EqualValues(t, 10, found.Missing)
	require.EqualValues(t, 10, found.OriginLacks)
	require.Zero(t, found.Resent, "nobody asked for that")
}
