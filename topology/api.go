package topology

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/internal/sleep"
)

const (
	// callTimeout bounds one request. Answers take milliseconds; a request that
	// came while a cluster had no leader is never answered, and must be made
	// again soon after it has one.
	callTimeout = 2 * time.Second

	// denialDelay is when a request without an answer is looked for among the
	// permission violations: the server does not answer a denied request, but
	// reports it to the connection within milliseconds.
	denialDelay = 300 * time.Millisecond

	// patience bounds a whole operation whose context has no deadline, so that
	// a service that starts beside a broken cluster says so instead of hanging.
	patience = time.Minute
)

var errNoAnswer = errors.New("no answer within " + callTimeout.String())

// api asks one account's JetStream. It keeps no state of its own.
type api struct {
	js jetstream.JetStream
}

// bounded gives ctx a deadline if it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, patience, fmt.Errorf("gave up after %s, since the context has no deadline", patience))
}

// call runs one request to an endpoint of the JetStream API, named by what for
// the error, and repeats it while the answer is that the cluster is not ready,
// or none, until ctx ends. All requests of this package may be repeated: reads,
// creates (an identical one is accepted) and updates to an absolute state.
func (a api) call(ctx context.Context, what, endpoint string, fn func(context.Context) error) error {
	var last error
	for attempt := 1; ; attempt++ {
		err := a.once(ctx, endpoint, fn)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && last != nil:
			// What the server said before tells more than that time is up.
			return fmt.Errorf("%w: %w", last, context.Cause(ctx))
		}
		v, remedy := classify(err)
		if errors.Is(err, context.DeadlineExceeded) {
			remedy = silenceRemedy
		}
		if err = fmt.Errorf("topology: %s: %w", what, err); remedy != "" {
			err = fmt.Errorf("%w; %s", err, remedy)
		}
		if v != notYet {
			return err
		}
		last = err
		sleep.For(ctx, waits().Delay(attempt))
	}
}

// once runs fn with the timeout of one request. It tells apart that timeout,
// the end of ctx, and a request that was denied.
func (a api) once(ctx context.Context, endpoint string, fn func(context.Context) error) error {
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(callTimeout, func() { cancel(errNoAnswer) })
	defer timeout.Stop()
	look := time.AfterFunc(denialDelay, func() {
		if denied := a.denial(endpoint); denied != nil {
			cancel(denied)
		}
	})
	defer look.Stop()
	if err := fn(limited); err == nil || limited.Err() == nil {
		return err
	}
	return context.Cause(limited)
}

// denial returns the connection's last error if it is that this endpoint is
// not allowed.
func (a api) denial(endpoint string) error {
	err := a.js.Conn().LastError()
	if errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+a.prefix()+endpoint) {
		return fmt.Errorf("%w; give this user the right to publish there", err)
	}
	return nil
}

// prefix is that of the API's subjects, as the client computes it.
func (a api) prefix() string {
	opts := a.js.Options()
	switch {
	case opts.Domain != "":
		return "$JS." + opts.Domain + ".API."
	case opts.APIPrefix == "":
		return jetstream.DefaultAPIPrefix
	}
	return strings.TrimSuffix(opts.APIPrefix, ".") + "."
}

// waits is the pace at which a cluster is asked again.
func waits() backoff.Policy {
	return backoff.Policy{Initial: 50 * time.Millisecond, Max: time.Second}
}
