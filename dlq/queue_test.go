package dlq_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestOpenNamesEveryMissingStream(t *testing.T) {
	t.Parallel()
	js := dvtest.NATS(t).JetStream()
	_, err := dlq.Open(t.Context(), js, service, dlq.Config{})
	require.ErrorIs(t, err, dlq.ErrNoStream)
	require.ErrorContains(t, err, "DV_PLATTFORM_DLQ: declare it with topology.DeadLetters")
	require.ErrorContains(t, err, "DV_PLATTFORM_DLQOPS: declare it with topology.DeadLetterOps")

	_, err = js.CreateStream(t.Context(), topology.DeadLetters(service, topology.Limits{}).Config())
	require.NoError(t, err)
	_, err = dlq.Open(t.Context(), js, service, dlq.Config{})
	require.ErrorIs(t, err, dlq.ErrNoStream)
	require.NotContains(t, err.Error(), "topology.DeadLetters ")
}

// A read from a replica that lags could show a claimed letter as open.
func TestOpenRefusesStaleReads(t *testing.T) {
	t.Parallel()
	js := dvtest.NATS(t).JetStream()
	createStreams(t, js, topology.Limits{})
	direct := topology.DeadLetterOps(service, topology.Limits{}).Config()
	direct.AllowDirect = true
	_, err := js.UpdateStream(t.Context(), direct)
	require.NoError(t, err)
	_, err = dlq.Open(t.Context(), js, service, dlq.Config{})
	require.ErrorContains(t, err, "DV_PLATTFORM_DLQOPS allows direct reads")
}

// Letters that nobody resolved must not expire silently (requirement Q4): the
// declared streams keep everything, and others are not worked with.
//
// A row of docs/DELIVERY.md.
func TestNothingUnresolvedIsEverRemovedByTheServer(t *testing.T) {
	t.Parallel()
	declared := []topology.Stream{
		topology.DeadLetters(service, topology.Limits{}), topology.DeadLetterOps(service, topology.Limits{}),
	}
	for _, s := range declared {
		c := s.Config()
		require.Zero(t, c.MaxAge, s.Name)
		require.Equal(t, jetstream.DiscardNew, c.Discard, s.Name)
		require.Equal(t, jetstream.LimitsPolicy, c.Retention, s.Name)
		require.Equal(t, int64(-1), c.MaxMsgsPerSubject, s.Name)
		aged := topology.Set{Service: service, Streams: slices.Clone(declared)}
		for i := range aged.Streams {
			aged.Streams[i].MaxAge = time.Hour
		}
		require.ErrorContains(t, aged.Validate(), "MaxAge")
	}
	js := dvtest.NATS(t).JetStream()
	createStreams(t, js, topology.Limits{})
	for _, s := range declared {
		for want, change := range map[string]func(*jetstream.StreamConfig){
			"removes what is older than 1h0m0s": func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
			"removes old messages for new ones": func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		} {
			changed := s.Config()
			change(&changed)
			_, err := js.UpdateStream(t.Context(), changed)
			require.NoError(t, err)
			_, err = dlq.Open(t.Context(), js, service, dlq.Config{})
			require.ErrorContains(t, err, s.Name+" "+want)
			_, err = js.UpdateStream(t.Context(), s.Config())
			require.NoError(t, err)
		}
	}
}

func TestOpenReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := dlq.Open(t.Context(), nil, subject.Service(0), dlq.Config{Timeout: -1, ClaimLease: -time.Second})
	for _, part := range []string{"js", "service", "Config.Timeout", "Config.ClaimLease"} {
		require.ErrorContains(t, err, part)
	}
	_, ok := errors.AsType[*dlq.FieldError](err)
	require.True(t, ok)
}

func TestUnansweredRequestsEndWithTheirTimeout(t *testing.T) {
	t.Parallel()
	server := dvtest.Server(t)
	conn := server.Connect(t)
	b := &bundle{js: conn.JetStream(), nc: conn.NATS()}
	createStreams(t, b.js, topology.Limits{})
	b.queue = b.open(t, dlq.Config{Timeout: 2 * time.Second})
	server.Stop()
	_, err := b.queue.DeadLetter(t.Context(), failed(t))
	require.Error(t, err)
	require.NotErrorIs(t, err, dlq.ErrFull)
	_, err = collect(t.Context(), b.queue, dlq.Filter{})
	require.Error(t, err)
}
