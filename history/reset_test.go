package history_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/history"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/topology"
)

// here is the durable of these tests.
func here() history.Durable { return history.Durable{Stream: source, Name: durable} }

// A running consumer gets the messages again, from the one that was named on. The
// inbox leaves out what it has handled, a handler without one does it again, and
// the durable is as it was declared.
func TestADurableIsResetWhileItsConsumerRuns(t *testing.T) {
	t.Parallel()
	b, pool := setup(t), dvtest.Postgres(t)
	_, err := pool.Exec(t.Context(), `create table effect (n int not null)`)
	require.NoError(t, err)
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	added, removed := eventType("added", 1), eventType("removed", 1)
	effects := inbox.On(in, added, func(ctx context.Context, tx pgx.Tx, m envelope.Received[server]) error {
		_, err := tx.Exec(ctx, `insert into effect values ($1)`, m.Data.N)
		return err
	})
	var stateless tally
	c := declared(topology.StartFirst())
	b.publish(t, added, "server-1", 3)
	b.publish(t, removed, "server-1", 3)
	b.serve(t, c, effects, counting(removed, &stateless))
	b.settled(t)
	require.Equal(t, "4:1 5:1 6:1 ", stateless.String())

	reset, err := history.ResetDurable(t.Context(), b.js, here(), asked(2))
	require.NoError(t, err)
	require.Equal(t, 5, reset.Again)
	require.Zero(t, reset.Waiting)
	require.Equal(t, uint64(6), reset.Floor)
	require.Eventually(t, func() bool { return stateless.String() == "4:2 5:2 6:2 " }, 30*time.Second, 20*time.Millisecond)
	b.settled(t)
	require.Equal(t, uint64(5), b.info(t).Delivered.Consumer, "the server counts from the reset")
	var n, distinct int
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*), count(distinct n) from effect`).Scan(&n, &distinct))
	require.Equal(t, []int{3, 3}, []int{n, distinct})
	require.NoError(t, topology.Verify(t.Context(), b.js, set(c)), "nothing has drifted")
	require.Empty(t, slices.DeleteFunc(b.consumers(t), func(name string) bool { return name == durable }))
}

// What a handler has in hand while its durable is reset is handled and comes again;
// its late acknowledgement acknowledges nothing that was not delivered.
func TestAMessageInHandSurvivesAReset(t *testing.T) {
	t.Parallel()
	b := setup(t)
	added := eventType("added", 1)
	b.publish(t, added, "server-1", 6)
	var seen tally
	held, let := make(chan struct{}, 1), make(chan struct{})
	c := declared(topology.StartFirst())
	c.MaxAckPending = 1
	b.serve(t, c, consumer.On(added, func(_ context.Context, m envelope.Received[server]) error {
		if m.Data.N == 5 && seen.count(5) == 0 {
			held <- struct{}{}
			<-let
		}
		seen.add(m.Data.N)
		return nil
	}))
	<-held
	reset, err := history.ResetDurable(t.Context(), b.js, here(), asked(3))
	require.NoError(t, err)
	require.Equal(t, []int{3, 1}, []int{reset.Again, reset.Waiting})
	close(let)
	require.Eventually(t, func() bool { return seen.String() == "1:1 2:1 3:2 4:2 5:2 6:1 " }, 30*time.Second, 20*time.Millisecond, "%s", &seen)
	b.settled(t)
}

// served has a consumer handle n events, and counts them.
func served(t *testing.T, n int) (*bundle, *tally) {
	t.Helper()
	b := setup(t)
	added := eventType("added", 1)
	b.publish(t, added, "server-1", n)
	seen := &tally{}
	b.serve(t, declared(topology.StartFirst()), counting(added, seen))
	b.settled(t)
	return b, seen
}

func TestADryRunOfAResetChangesNothing(t *testing.T) {
	t.Parallel()
	b, seen := served(t, 4)
	before := b.info(t)
	r := asked(0)
	r.Since, r.DryRun = b.storedAt(t, 3), true
	plan, err := history.ResetDurable(t.Context(), b.js, here(), r)
	require.NoError(t, err)
	require.Equal(t, history.Reset{
		Durable: here(), From: 3, StoredAt: b.storedAt(t, 3), Again: 2, Floor: 4, By: r.By, Reason: r.Reason,
	}, plan)
	after := b.info(t)
	require.Equal(t, before.AckFloor.Stream, after.AckFloor.Stream)
	require.Equal(t, before.Config, after.Config)
	require.Equal(t, "1:1 2:1 3:1 4:1 ", seen.String())
}

// Who reset a durable and why is found with stock tools, the last ten times.
func TestAResetIsAudited(t *testing.T) {
	t.Parallel()
	b, _ := served(t, 2)
	for i := range 12 {
		r := asked(2)
		r.Reason = fmt.Sprintf("DV-%d", 400+i)
		_, err := history.ResetDurable(t.Context(), b.js, here(), r)
		require.NoError(t, err)
		b.settled(t)
	}
	var reasons []string
	metadata := b.info(t).Config.Metadata
	for name, value := range metadata {
		if !strings.HasPrefix(name, "dv.reset.") {
			continue
		}
		var note struct {
			By, Reason string
			From       uint64
		}
		require.NoError(t, json.Unmarshal([]byte(value), &note))
		require.Equal(t, "operator:ola", note.By)
		require.Equal(t, uint64(2), note.From)
		reasons = append(reasons, note.Reason)
	}
	slices.Sort(reasons)
	require.Len(t, reasons, 10)
	require.Equal(t, []string{"DV-402", "DV-411"}, []string{reasons[0], reasons[9]})
}

// changing calls do once, while a reset is planned.
type changing struct {
	jetstream.JetStream
	do func()
}

func (c *changing) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	s, err := c.JetStream.Stream(ctx, name)
	return &changingStream{s, c}, err
}

type changingStream struct {
	jetstream.Stream
	by *changing
}

func (s *changingStream) CreateConsumer(ctx context.Context, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	if do := s.by.do; do != nil {
		s.by.do = nil
		do()
	}
	return s.Stream.CreateConsumer(ctx, cfg)
}

// What the service's Ensure changes in the durable while a reset is planned is not
// written back by the note of the reset.
func TestTheNoteOfAResetKeepsWhatOthersChanged(t *testing.T) {
	t.Parallel()
	b, _ := served(t, 2)
	js := &changing{JetStream: b.js, do: func() {
		cfg := b.info(t).Config
		cfg.MaxAckPending = 7
		_, err := b.js.UpdateConsumer(t.Context(), source, cfg)
		require.NoError(t, err)
	}}
	_, err := history.ResetDurable(t.Context(), js, here(), asked(2))
	require.NoError(t, err)
	require.Nil(t, js.do)
	require.Equal(t, 7, b.info(t).Config.MaxAckPending)
}

// A reset that would leave out what is not handled, or go behind what the durable
// was declared for, is refused before anything is changed; the server has the last
// word on the latter and says the same.
func TestAResetIsRefusedWhereItWouldDoHarm(t *testing.T) {
	t.Parallel()
	b := setup(t)
	added := eventType("added", 1)
	b.publish(t, added, "server-1", 6)
	require.NoError(t, topology.Ensure(t.Context(), b.js, set(declared(topology.StartAtSequence(3)))))
	_, err := history.ResetDurable(t.Context(), b.js, here(), asked(4))
	require.ErrorIs(t, err, history.ErrNothing, "nothing was handled yet")

	c, err := b.js.Consumer(t.Context(), source, durable)
	require.NoError(t, err)
	batch, err := c.Fetch(3)
	require.NoError(t, err)
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		require.NoError(t, err)
		if meta.Sequence.Stream != 4 {
			require.NoError(t, m.DoubleAck(t.Context()))
		}
	}
	_, err = history.ResetDurable(t.Context(), b.js, here(), asked(5))
	skip, ok := errors.AsType[*history.SkipError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, uint64(3), skip.Floor, "message 4 is in somebody's hand")
	_, err = history.ResetDurable(t.Context(), b.js, here(), asked(6))
	require.ErrorIs(t, err, history.ErrNothing)
	_, err = history.ResetDurable(t.Context(), b.js, here(), asked(99))
	require.ErrorIs(t, err, history.ErrNothing)
	b.requireStartError(t, 2, "sequence 3")
	plan, err := history.ResetDurable(t.Context(), b.js, here(), asked(3))
	require.NoError(t, err, "up to the declared start")
	require.Equal(t, []int{3, 1}, []int{plan.Again, plan.Waiting})
	require.Equal(t, uint64(4), b.info(t).NumPending)
}

// requireStartError wants a reset refused, by us and by the server.
func (b *bundle) requireStartError(t *testing.T, from uint64, start string) {
	t.Helper()
	_, err := history.ResetDurable(t.Context(), b.js, here(), asked(from))
	refused, ok := errors.AsType[*history.StartError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, start, refused.Declared)
	_, err = b.js.ResetConsumerToSequence(t.Context(), source, durable, from)
	require.ErrorIs(t, err, jetstream.ErrConsumerInvalidReset)
}

func TestADurableGoesBackToItsDeclaredStartOnly(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*testing.T, *bundle) (start topology.Start, allowed uint64){
		"new": func(*testing.T, *bundle) (topology.Start, uint64) { return topology.StartNew(), 0 },
		"time": func(t *testing.T, b *bundle) (topology.Start, uint64) {
			return topology.StartAtTime(b.storedAt(t, 2)), 2
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			added := eventType("added", 1)
			b.publish(t, added, "server-1", 3)
			start, allowed := begin(t, b)
			var seen tally
			b.serve(t, declared(start), counting(added, &seen))
			b.publish(t, added, "server-1", 2)
			b.settled(t)
			b.requireStartError(t, 1, start.String())
			if allowed == 0 {
				b.requireStartError(t, 4, start.String()) // also what it has seen
				return
			}
			_, err := history.ResetDurable(t.Context(), b.js, here(), asked(allowed))
			require.NoError(t, err)
			require.Eventually(t, func() bool { return seen.String() == "2:2 3:2 4:2 5:2 " }, 30*time.Second, 20*time.Millisecond)
		})
	}
}

func TestAResetBeyondTheHorizonOfTheInboxIsSaidTwice(t *testing.T) {
	t.Parallel()
	b, _ := served(t, 2)
	r := asked(1)
	r.Horizon = 1
	plan, err := history.ResetDurable(t.Context(), b.js, here(), r)
	beyond, ok := errors.AsType[*history.HorizonError](err)
	require.True(t, ok, "%v", err)
	require.True(t, beyond.StoredAt.Equal(b.storedAt(t, 1)))
	require.True(t, plan.BeyondHorizon)
	require.Equal(t, 2, plan.Again, "what it would be is known all the same")
	r.BeyondHorizon = true
	plan, err = history.ResetDurable(t.Context(), b.js, here(), r)
	require.NoError(t, err)
	require.True(t, plan.BeyondHorizon)
}

func TestAResetAsksWhichFromWhereWhoAndWhy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := history.ResetDurable(t.Context(), b.js, history.Durable{Name: durable + "__replay"}, history.ResetRequest{Horizon: -1})
	for _, text := range []string{"Durable: is incomplete", "Durable.Name: is a replay durable's", "ResetRequest: needs one of", "ResetRequest.By", "ResetRequest.Reason", "ResetRequest.Horizon"} {
		require.ErrorContains(t, err, text)
	}
	both := asked(1)
	both.Since = time.Unix(1, 0)
	_, err = history.ResetDurable(t.Context(), b.js, here(), both)
	require.ErrorContains(t, err, "needs one of From and Since")
	_, err = history.ResetDurable(t.Context(), b.js, here(), asked(1))
	require.ErrorIs(t, err, history.ErrNoDurable)
	_, err = history.ResetDurable(t.Context(), b.js, history.Durable{Stream: "DV_NETT_EVT", Name: durable}, asked(1))
	require.ErrorIs(t, err, history.ErrNoStream)
	_, err = b.js.CreateConsumer(t.Context(), source, jetstream.ConsumerConfig{Name: "tool", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	_, err = history.ResetDurable(t.Context(), b.js, history.Durable{Stream: source, Name: "tool"}, asked(1))
	require.ErrorIs(t, err, history.ErrNoDurable)
}

// On a cluster the reset is agreed upon before it is answered.
func TestAReplicatedDurableIsReset(t *testing.T) {
	t.Parallel()
	conn := dvtest.Cluster(t).Connect(t)
	b := &bundle{js: conn.JetStream(), nc: conn.NATS()}
	c := declared(topology.StartFirst())
	c.Stream = topology.Events(c.Stream.Service, topology.Limits{Replicas: 3})
	require.NoError(t, topology.Ensure(t.Context(), b.js, topology.Set{Service: c.Stream.Service, Streams: []topology.Stream{c.Stream}}))
	added := eventType("added", 1)
	b.publish(t, added, "server-1", 4)
	var seen tally
	b.serve(t, c, counting(added, &seen))
	b.settled(t)
	_, err := history.ResetDurable(t.Context(), b.js, here(), asked(2))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return seen.String() == "1:1 2:2 3:2 4:2 " }, 30*time.Second, 20*time.Millisecond)
	b.settled(t)
}
