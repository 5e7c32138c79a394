package natsconn

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Do runs one exchange with the broker, such as a JetStream API call, with
// Config.RequestTimeout as its limit and behind the circuit breaker, if that is
// on. fn must end when its context does; Do runs it in the caller's goroutine.
//
// The result is fn's error. Where it is a timeout and the server has refused a
// subject meanwhile, that refusal is joined to it, because a refused publish
// looks like a timeout to its caller: errors.Is then finds
// nats.ErrPermissionViolation. The refusal may belong to another call of the
// same moment. While the breaker is open, fn is not called and the error is a
// *BreakerOpenError.
func (c *Conn) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	leave, err := c.breaker.enter()
	if err != nil {
		return err
	}
	// A panic of fn passes through, but must not keep the breaker's only probe.
	result := unclear
	defer func() { leave(result, err) }()

	denials := c.state.denialsSoFar()
	limited, cancel := context.WithTimeout(ctx, c.requestTimeout)
	defer cancel()
	err = fn(limited)
	result = judge(ctx, err)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("natsconn: no answer within %s (Config.RequestTimeout): %w", c.requestTimeout, err)
	}
	if isTimeout(err) {
		if denied := c.state.deniedSince(denials); denied != nil {
			err = fmt.Errorf("%w; %w", err, denied)
		}
	}
	return err
}

// outcome is what a call tells about the broker.
type outcome int

const (
	unclear    outcome = iota // nothing: given up by the caller, or fn's own error
	answered                  // it is there, whatever it said
	unanswered                // it is not, or cannot do its work
)

// judge reads an outcome from a call's error. An error that is no answer and no
// sign of a missing broker, such as one of fn's own, tells nothing.
func judge(caller context.Context, err error) outcome {
	if err == nil {
		return answered
	}
	if errors.Is(caller.Err(), context.Canceled) {
		return unclear
	}
	if api, ok := errors.AsType[jetstream.JetStreamError](err); ok && api.APIError() != nil {
		return judgeCode(api.APIError().Code)
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return judgeCode(api.Code)
	}
	if isTimeout(err) {
		return unanswered
	}
	for _, sign := range unansweredSigns() {
		if errors.Is(err, sign) {
			return unanswered
		}
	}
	return unclear
}

// judgeCode: 503 is JetStream without a leader, without quorum or switched off;
// any other code is an answer by a broker that works.
func judgeCode(code int) outcome {
	if code == 503 {
		return unanswered
	}
	return answered
}

// unansweredSigns are the client's errors for a broker that is not there.
func unansweredSigns() []error {
	return []error{
		nats.ErrNoResponders,
		nats.ErrNoServers,
		nats.ErrDisconnected,
		nats.ErrReconnectBufExceeded,
		nats.ErrConnectionClosed,
		nats.ErrConnectionReconnecting,
		nats.ErrStaleConnection,
		jetstream.ErrNoStreamResponse,
		jetstream.ErrAsyncPublishTimeout,
	}
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
}
