package outbox_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// frozen is a relay process that led, was stopped (SIGSTOP) at a chosen moment,
// and does not know that another took over.
type frozen struct {
	bundle
	broker, database *wire // between the process and its servers
	process          *child
	counter          map[string]int
	forgotten        time.Duration // how old messages must be before the process wakes up
}

// frozenKeys is less than a page of the child: all are in flight at once.
const frozenKeys = 15

// startFrozen starts a relay process that has published one event and has no
// doubt about its stream.
func startFrozen(t *testing.T, b bundle, natsURL string) *frozen {
	t.Helper()
	f := &frozen{bundle: b, broker: newWire(t, natsURL), database: newDatabaseWire(t, b.pool), counter: map[string]int{}}
	// A statement takes one message to the database, so that it can be under way.
	pgURL := f.database.connString(b.pool) + " application_name=frozen default_query_exec_mode=exec"
	f.process = startChild(t, 1, f.broker.natsURL(), pgURL)
	b.enqueueOnKeys(t, f.counter, 1)
	b.requireStored(t, events, 1)
	b.requireDrained(t)
	return f
}

// state is all that a relay moves, and the lease but for its end. The place of a
// row shows also that it was written again as it was.
func (f *frozen) state(t *testing.T) (state string) {
	t.Helper()
	require.NoError(t, f.pool.QueryRow(t.Context(), `
select (select holder || ' ' || term from messaging.outbox_lease) || ' ' ||
       (select string_agg(s.ctid || ' ' || s::text, ' ' order by stream) from messaging.outbox_state s) || ' ' ||
       (select string_agg(a.ctid || ' ' || a.term, ' ') from messaging.outbox_alive a) || ' ' ||
       (select coalesce(string_agg(a.ctid || ' ' || a.at, ' ' order by stream, at), '') from messaging.outbox_anchors a)`).Scan(&state))
	return state
}

// settledState is the state once the leader rests: behind its last move it may
// still write down how far it has read the stream.
func (f *frozen) settledState(t *testing.T) (state string) {
	t.Helper()
	var since time.Time
	require.Eventually(t, func() bool {
		if now := f.state(t); now != state {
			state, since = now, time.Now()
		}
		return time.Since(since) > 200*time.Millisecond
	}, 20*time.Second, 10*time.Millisecond)
	return state
}

// requireWritten waits until the database has executed the move of the cursor
// that the process sent before it was stopped.
func (f *frozen) requireWritten(t *testing.T, since time.Time) {
	t.Helper()
	require.Eventually(t, func() (done bool) {
		err := f.pool.QueryRow(t.Context(), `
select exists (select from pg_stat_activity where datname = current_database() and application_name = 'frozen'
   and state = 'idle' and strpos(query, $2) > 0 and query_start > $1)`, since, movesBase).Scan(&done)
		return err == nil && done
	}, 20*time.Second, time.Millisecond)
}

// The moments at which a leader is stopped. Each returns what happens after the
// take-over and before the process wakes up: what it had sent arrives at last.
var moments = map[string]func(*testing.T, *frozen) (late func()){
	"its page is stored and the cursor not moved": func(t *testing.T, f *frozen) func() {
		f.enqueueOnKeys(t, f.counter, frozenKeys)
		f.process.await(t, stoppedLine)
		f.process.freeze(t)
		return func() { f.process.goOn(t) }
	},
	"it is in the middle of a walk": func(t *testing.T, f *frozen) func() {
		require.NoError(t, f.commitRuns(t.Context(), f.counter, 0, frozenKeys, 5)) // several pages
		f.process.await(t, stoppedLine)
		f.process.freeze(t)
		require.True(t, f.status(t).Walking)
		return func() { f.process.goOn(t) }
	},
	"its move of the cursor is under way": func(t *testing.T, f *frozen) func() {
		f.enqueueOnKeys(t, f.counter, frozenKeys)
		f.process.await(t, stoppedLine)
		f.database.trap.Store(true)
		f.process.goOn(t)
		require.Eventually(t, func() bool { return !f.database.trap.Load() }, 20*time.Second, time.Millisecond)
		f.process.freeze(t)
		return func() {
			var now time.Time
			require.NoError(t, f.pool.QueryRow(t.Context(), "select clock_timestamp()").Scan(&now))
			f.database.requests.open()
			f.requireWritten(t, now)
		}
	},
	"its page is stored and not acknowledged": func(t *testing.T, f *frozen) func() {
		f.broker.answers.close()
		f.enqueueOnKeys(t, f.counter, frozenKeys)
		f.requireStored(t, events, 1+frozenKeys)
		f.process.freeze(t)
		return func() {
			f.process.goOn(t)
			f.broker.answers.open()
		}
	},
	"its page is sent and not arrived": func(t *testing.T, f *frozen) func() {
		f.broker.requests.close()
		before := f.broker.sent.Load()
		f.enqueueOnKeys(t, f.counter, frozenKeys)
		require.Eventually(t, func() bool { return f.broker.sent.Load() == before+frozenKeys }, 20*time.Second, time.Millisecond)
		f.process.freeze(t)
		return func() {
			f.process.goOn(t)
			answered := f.broker.answered.Load()
			f.broker.requests.open()
			require.Eventually(t, func() bool { return f.broker.answered.Load() == answered+frozenKeys }, 20*time.Second, time.Millisecond)
		}
	},
}

// A leading process is stopped for longer than its lease lasts, at the nastiest
// moments. A standby takes over and publishes newer events of the same keys.
// Then what the old one had sent arrives, and it wakes up and goes on: it moves
// no cursor, what it sends is dropped by the stream, and it stands by until it is
// its turn again.
//
// A row of docs/DELIVERY.md.
func TestLeaderStoppedPastItsLeaseChangesNothingWhenItWakesUp(t *testing.T) {
	t.Parallel()
	for name, stopAt := range moments {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, natsURL := setupTCP(t)
			f := startFrozen(t, b, natsURL)
			f.wakeUpTooLate(t, stopAt)
			f.requireExact(t, f.counter)
		})
	}
}

// The same past the duplicate window: old messages arrive behind newer ones of
// their key and are stored again. The inbox absorbs them.
//
// A row of docs/DELIVERY.md.
func TestWhatAStoppedLeaderSentIsAbsorbedPastTheDuplicateWindow(t *testing.T) {
	t.Parallel()
	b, natsURL := setupTCP(t)
	effects := startLedger(t, b)
	shortenDuplicateWindow(t, b)
	f := startFrozen(t, b, natsURL)
	f.forgotten = 300 * time.Millisecond
	f.wakeUpTooLate(t, moments["its page is sent and not arrived"])
	effects.require(t, f.counter)
	require.GreaterOrEqual(t, int(storedMessages(t, b.js)), effects.count(t)+frozenKeys, "nothing was stored again: the test proves nothing")
}

// requireForgotten waits until the newest message is older than the duplicate
// window, if the test asks for that.
func (f *frozen) requireForgotten(t *testing.T) {
	t.Helper()
	s, err := f.js.Stream(t.Context(), events)
	require.NoError(t, err)
	newest := s.CachedInfo().State.LastTime
	require.Eventually(t, func() bool { return time.Since(newest) > f.forgotten }, 20*time.Second, time.Millisecond)
}

// wakeUpTooLate stops the process, lets a standby take over, and wakes it up.
func (f *frozen) wakeUpTooLate(t *testing.T, stopAt func(*testing.T, *frozen) (late func())) {
	t.Helper()
	late := stopAt(t, f)
	standby := f.newRelay(t, outbox.RelayConfig{Holder: "standby", LeaseTTL: 3 * time.Second})
	stop := run(t, standby)
	requireLeader(t, f.bundle, "standby")
	for range 3 {
		f.enqueueOnKeys(t, f.counter, frozenKeys)
	}
	f.requireDrained(t)
	before := f.settledState(t)
	f.requireForgotten(t)
	late()
	f.process.signal(t, syscall.SIGCONT)
	f.process.await(t, standbyLine)
	require.Equal(t, before, f.state(t), "the old leader changed something")

	// It is a standby like any other: it waits, and takes over when it may.
	f.enqueueOnKeys(t, f.counter, frozenKeys)
	f.requireDrained(t)
	st, err := outbox.ReadStatus(t.Context(), f.pool, "")
	require.NoError(t, err)
	require.Equal(t, "standby", st.Leader)
	stop()
	f.enqueueOnKeys(t, f.counter, frozenKeys)
	f.requireDrained(t)
	now, err := outbox.ReadStatus(t.Context(), f.pool, "")
	require.NoError(t, err)
	require.Contains(t, now.Leader, fmt.Sprintf("/%d/", f.process.cmd.Process.Pid))
	require.Greater(t, now.Term, st.Term)
}
