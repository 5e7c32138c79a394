package consumer_test

import (
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
)

// Two replicas share 1,000 messages, and one of them is killed again and again,
// each time with messages in its hands: now before their commit, now after it and
// before the ack. Every effect is there once, and no message is taken for
// the cause but one that was in flight in three deaths or more.
//
// A row of docs/DELIVERY.md.
func TestKilledProcessesLoseAndDoubleNoEffect(t *testing.T) {
	t.Parallel()
	const kills, load = 10, 70
	// What is in the hands of a process that is late must not fill those of another.
	f := setupReplicas(t, 3*time.Second)
	names, rnd := numbered(1000), rand.New(rand.NewPCG(7, 8))
	left := names
	two := []*replica{f.start(t), f.start(t)}
	died := map[string]int{} // by message: deaths of processes that had it in flight
	committed := 0
	for i := range kills {
		for _, p := range two {
			p.awaitReady(t)
		}
		place, victim := beforeCommit+i%2, rnd.IntN(2)
		p, release := two[victim], holdHandlers(t, f.pool, place)
		f.publish(t, left[:load]...)
		left = left[load:]
		p.awaitHeld(t, f.pool, place)
		p.signal(t, syscall.SIGKILL)
		require.ErrorContains(t, p.wait(t), "killed")
		for _, name := range p.inFlight() {
			died[name]++
			committed += f.hosts(t, name)
		}
		release()
		two[victim] = f.start(t)
	}
	f.publish(t, left...)
	f.settled(t)

	most := 0
	for _, n := range died {
		most = max(most, n)
	}
	t.Logf("%d messages were in flight in %d deaths, one of them in %d; %d were committed and not acknowledged", len(died), kills, most, committed)
	require.NotZero(t, committed, "no process was killed between commit and ack: the test proves half of it")
	alive := slices.Clone(names)
	for name, class := range f.letters(t) {
		require.Equal(t, envelope.ClassCrash, class)
		require.GreaterOrEqual(t, died[name], 3, "message %s is blamed", name)
		alive = slices.DeleteFunc(alive, func(s string) bool { return s == name })
	}
	requireOnce(t, f.pool, alive)
}

// hosts counts the effects of a message.
func (r *replicas) hosts(t *testing.T, name string) (n int) {
	t.Helper()
	require.NoError(t, r.pool.QueryRow(t.Context(), `select count(*) from node where host = $1`, name).Scan(&n))
	return n
}

// Replicas are replaced one after the other with SIGTERM while messages come:
// each has messages in its hands, before their commit or before their ack, finishes
// them, acknowledges them and exits with 0. No handler is started twice, and
// nothing waits for AckWait, which is an hour here.
//
// A row of docs/DELIVERY.md.
func TestRollingRestartOfProcessesStartsNoHandlerTwice(t *testing.T) {
	t.Parallel()
	const restarts, load = 8, 60
	f := setupReplicas(t, time.Hour)
	names := numbered((restarts + 1) * load)
	left := names
	two := []*replica{f.start(t), f.start(t)}
	all := slices.Clone(two)
	for i := range restarts {
		for _, p := range two {
			p.awaitReady(t)
		}
		place := beforeCommit + i/2%2
		p, release := two[i%2], holdHandlers(t, f.pool, place)
		f.publish(t, left[:load]...)
		left = left[load:]
		p.awaitHeld(t, f.pool, place)
		two[i%2] = f.start(t)
		all = append(all, two[i%2])
		p.signal(t, syscall.SIGTERM)
		require.Eventually(t, func() bool { return p.count(lineStopping) > 0 }, soon, tick)
		release()
		require.NoError(t, p.wait(t), "the exit code is not 0")
		require.Empty(t, p.inFlight(), "it ended before its handlers")
	}
	f.publish(t, left...)
	f.settled(t)
	for _, p := range two {
		p.signal(t, syscall.SIGTERM)
		require.NoError(t, p.wait(t))
	}
	starts := map[string]int{}
	for _, p := range all {
		for name, n := range p.starts {
			starts[name] += n
		}
	}
	for _, name := range names {
		require.Equal(t, 1, starts[name], "handler starts of %s", name)
	}
	require.Len(t, starts, len(names))
	requireOnce(t, f.pool, names)
	require.Empty(t, f.letters(t))
}

// A process is stopped (SIGSTOP) with its effects in open transactions, for
// longer than AckWait. Another is given its messages, and waits with each until
// it is known what becomes of the first one: the stopped process wakes up and
// commits, or it is killed.
//
// A row of docs/DELIVERY.md.
func TestProcessStoppedPastAckWaitDoublesNoEffect(t *testing.T) {
	t.Parallel()
	for name, wakesUp := range map[string]bool{"wakes up": true, "is killed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setupReplicas(t, 500*time.Millisecond)
			p := f.start(t)
			p.awaitReady(t)
			names := numbered(3)
			release := holdHandlers(t, f.pool, beforeCommit)
			f.publish(t, names...)
			require.Eventually(t, func() bool { return p.count(lineApplied) == len(names) }, soon, tick)
			p.freeze(t)
			release()
			var calls tally
			in := newInbox(t, ownPool(t, f.pool, 8))
			other := f.run(t, f.config(withStore(in)), counting(&calls, applying(in, func(string) {})))
			require.Eventually(t, func() bool { return waitingFor(t, f.pool, "transactionid") == len(names) }, soon, tick, "nobody waits for a claim")
			require.Zero(t, rowsOf(t, f.pool, "inbox_messages"))
			if wakesUp {
				p.signal(t, syscall.SIGCONT)
			} else {
				p.signal(t, syscall.SIGKILL)
			}
			f.settled(t)
			require.NoError(t, other.stop())
			requireOnce(t, f.pool, names)
			require.Empty(t, f.graves.all())
			require.ElementsMatch(t, []string{"srv-m000", "srv-m001", "srv-m002"}, calls.names())
			if stats := other.Stats(); wakesUp {
				require.EqualValues(t, len(names), stats.Duplicates)
			} else {
				require.EqualValues(t, len(names), stats.Handled)
			}
		})
	}
}

// waitingFor counts the statements that wait for a lock of a kind.
func waitingFor(t *testing.T, pool *pgxpool.Pool, kind string) (n int) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), `
select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and wait_event = $1`, kind).Scan(&n))
	return n
}
