package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// stuckStore says that a message is due, and answers no claim until it is free.
type stuckStore struct {
	*inbox.Inbox
	asked, free chan struct{}
}

func (stuckStore) SurveyParked(context.Context, string, int, bool) (int, time.Duration, error) {
	return 1, 0, nil
}

func (s stuckStore) ClaimParked(context.Context, string, int, time.Duration, bool) ([]*envelope.Parked, error) {
	s.asked <- struct{}{}
	<-s.free
	return nil, nil
}

// Giving parked messages back takes as many timeouts of the database as there are
// messages. The orchestrator does not wait for that.
func TestShutdownDoesNotWaitForAStoreThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	b, pool := setup(t), dvtest.Postgres(t)
	store := stuckStore{newInbox(t, pool), make(chan struct{}, 1), make(chan struct{})}
	defer close(store.free)
	r := start(t, b.new(t, b.config(func(c *consumer.Config) { c.Store, c.DrainTimeout = store, time.Millisecond }), handle(ignore)))
	<-store.asked
	r.cancel()
	select {
	case err := <-r.done:
		require.NoError(t, err)
		r.done <- nil // for stop
	case <-time.After(soon):
		require.Fail(t, "Run does not end")
	}
}
