package consumer_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// parkSetup is a broker, a database with a table of effects, and its inbox.
type parkSetup struct {
	*bundle
	pool   *pgxpool.Pool
	in     *inbox.Inbox
	starts tally
}

func setupParking(t *testing.T, change ...func(*topology.Consumer)) *parkSetup {
	t.Helper()
	pool := dvtest.Postgres(t)
	_, err := pool.Exec(t.Context(), `create table node (host text)`)
	require.NoError(t, err)
	return &parkSetup{bundle: setup(t, change...), pool: pool, in: newInbox(t, pool)}
}

// config parks everything that is delayed by more than a millisecond and has a
// fallback that a test would not wait for.
func (p *parkSetup) config(change ...func(*consumer.Config)) consumer.Config {
	return p.bundle.config(append([]func(*consumer.Config){withStore(p.in), func(c *consumer.Config) {
		c.ParkAfter = time.Millisecond
		c.MassFailure = -1
	}}, change...)...)
}

// inTx routes to a handler that applies its effect, then returns the error of
// verdict for the n-th start of a message.
func (p *parkSetup) inTx(verdict func(name string, start int) error) envelope.Route {
	return inbox.On(p.in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
		n := p.starts.add(m.Data.Hostname)
		if _, err := tx.Exec(ctx, `insert into node values ($1)`, m.Data.Hostname); err != nil {
			return err
		}
		return verdict(m.Data.Hostname, n)
	})
}

// once delays every message by d at its first start.
func once(d time.Duration) func(string, int) error {
	return func(_ string, start int) error {
		if start == 1 {
			return envelope.RetryAfter(d, errBroken)
		}
		return nil
	}
}

func (p *parkSetup) rows(t *testing.T, table string) int {
	t.Helper()
	return rowsOf(t, p.pool, table)
}

// effects is how many effects there are, and of how many messages.
func (p *parkSetup) effects(t *testing.T) [2]int {
	t.Helper()
	var n [2]int
	require.NoError(t, p.pool.QueryRow(t.Context(), `select count(*), count(distinct host) from node`).Scan(&n[0], &n[1]))
	return n
}

// empty waits until nothing is parked.
func (p *parkSetup) empty(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return p.rows(t, "inbox_parked") == 0 }, soon, tick)
}

// acknowledged waits until the server holds nothing back.
func (p *parkSetup) acknowledged(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		info, err := p.info()
		return err == nil && info.NumAckPending == 0 && info.NumPending == 0
	}, soon, tick)
}

// More messages than the durable has places are delayed for an hour.
//
// A row of docs/DELIVERY.md.
func TestLongDelayHoldsNoPlaceAndTheOthersFlow(t *testing.T) {
	t.Parallel()
	p := setupParking(t, func(c *topology.Consumer) { c.MaxAckPending = 4 })
	r := p.run(t, p.config(), p.inTx(func(name string, _ int) error {
		if name[0] == 'd' {
			return envelope.RetryAfter(time.Hour, errBroken)
		}
		return nil
	}))
	for range 3 {
		p.publish(t, "d1", "d2", "d3")
		p.publish(t, numbered(10)...)
	}
	p.settled(t)
	p.acknowledged(t)
	require.Equal(t, 9, p.rows(t, "inbox_parked"))
	require.Equal(t, [2]int{30, 10}, p.effects(t))
	s := r.Stats()
	require.Equal(t, []uint64{9, 30, 9}, []uint64{s.Parked, s.Handled, s.Retried})
	require.Equal(t, 9, s.Waiting)
	awaitReady(t, r)
	var remaining time.Duration
	require.NoError(t, p.pool.QueryRow(t.Context(), `select min(due_at) - clock_timestamp() from messaging.inbox_parked`).Scan(&remaining))
	require.InDelta(t, time.Hour, remaining, float64(time.Minute))
}

func TestParkedMessageIsHandledWhenItIsDueAsItCame(t *testing.T) {
	t.Parallel()
	p := setupParking(t)
	var first, second *envelope.Delivery
	inside := -1 // rows that the transaction of the effect sees
	route := inbox.On(p.in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
		if p.starts.add(m.Data.Hostname) == 1 {
			first = m.Delivery
			return envelope.RetryAfter(50*time.Millisecond, errBroken)
		}
		second = m.Delivery
		return tx.QueryRow(ctx, `select count(*) from messaging.inbox_parked`).Scan(&inside)
	})
	r := p.run(t, p.config(), route)
	m := message(t, "a")
	m.Header["X-Foreign"] = []string{"one \xff", "two"}
	p.send(t, m)
	p.empty(t)
	require.Eventually(t, func() bool { return r.Stats().Handled == 1 }, soon, tick)
	require.NoError(t, r.stop())
	require.Zero(t, inside)
	require.Equal(t, 2, second.Attempt)
	require.Equal(t, first.Header, second.Header)
	require.Equal(t, []string{"one \xff", "two"}, second.Header["X-Foreign"])
	require.Equal(t, first.Envelope, second.Envelope)
	require.Equal(t, []any{first.Subject, first.Stream, first.Sequence, first.Durable},
		[]any{second.Subject, second.Stream, second.Sequence, second.Durable})
	require.Empty(t, p.graves.all())
	require.Equal(t, []int{1, 0}, []int{p.rows(t, "inbox_messages"), p.rows(t, "inbox_attempts")})
}

// A handler without a transaction: the row goes after its success, and not before.
func TestUnparkingFollowsTheSuccessOfAHandlerWithoutTransaction(t *testing.T) {
	t.Parallel()
	p := setupParking(t)
	var during atomic.Int64
	r := p.run(t, p.config(), handle(func(_ context.Context, m received) error {
		if p.starts.add(m.Data.Hostname) == 1 {
			return envelope.RetryAfter(20*time.Millisecond, nil)
		}
		during.Store(int64(p.rows(t, "inbox_parked")))
		return nil
	}))
	p.publish(t, "a")
	require.Eventually(t, func() bool { return r.Stats().Handled == 1 }, soon, tick)
	p.empty(t)
	require.Equal(t, int64(1), during.Load())
	require.Len(t, p.starts.names(), 2)
}

// A row of docs/DELIVERY.md.
func TestTwoReplicasShareWhatIsDueAndEachIsHandledOnce(t *testing.T) {
	t.Parallel()
	p := setupParking(t)
	route := p.inTx(once(100 * time.Millisecond))
	a, b := p.run(t, p.config(), route), p.run(t, p.config(), route)
	for _, c := range []*running{a, b} {
		c.SetSurvey(20 * time.Millisecond)
	}
	p.publish(t, numbered(60)...)
	p.settled(t)
	p.empty(t)
	require.Eventually(t, func() bool { return a.Stats().Handled+b.Stats().Handled == 60 }, soon, tick)
	require.Equal(t, [2]int{60, 60}, p.effects(t))
	require.Len(t, p.starts.names(), 120, "a message was started again")
}

// The same event is in the stream again, after the duplicate window: the window
// goes by the message id, which this copy does not show.
func TestDuplicateOfAParkedMessageIsAcknowledgedWithoutAHandler(t *testing.T) {
	t.Parallel()
	p := setupParking(t)
	r := p.run(t, p.config(), p.inTx(once(time.Hour)))
	m := message(t, "a")
	p.send(t, m)
	require.Eventually(t, func() bool { return r.Stats().Parked == 1 }, soon, tick)
	for range 2 {
		again := &nats.Msg{Subject: m.Subject, Header: nats.Header{}, Data: m.Data}
		for name, values := range m.Header {
			again.Header[name] = values
		}
		again.Header.Del("Nats-Msg-Id")
		p.send(t, again)
	}
	require.Eventually(t, func() bool { return r.Stats().Duplicates == 2 }, soon, tick)
	p.acknowledged(t)
	require.Equal(t, []string{"a"}, p.starts.names())
	require.Equal(t, 1, p.rows(t, "inbox_parked"))
}

// The letter is there before the row goes: a crash in between makes no gap.
func TestDeadLetterOfAParkedMessageIsStoredBeforeItsRowGoes(t *testing.T) {
	t.Parallel()
	p := setupParking(t)
	p.graves.set(errBroken, nil)
	p.run(t, p.config(func(c *consumer.Config) { c.MaxAttempts = 3 }), p.inTx(func(string, int) error {
		return envelope.RetryAfter(10*time.Millisecond, errBroken)
	}))
	m := message(t, "a")
	p.send(t, m)
	require.Eventually(t, func() bool { return p.graves.attempts() >= 2 }, soon, tick)
	require.Equal(t, 1, p.rows(t, "inbox_parked"))
	p.graves.set(nil, nil)
	letter := p.graves.await(t, 1)[0]
	p.empty(t)
	require.Equal(t, []any{envelope.ClassExhausted, 3, "DV_MASKIN_EVT", uint64(1), m.Subject, m.Data},
		[]any{letter.Class, letter.Attempts, letter.Stream, letter.Sequence, letter.Subject, letter.Data})
	require.False(t, letter.StoredAt.IsZero())
	require.ErrorIs(t, letter.Err, errBroken)
	require.Equal(t, [2]int{0, 0}, p.effects(t))
	require.Len(t, p.starts.names(), 3)
	require.Zero(t, p.rows(t, "inbox_attempts"))
}

// Bytes that the handlers of a newer version cannot read: decided when it is due.
func TestParkedMessageThatNobodyHandlesAnyMoreIsADeadLetter(t *testing.T) {
	t.Parallel()
	p := setupParking(t)
	first := p.run(t, p.config(), p.inTx(once(time.Millisecond*100)))
	p.publish(t, "a")
	require.Eventually(t, func() bool { return first.Stats().Parked == 1 }, soon, tick)
	require.NoError(t, first.stop())
	other := envelope.MustEvent[serverV1](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "removed", Version: 1})
	p.run(t, p.config(), consumer.On(other, ignore))
	require.Equal(t, envelope.ClassDecode, p.graves.await(t, 1)[0].Class)
	p.empty(t)
}

func TestReplayIsParkedAndItsLetterResolvedBeforeItsRowGoes(t *testing.T) {
	t.Parallel()
	p := setupParking(t)
	p.graves.set(nil, errBroken)
	r := p.run(t, p.config(), p.inTx(once(100*time.Millisecond)))
	p.send(t, replay(message(t, "a")))
	p.replaysSettled(t)
	require.Equal(t, uint64(1), r.Stats().Parked)
	require.Eventually(t, func() bool { return p.graves.attempts() >= 2 }, soon, tick)
	require.Equal(t, [2]int{1, 1}, p.effects(t), "the effect is there")
	require.Equal(t, 1, p.rows(t, "inbox_parked"), "nobody would resolve the letter after a crash")
	p.graves.set(nil, nil)
	p.empty(t)
	require.Equal(t, []string{letterID}, p.graves.resolvedIDs())
	require.Equal(t, [2]int{1, 1}, p.effects(t))
	require.Len(t, p.starts.names(), 2)
}

// A second replay of the letter while the first one waits resolves nothing, and
// an ordinary copy of the message is not held up by it.
func TestRepeatOfAParkedReplayIsIgnoredAndItsLetterStaysOpen(t *testing.T) {
	t.Parallel()
	p := setupParking(t)
	r := p.run(t, p.config(), p.inTx(once(time.Hour)))
	m := message(t, "a")
	for i := range 2 {
		again := replay(m)
		again.Header.Set("Nats-Msg-Id", letterID+"/r"+string(rune('1'+i)))
		p.send(t, again)
		p.replaysSettled(t)
	}
	require.Equal(t, []uint64{1, 1}, []uint64{r.Stats().Parked, r.Stats().Duplicates})
	require.Empty(t, p.graves.resolvedIDs())
	require.Empty(t, p.graves.all())
	p.send(t, m)
	p.settled(t)
	require.Equal(t, [2]int{1, 1}, p.effects(t))
}

// A drain gives back at once what it interrupts: the claim would last for AckWait.
func TestShutdownGivesAParkedMessageBackAtOnce(t *testing.T) {
	t.Parallel()
	p := setupParking(t, func(c *topology.Consumer) { c.AckWait = time.Minute })
	var attempts tally
	begun := make(chan struct{})
	blocking := inbox.On(p.in, provisioned, func(ctx context.Context, _ pgx.Tx, m received) error {
		if attempts.add(m.Data.Hostname) == 1 {
			return envelope.RetryAfter(10*time.Millisecond, nil)
		}
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	})
	first := p.run(t, p.config(func(c *consumer.Config) { c.DrainTimeout = time.Millisecond }), blocking)
	p.publish(t, "a")
	<-begun
	require.NoError(t, first.stop())
	var attempt int
	second := p.run(t, p.config(), inbox.On(p.in, provisioned, func(_ context.Context, _ pgx.Tx, m received) error {
		attempt = m.Attempt
		return nil
	}))
	require.Eventually(t, func() bool { return second.Stats().Handled == 1 }, soon, tick)
	require.NoError(t, second.stop())
	require.Equal(t, 2, attempt, "the interrupted start counts")
	p.empty(t)
}

// As long as its handler runs, nobody else gets the message, also when that is longer
// than the lease.
func TestClaimOutlivesItsLeaseWhileTheHandlerRuns(t *testing.T) {
	t.Parallel()
	p := setupParking(t)
	route := handle(func(_ context.Context, m received) error {
		if p.starts.add(m.Data.Hostname) == 1 {
			return envelope.RetryAfter(10*time.Millisecond, nil)
		}
		<-time.After(p.declared.AckWait * 4 / 3)
		return nil
	})
	a, b := p.run(t, p.config(), route), p.run(t, p.config(), route)
	a.SetSurvey(20 * time.Millisecond)
	b.SetSurvey(20 * time.Millisecond)
	p.publish(t, "a")
	require.Eventually(t, func() bool { return a.Stats().Handled+b.Stats().Handled == 1 }, soon, tick)
	p.empty(t)
	require.Len(t, p.starts.names(), 2)
}

// With one message at a time the followers of a failing one wait for it, so it is
// not parked; its delay is cut.
func TestStrictOrderParksNothing(t *testing.T) {
	t.Parallel()
	p, log := setupParking(t, func(c *topology.Consumer) { c.MaxAckPending = 1 }), &book{}
	r := p.run(t, p.config(log.config()), p.inTx(once(time.Hour)))
	p.publish(t, "a", "b")
	require.Eventually(t, func() bool { return r.Stats().Retried == 1 && len(log.lines("delay=10m0s")) > 0 }, soon, tick)
	require.Zero(t, p.rows(t, "inbox_parked"))
	require.Equal(t, []string{"a"}, p.starts.names())
}

func TestTooManyParkedMessagesStayWithTheServerAndReadySaysSo(t *testing.T) {
	t.Parallel()
	p, log := setupParking(t), &book{}
	r := p.run(t, p.config(log.config(), func(c *consumer.Config) { c.MaxParked, c.Concurrency = 2, 1 }), p.inTx(once(time.Hour)))
	p.publish(t, numbered(3)...)
	require.Eventually(t, func() bool { return r.Stats().Retried == 3 }, soon, tick)
	awaitNotReady(t, r, "2 messages are parked")
	require.Equal(t, 2, p.rows(t, "inbox_parked"))
	require.Eventually(t, func() bool {
		info, err := p.info()
		return err == nil && info.NumAckPending == 1
	}, soon, tick)
	_, err := p.pool.Exec(t.Context(), `delete from messaging.inbox_parked`)
	require.NoError(t, err)
	r.SetSurvey(10 * time.Millisecond)
	awaitReady(t, r)
	require.Len(t, log.lines("as many messages are parked as may be"), 1)
}

// The database goes while messages wait and one is being handled.
func TestOutageOfTheDatabaseSpendsNoAttemptOfParkedMessages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server, err := pgserver.Start(t.Context(), pgserver.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop() })
	pool, err := pgxpool.New(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{}))
	_, err = pool.Exec(t.Context(), `create table node (host text)`)
	require.NoError(t, err)
	p := &parkSetup{bundle: b, pool: pool, in: newInbox(t, pool)}
	r := p.run(t, p.config(func(c *consumer.Config) { c.MaxAttempts = 2 }), p.inTx(func(name string, start int) error {
		if start == 1 {
			return envelope.RetryAfter(300*time.Millisecond, nil)
		}
		return nil
	}))
	p.publish(t, numbered(10)...)
	require.Eventually(t, func() bool { return r.Stats().Parked == 10 }, soon, tick)
	require.NoError(t, server.Kill9())
	awaitNotReady(t, r, "parked messages cannot be read")
	require.NoError(t, server.Restart(t.Context()))
	require.Eventually(t, func() bool { return r.Stats().Handled == 10 && r.Ready() == nil }, soon, tick)
	p.empty(t)
	require.Equal(t, [2]int{10, 10}, p.effects(t))
	require.Empty(t, p.graves.all())
}
