package consumer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/topology"
)

// book is a log that can be read while it is written.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) lines(containing string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.text.String()) {
		if strings.Contains(line, containing) {
			found = append(found, line)
		}
	}
	return found
}

func (b *book) config() func(*consumer.Config) {
	return func(c *consumer.Config) {
		c.Logger = slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
}

// A secret in the data must not reach the log, whatever becomes of the message.
func TestDataIsNeverLogged(t *testing.T) {
	t.Parallel()
	const secret = "canary-9f3c"
	b, log := setup(t), &book{}
	outcomes := map[int]error{1: errBroken, 2: envelope.RetryAfter(1, errBroken), 3: envelope.Permanent(errBroken)}
	b.run(t, b.config(log.config()), handle(func(_ context.Context, m received) error {
		if m.Attempt == 3 && m.Sequence == 2 {
			panic("boom")
		}
		return outcomes[m.Attempt]
	}))
	b.publish(t, secret, secret)
	wrong := message(t, secret)
	env, err := envelope.Decode(wrong.Data)
	require.NoError(t, err)
	env.Data = []byte(`{"hostname":["` + secret + `"]}`)
	wrong.Data, err = env.Encode()
	require.NoError(t, err)
	b.send(t, wrong)
	for _, data := range []string{secret, `{"id":"` + secret + `"`, `{"` + secret + `":1}`} {
		broken := message(t, "x")
		broken.Data = []byte(data)
		b.send(t, broken)
	}
	tenant := message(t, secret)
	tenant.Header.Set("tenant-id", "other")
	b.send(t, tenant)
	b.settled(t)
	require.NotEmpty(t, log.lines("consumer: dead letter"))
	require.Empty(t, log.lines(secret))
}

func TestFailuresAreLoggedWithIdentityAndBoundedText(t *testing.T) {
	t.Parallel()
	b, log := setup(t), &book{}
	b.run(t, b.config(log.config()), handle(func(_ context.Context, m received) error {
		if m.Attempt == 1 {
			return errors.New("head " + strings.Repeat("x", 2000) + " tail")
		}
		return envelope.Permanent(errBroken)
	}))
	sent := message(t, "a")
	b.send(t, sent)
	b.settled(t)
	failed, dead := log.lines("attempt failed"), log.lines("dead letter")
	require.Len(t, failed, 1)
	require.Len(t, dead, 1)
	for _, line := range []string{failed[0], dead[0]} {
		require.Contains(t, line, "id="+sent.Header.Get("Nats-Msg-Id"))
		require.Contains(t, line, "correlation_id="+sent.Header.Get("X-Correlation-Id"))
		require.Contains(t, line, "type=maskin.server.provisioned")
		require.Contains(t, line, "durable=plattform__from_maskin")
	}
	require.Contains(t, failed[0], "attempt=1")
	require.Contains(t, failed[0], "head")
	require.NotContains(t, failed[0], "tail")
	require.Less(t, len(failed[0]), 1100)
	require.Contains(t, dead[0], "letter="+letterID)
	require.Contains(t, dead[0], "attempt=2")
	require.Contains(t, dead[0], "class=poison")
}

// Ten refused messages and many attempts are one change of state.
func TestOneLinePerChangeOfState(t *testing.T) {
	t.Parallel()
	b, log := setup(t), &book{}
	b.graves.set(errors.New("stream is full"), nil)
	r := b.run(t, b.config(log.config(), func(c *consumer.Config) { c.MassFailure = -1 }), poison(&tally{}))
	for i := range 10 {
		b.publish(t, fmt.Sprintf("bad%d", i))
	}
	require.Eventually(t, func() bool { return b.graves.attempts() >= 12 }, soon, tick)
	b.graves.set(nil, nil)
	b.settled(t)
	awaitReady(t, r)
	require.Len(t, log.lines("a dead letter cannot be stored or resolved"), 1)
	require.Len(t, log.lines("no message waits for the dead-letter store any more"), 1)
}

// A heartbeat settles nothing, so one that fails is not worth a line: Ready says
// that the connection is lost.
func TestFailedHeartbeatIsNotLoggedAsUnsettled(t *testing.T) {
	t.Parallel()
	server := dvtest.Server(t)
	nc, err := nats.Connect(server.URL(), nats.ReconnectBufSize(-1)) // what is sent while disconnected fails
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	b, log := setupOn(t, js, func(c *topology.Consumer) { c.AckWait = 60 * time.Millisecond }), &book{}
	started, release := make(chan struct{}, 1), make(chan struct{})
	b.run(t, b.config(log.config()), handle(func(context.Context, received) error {
		select {
		case started <- struct{}{}:
		default:
		}
		<-release
		return nil
	}))
	b.publish(t, "a")
	<-started
	server.Stop()
	require.Eventually(t, func() bool { return !nc.IsConnected() }, soon, tick)
	<-time.After(300 * time.Millisecond) // many heartbeats
	require.Empty(t, log.lines("was not settled"))
	close(release)
	require.Eventually(t, func() bool { return len(log.lines("was not settled")) == 1 }, soon, tick, "the ack")
}
