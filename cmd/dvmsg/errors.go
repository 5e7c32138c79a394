package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// usageError says that flags or arguments are wrong. Nothing was contacted.
type usageError struct {
	faults []string
	help   string // the command that explains
}

func (e *usageError) Error() string { return strings.Join(e.faults, "\n") }

// foundError says that a command which looks for differences found some. They
// are part of its output; the text is the summary.
type foundError struct{ summary string }

func (e *foundError) Error() string { return e.summary }

// timeoutError is the cause of a context that --timeout ended. It is a deadline
// error for whoever asks.
type timeoutError struct{ after time.Duration }

func (e *timeoutError) Error() string {
	return fmt.Sprintf("not finished within %s; allow more with --timeout", e.after)
}

func (e *timeoutError) Unwrap() error { return context.DeadlineExceeded }

// explainEnd adds why ctx ended to an error that only says that it did.
func explainEnd(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) {
		cause = errors.New("interrupted")
	}
	if strings.Contains(err.Error(), cause.Error()) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// report prints err and returns its exit code.
func (a *app) report(who string, err error) int {
	if err == nil {
		return exitOK
	}
	if usage, ok := errors.AsType[*usageError](err); ok {
		texts := usage.faults
		if n := len(texts); n > 1 {
			texts = append([]string{fmt.Sprintf("%d faults:", n)}, texts...)
		}
		a.complain(who, texts)
		fmt.Fprintf(a.stderr, "Run %q for help.\n", usage.help)
		return exitUsage
	}
	a.complain(who, strings.Split(err.Error(), "\n"))
	if _, ok := errors.AsType[*foundError](err); ok {
		return exitFound
	}
	return exitFailure
}

// complain prints one line for each text, the first behind who complains.
func (a *app) complain(who string, texts []string) {
	for i, text := range texts {
		lead := who + ": "
		if i > 0 {
			lead = "  "
		}
		fmt.Fprintf(a.stderr, "%s%s\n", lead, clean(text))
	}
}

// leaves returns the errors that errors.Join put into err, however deep. An
// error that wraps several and says more than they do stays whole.
func leaves(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || err.Error() != errors.Join(joined.Unwrap()...).Error() {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, leaves(e)...)
	}
	return all
}
