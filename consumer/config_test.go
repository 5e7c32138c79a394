package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func ignore(context.Context, received) error { return nil }

func validConfig() consumer.Config {
	return consumer.Config{Consumer: topology.Consumer{
		Durable: "plattform__from_maskin", Stream: topology.Events(subject.Maskin, topology.Limits{}),
	}}
}

func TestNewReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := consumer.New(nil, nil, consumer.Config{Concurrency: 51, MaxAttempts: -1, RetryInitial: time.Hour, RetryMax: time.Hour,
		HandlerTimeout: -1, DrainTimeout: time.Hour}, envelope.Route{}, handle(nil))
	for _, field := range []string{
		"js: is nil", "dead: is nil", "Config.Consumer.Durable", "Config.Consumer.Stream", "Config.Concurrency",
		"Config.MaxAttempts", "Config.RetryMax", "Config.HandlerTimeout", "Config.DrainTimeout",
		"routes[0]", "routes[1] (maskin.server.provisioned v1): has no handler",
	} {
		require.ErrorContains(t, err, field)
	}
}

func TestEachBoundRefusesItsNeighbour(t *testing.T) {
	t.Parallel()
	js := dvtest.NATS(t).JetStream()
	for name, row := range map[string]struct{ good, bad func(*consumer.Config) }{
		"concurrency above max ack pending": {
			func(c *consumer.Config) { c.Concurrency = 50 }, func(c *consumer.Config) { c.Concurrency = 51 }},
		"concurrency above a declared max ack pending": {
			func(c *consumer.Config) { c.Consumer.MaxAckPending, c.Concurrency = 1, 1 },
			func(c *consumer.Config) { c.Consumer.MaxAckPending, c.Concurrency = 1, 2 }},
		"concurrency above the memory bound": {
			func(c *consumer.Config) { c.Consumer.MaxAckPending, c.Concurrency = 5000, 1000 },
			func(c *consumer.Config) { c.Consumer.MaxAckPending, c.Concurrency = 5000, 1001 }},
		"negative concurrency": {
			func(c *consumer.Config) { c.Concurrency = 1 }, func(c *consumer.Config) { c.Concurrency = -1 }},
		"too many attempts": {
			func(c *consumer.Config) { c.MaxAttempts = 1000 }, func(c *consumer.Config) { c.MaxAttempts = 1001 }},
		"first delay above the last": {
			func(c *consumer.Config) { c.RetryInitial, c.RetryMax = time.Second, time.Second },
			func(c *consumer.Config) { c.RetryInitial, c.RetryMax = 2*time.Second, time.Second }},
		"delay that holds a place too long": {
			func(c *consumer.Config) { c.RetryMax = 10 * time.Minute }, func(c *consumer.Config) { c.RetryMax = 11 * time.Minute }},
		"handler without end": {
			func(c *consumer.Config) { c.HandlerTimeout = 24 * time.Hour }, func(c *consumer.Config) { c.HandlerTimeout = 25 * time.Hour }},
		"drain without end": {
			func(c *consumer.Config) { c.DrainTimeout = 10 * time.Minute }, func(c *consumer.Config) { c.DrainTimeout = 11 * time.Minute }},
		"dead letters": {
			func(c *consumer.Config) {
				c.Consumer.Stream = topology.TaskEvents(subject.Plattform, topology.Limits{})
			},
			func(c *consumer.Config) {
				c.Consumer.Stream = topology.DeadLetters(subject.Plattform, topology.Limits{})
			}},
		"durable of nobody": {
			func(c *consumer.Config) { c.Consumer.Durable = "plattform__commands" }, func(c *consumer.Config) { c.Consumer.Durable = "nobody__commands" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good, bad := validConfig(), validConfig()
			row.good(&good)
			row.bad(&bad)
			_, err := consumer.New(js, &graves{}, good, handle(ignore))
			require.NoError(t, err)
			_, err = consumer.New(js, &graves{}, bad, handle(ignore))
			require.Error(t, err)
		})
	}
}

func TestDefaultsAreTheHandbooks(t *testing.T) {
	t.Parallel()
	cfg := consumer.Effective(validConfig())
	require.Equal(t, 120*time.Second, cfg.Consumer.AckWait)
	require.Equal(t, 50, cfg.Consumer.MaxAckPending)
	require.Equal(t, 50, cfg.Concurrency)
	require.Equal(t, 20, cfg.MaxAttempts)
	require.Equal(t, 30*time.Second, cfg.RetryMax)
	require.Equal(t, 5*time.Minute, cfg.HandlerTimeout)
	require.Equal(t, 20*time.Second, cfg.DrainTimeout)
}

func TestAMessageHasOneHandler(t *testing.T) {
	t.Parallel()
	js := dvtest.NATS(t).JetStream()
	_, err := consumer.New(js, &graves{}, validConfig(), handle(ignore), handle(ignore))
	require.ErrorContains(t, err, "routed twice")
	_, err = consumer.New(js, &graves{}, validConfig())
	require.ErrorContains(t, err, "none given")
}

func TestReadySaysNotRunningBeforeRun(t *testing.T) {
	t.Parallel()
	c, err := consumer.New(dvtest.NATS(t).JetStream(), &graves{}, validConfig(), handle(ignore))
	require.NoError(t, err)
	require.ErrorIs(t, c.Ready(), consumer.ErrNotRunning)
	require.Zero(t, c.Stats())
}
