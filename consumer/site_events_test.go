package consumer_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// maskinToB is all of maskin's events from A to B.
func maskinToB() topology.Flow {
	return topology.Flow{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoEvents, Service: subject.Maskin}
}

// Order across the link: the copy has the order of its origin, and the lanes keep it,
// while the link is cut in the middle and heads of keys fail, so many at a time that the
// breaker opens and the durable is reset. A server with leafnodes serves what was
// abandoned by that for 2 s more, and the reset has to outlast it.
//
// A row of docs/DELIVERY.md.
func TestKeysKeepTheirOrderAcrossALinkThatIsCut(t *testing.T) {
	t.Parallel()
	const keys, each = 20, 30
	s := dvtest.Sites(t, maskinToB())
	origin := setupOn(t, s.A().Connect(t).JetStream())
	_, err := origin.js.CreateStream(t.Context(), s.Network().ResentOf(maskinToB()).Config())
	require.NoError(t, err)
	l := ledgerOn(t, setupOn(t, s.B().Connect(t).JetStream(), func(c *topology.Consumer) {
		c.Stream, c.MaxAckPending = s.Network().StreamOf(maskinToB()), 400
	}))
	failed := &tally{}
	l.run(t, l.ordered(func(c *consumer.Config) {
		c.Site = dvtest.SiteB
	}), l.apply(func(_ context.Context, m envelope.Received[numberV1]) error {
		if name := fmt.Sprint(m.Envelope.Subject, m.Data.N); m.Data.N%7 == 0 && failed.add(name) == 1 {
			return errBroken
		}
		return nil
	}))
	for n := 1; n <= each; n++ {
		switch n {
		case each / 3:
			l.awaitEffects(t, "key0000", number1To(n-1)...)
			s.Cut()
		case 2 * each / 3:
			s.Heal()
			s.AwaitFlows(t)
		}
		for k := range keys {
			origin.send(t, number(t, fmt.Sprintf("key%04d", k), n))
		}
	}
	s.AwaitFlows(t)
	for k := range keys {
		l.awaitEffects(t, fmt.Sprintf("key%04d", k), number1To(each)...)
	}
	l.requireOrder(t, keys, each)
}

// number1To is 1 to n.
func number1To(n int) []int {
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = i + 1
	}
	return numbers
}

// twins is plattform at site B: it handles what maskin publishes there, and what comes
// from A, with the same handlers and one inbox.
type twins struct {
	*platform
	s         *dvtest.TwoSites
	atA, atB  *bundle
	consumers []topology.Consumer
}

func setupTwins(t *testing.T, route func(*inbox.Inbox) envelope.Route) *twins {
	t.Helper()
	s := dvtest.Sites(t, maskinToB())
	a, b := s.A().Connect(t), s.B().Connect(t)
	small := topology.Limits{MaxBytes: 16 << 20}
	events := topology.Events(subject.Maskin, small)
	s.A().Ensure(t, a, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}})
	s.B().Ensure(t, b, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}})
	local := topology.Consumer{
		Durable: "plattform__from_maskin", Stream: events, Filter: subject.EventsOf(subject.Maskin),
		AckWait: 5 * time.Second, MaxAckPending: 20, Start: topology.StartFirst(),
	}
	set := s.B().Ensure(t, b, topology.Set{
		Service:   subject.Plattform,
		Streams:   []topology.Stream{events, topology.DeadLetters(subject.Plattform, small), topology.DeadLetterOps(subject.Plattform, small)},
		Consumers: append(s.Network().Twins(s.B().Name(), local), local),
	})
	w := &twins{
		platform: &platform{bundle: &bundle{js: b.JetStream(), declared: local}, pool: dvtest.Postgres(t)},
		s:        s, atA: &bundle{js: a.JetStream()}, atB: &bundle{js: b.JetStream()}, consumers: set.Consumers,
	}
	var err error
	w.queue, err = dlq.Open(t.Context(), w.js, subject.Plattform, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	_, err = w.pool.Exec(t.Context(), createEffects)
	require.NoError(t, err)
	in, err := inbox.New(w.pool, local.Durable, inbox.Config{})
	require.NoError(t, err)
	for _, one := range w.consumers {
		cfg := w.config(func(c *consumer.Config) {
			c.Consumer, c.Site, c.Store, c.ParkAfter = one, s.B().Name(), in, time.Millisecond
		})
		c, err := consumer.New(w.js, w.queue, cfg, route(in))
		require.NoError(t, err)
		awaitReady(t, start(t, c))
	}
	return w
}

// publishAt publishes one message as the relay of a site does.
func publishAt(t *testing.T, b *bundle, site string, m *nats.Msg) {
	t.Helper()
	at := &nats.Msg{Subject: m.Subject, Header: nats.Header{}, Data: m.Data}
	for name, values := range m.Header {
		at.Header[name] = values
	}
	at.Header.Set(envelope.HeaderSite, site)
	b.send(t, at)
}

func (w *twins) settled(t *testing.T) {
	t.Helper()
	for _, c := range w.consumers {
		w.through(t, c.Stream.Name, c.Durable)
	}
}

func (w *twins) effects(t *testing.T, key string) (n int) {
	t.Helper()
	require.NoError(t, w.pool.QueryRow(t.Context(), `select count(*) from effect where key = $1`, key).Scan(&n))
	return n
}

// A message that comes from both sites, as after a service's database moved from one to
// the other, is one message: its effect, its parking and its dead letter happen once.
//
// A row of docs/DELIVERY.md.
func TestAMessageThatComesFromBothSitesTakesEffectOnce(t *testing.T) {
	t.Parallel()
	tries := &tally{}
	fixed := make(chan struct{})
	w := setupTwins(t, func(in *inbox.Inbox) envelope.Route {
		return applyTo(in, func(_ context.Context, m envelope.Received[numberV1]) error {
			switch m.Envelope.Subject {
			case "later":
				if tries.add("later") == 1 {
					return envelope.RetryAfter(200*time.Millisecond, errBroken)
				}
			case "bad":
				select {
				case <-fixed:
				default:
					return envelope.Permanent(errBroken)
				}
			}
			return nil
		})
	})
	require.Equal(t, "plattform__from_maskin__dc1", w.consumers[0].Durable)

	both := []string{"later"}
	for i := range 30 {
		both = append(both, fmt.Sprintf("key%02d", i))
	}
	for i, key := range both {
		m := number(t, key, i)
		publishAt(t, w.atA, dvtest.SiteA, m)
		publishAt(t, w.atB, dvtest.SiteB, m)
	}
	for _, key := range both {
		require.Eventually(t, func() bool { return w.effects(t, key) > 0 }, soon, tick, key)
	}
	w.s.AwaitFlows(t)

	bad := number(t, "bad", 1)
	publishAt(t, w.atA, dvtest.SiteA, bad)
	require.Eventually(t, func() bool { return len(w.letters(t)) == 1 }, soon, tick)
	w.settled(t) // the inbox knows it
	require.Equal(t, w.consumers[0].Durable, w.letters(t)[0].Durable, "the one that reads the copy")
	publishAt(t, w.atB, dvtest.SiteB, bad)
	w.settled(t)
	require.Len(t, w.letters(t), 1, "the copy of a dead message is no second one")
	close(fixed)
	letter := w.letters(t)[0].ID
	_, err := w.queue.Replay(t.Context(), letter, dlq.Request{By: "operator:ola", Reason: "fixed"})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		l, err := w.queue.Show(t.Context(), letter)
		return err == nil && l.State == dlq.StateResolved
	}, soon, 10*time.Millisecond)
	for _, key := range append(both, "bad") {
		require.Equal(t, 1, w.effects(t, key), key)
	}
}

// What another site sends and this one cannot read yet waits as a dead letter that says
// what to deploy, and is replayed after that.
//
// A row of docs/DELIVERY.md.
func TestWhatAnotherSiteSendsInAnUnknownVersionIsADeadLetterWithItsRemedy(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, maskinToB())
	origin := setupOn(t, s.A().Connect(t).JetStream())
	here := setupOn(t, s.B().Connect(t).JetStream(), func(c *topology.Consumer) { c.Stream = s.Network().StreamOf(maskinToB()) })
	here.run(t, here.config(func(c *consumer.Config) { c.Site = dvtest.SiteB }), handle(func(context.Context, received) error { return nil }))

	publishAt(t, origin, dvtest.SiteA, draft(t, provisioned2.New("srv-1", serverV2{"a"})))
	schema := here.graves.await(t, 1)[0]
	require.Equal(t, envelope.ClassDecode, schema.Class)
	for _, part := range []string{
		"maskin.server.provisioned v2", "this consumer handles v1", "deploy a release that handles the newer one, then replay",
		"site dc1 published it: what reads a message is deployed at every site before any site sends it",
	} {
		require.ErrorContains(t, schema.Err, part)
	}

	later := message(t, "b")
	later.Data = bytes.Replace(later.Data, []byte(`"specversion":"1.0"`), []byte(`"specversion":"2.1"`), 1)
	publishAt(t, origin, dvtest.SiteA, later)
	spec := here.graves.await(t, 2)[1]
	require.Equal(t, envelope.ClassDecode, spec.Class)
	require.ErrorContains(t, spec.Err, "specversion: is of a later major version than 1, which this release reads: deploy one that reads it, at every site and before anybody sends it, then replay")
	require.Equal(t, dvtest.SiteA, spec.Header.Get(envelope.HeaderSite), "the letter tells who sent it")
}
