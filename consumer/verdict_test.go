package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
)

// judgement is one row of the contract between handlers and the consumer.
type judgement struct {
	name        string
	err         error
	attempt     int
	interrupted bool
	action      string
	class       string
}

func TestTheErrorIsTheVerdict(t *testing.T) {
	t.Parallel()
	malformed := fmt.Errorf("data: %w", envelope.ErrMalformed)
	for _, row := range []judgement{
		{name: "success", attempt: 1, action: "ack"},
		{name: "success at the last attempt", attempt: 20, action: "ack"},
		{name: "success beyond it", attempt: 99, action: "ack"},
		{name: "success although interrupted", attempt: 1, interrupted: true, action: "ack"},
		{name: "processed", err: fmt.Errorf("x: %w", envelope.ErrAlreadyProcessed), attempt: 1, action: "ack duplicate"},
		{name: "processed although interrupted", err: envelope.ErrAlreadyProcessed, attempt: 1, interrupted: true, action: "ack duplicate"},
		{name: "processed, and something else failed", err: errors.Join(envelope.ErrAlreadyProcessed, errBroken), attempt: 1, action: "retry"},
		{name: "processed, wrapped beside a failure", err: fmt.Errorf("%w, %w", envelope.ErrAlreadyProcessed, errBroken), attempt: 1, action: "retry"},
		{name: "error", err: errBroken, attempt: 1, action: "retry"},
		{name: "error before the last attempt", err: errBroken, attempt: 19, action: "retry"},
		{name: "error at the last attempt", err: errBroken, attempt: 20, action: "bury", class: "exhausted"},
		{name: "permanent", err: envelope.Permanent(errBroken), attempt: 1, action: "bury", class: "poison"},
		{name: "permanent at the last attempt", err: envelope.Permanent(errBroken), attempt: 20, action: "bury", class: "poison"},
		{name: "undecodable data", err: envelope.Permanent(malformed), attempt: 1, action: "bury", class: "decode"},
		{name: "malformed without the mark", err: malformed, attempt: 1, action: "retry"},
		{name: "permanent wins over a delay", err: envelope.Permanent(envelope.RetryAfter(time.Second, errBroken)), attempt: 1, action: "bury", class: "poison"},
		{name: "delay at the last attempt", err: envelope.RetryAfter(time.Second, errBroken), attempt: 20, action: "bury", class: "exhausted"},
		{name: "timeout of the handler", err: context.DeadlineExceeded, attempt: 1, action: "retry"},
		{name: "cancelled by itself", err: context.Canceled, attempt: 1, action: "retry"},
		{name: "interrupted", err: context.Canceled, attempt: 1, interrupted: true, action: "release"},
		{name: "interrupted at the last attempt", err: context.Canceled, attempt: 20, interrupted: true, action: "release"},
		{name: "permanent because interrupted", err: envelope.Permanent(context.Canceled), attempt: 1, interrupted: true, action: "release"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			action, class, _ := consumer.Judge(20, row.err, row.attempt, row.interrupted)
			require.Equal(t, row.action, action)
			require.Equal(t, row.class, class)
		})
	}
}

func TestDelays(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		err       error
		attempt   int
		low, high time.Duration
	}{
		{errBroken, 1, 800 * time.Millisecond, time.Second}, // jitter of 20 %
		{errBroken, 3, 3200 * time.Millisecond, 4 * time.Second},
		{errBroken, 15, 24 * time.Second, 30 * time.Second},
		{envelope.RetryAfter(42*time.Second, errBroken), 1, 42 * time.Second, 42 * time.Second},
		{fmt.Errorf("wrapped: %w", envelope.RetryAfter(time.Minute, nil)), 1, time.Minute, time.Minute},
		{envelope.RetryAfter(0, errBroken), 1, 0, 0},
		{envelope.RetryAfter(24*time.Hour, errBroken), 1, consumer.MaxRetryAfter, consumer.MaxRetryAfter},
		{&envelope.RetryAfterError{After: -time.Second}, 1, 0, 0},
	} {
		action, _, delay := consumer.Judge(20, row.err, row.attempt, false)
		require.Equal(t, "retry", action)
		require.GreaterOrEqual(t, delay, row.low, "%v", row)
		require.LessOrEqual(t, delay, row.high, "%v", row)
	}
}

func TestProtectTurnsAPanicIntoAnError(t *testing.T) {
	t.Parallel()
	err := consumer.Protect(func() error { panic("no such host") })
	p, ok := errors.AsType[*consumer.PanicError](err)
	require.True(t, ok)
	require.Equal(t, "no such host", p.Value)
	require.Contains(t, p.Location, "TestProtectTurnsAPanicIntoAnError")
	require.Contains(t, string(p.Stack), "verdict_test.go")
	require.LessOrEqual(t, len(p.Stack), 4096)
	require.NotContains(t, err.Error(), "goroutine", "dead letters are grouped by the text")
}

// A nil map, an index, a type assertion: panics of the runtime itself have more
// frames between the handler and the recovery.
func TestPanicOfTheRuntimeIsLocated(t *testing.T) {
	t.Parallel()
	var m map[string]int
	err := consumer.Protect(func() error { m["x"] = 1; return nil })
	p, ok := errors.AsType[*consumer.PanicError](err)
	require.True(t, ok)
	require.Contains(t, p.Location, "TestPanicOfTheRuntimeIsLocated")
}

// typedNil is an error that panics when it is nil, as most error types do.
type typedNil struct{ text string }

func (e *typedNil) Error() string { return e.text }

// unwrapsNil can be printed, but not unwrapped.
type unwrapsNil struct{ cause error }

func (*unwrapsNil) Error() string   { return "fine" }
func (e *unwrapsNil) Unwrap() error { return e.cause }

func TestProtectReplacesAnErrorThatPanicsWhenItIsRead(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"*consumer_test.typedNil":   (*typedNil)(nil),
		"*consumer_test.unwrapsNil": (*unwrapsNil)(nil),
		"*errors.joinError":         errors.Join(errBroken, (*typedNil)(nil)),
	} {
		got := consumer.Protect(func() error { return err })
		require.ErrorContains(t, got, want)
		require.False(t, envelope.IsPermanent(got))

		got = consumer.Protect(func() error { return envelope.Permanent(err) })
		require.ErrorContains(t, got, want)
		require.True(t, envelope.IsPermanent(got))
	}
	require.Same(t, errBroken, consumer.Protect(func() error { return errBroken }))
}
