package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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

// A batch shares a transaction and nothing else: what is acknowledged, tried again
// or buried is each message by itself.
func TestConsumerSettlesEachMessageOfABatchByItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	js := dvtest.NATS(t).JetStream()
	small := topology.Limits{MaxBytes: 16 << 20}
	events := topology.Events(subject.Maskin, small)
	durable := topology.Consumer{
		Durable: "plattform__from_maskin", Stream: events, Filter: subject.EventsOf(subject.Maskin),
		AckWait: 30 * time.Second, MaxAckPending: 100, Start: topology.StartFirst(),
	}
	require.NoError(t, topology.Ensure(t.Context(), js, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}}))
	require.NoError(t, topology.Ensure(t.Context(), js, topology.Set{Service: subject.Plattform, Consumers: []topology.Consumer{durable},
		Streams: []topology.Stream{events, topology.DeadLetters(subject.Plattform, small), topology.DeadLetterOps(subject.Plattform, small)}}))
	letters, err := dlq.Open(t.Context(), js, subject.Plattform, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)

	const messages = 400 // of which 4 are poison, and 4 succeed at the second attempt
	ctx := envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:ola", "tenant-1"))
	for i := range messages {
		host := map[int]string{7: "poison", 8: "late"}[i%100]
		m, err := envelope.New(ctx, subject.Maskin, provisioned.New(fmt.Sprintf("srv-%d", i), serverV1{Hostname: host}))
		require.NoError(t, err)
		data, err := m.Envelope.Encode()
		require.NoError(t, err)
		_, err = js.PublishMsgAsync(&nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data})
		require.NoError(t, err)
	}
	<-js.PublishAsyncComplete()

	var largest atomic.Int64
	route := inbox.OnBatch(quiet(t, b), provisioned, inbox.Batch{}, func(ctx context.Context, tx pgx.Tx, all []received) error {
		largest.Store(max(largest.Load(), int64(len(all))))
		for _, m := range all {
			switch {
			case m.Data.Hostname == "poison":
				return envelope.Permanent(errors.New("no such rack"))
			case m.Data.Hostname == "late" && m.Attempt == 1:
				return envelope.RetryAfter(time.Millisecond, errors.New("not yet"))
			}
		}
		return applyAll(ctx, tx, all)
	})
	c, err := consumer.New(js, letters, consumer.Config{Consumer: durable, Logger: slog.New(slog.DiscardHandler)}, route)
	require.NoError(t, err)
	run, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(run) }()
	require.Eventually(t, func() bool {
		s := c.Stats()
		return s.Handled+s.DeadLetters == messages
	}, 30*time.Second, 5*time.Millisecond)
	stop()
	require.NoError(t, <-done)

	require.Equal(t, messages-4, b.effects(t))
	require.EqualValues(t, 4, c.Stats().DeadLetters)
	require.EqualValues(t, 4, c.Stats().Retried)
	require.Equal(t, 4, b.count(t, `select count(*) from messaging.inbox_messages where letter_id is not null`))
	for l, err := range letters.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		require.Equal(t, envelope.ClassPoison, l.Class)
		require.Equal(t, 1, l.Attempts)
	}
	require.Greater(t, largest.Load(), int64(10))
}
