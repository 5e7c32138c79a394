package task

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

var (
	// ErrCancelRequested is the cause of a handler's ctx that ended because somebody
	// asked to cancel its task: context.Cause(ctx) is a [*CancelError], which matches
	// it.
	ErrCancelRequested = errors.New("task: cancellation was requested")
	// ErrNotFound: the projection has no task of that id.
	ErrNotFound = errors.New("task: no such task")
	// ErrNotMigrated: the tables are not there, or of another version. Run migrate.Up,
	// or dvmsg migrate up.
	ErrNotMigrated = errors.New("task: the tables are missing or of another version; run migrate.Up, or dvmsg migrate up")
)

// CancelError says who asked to cancel the task that a handler works on.
type CancelError struct {
	// Task is the task's id.
	Task string
	// Cancel is who and why.
	Cancel CancelV1
}

// Error names the task, who and why.
func (e *CancelError) Error() string {
	return fmt.Sprintf("task: %s asked to cancel task %s: %s", e.Cancel.By, e.Task, e.Cancel.Reason)
}

// Is makes it match ErrCancelRequested.
func (e *CancelError) Is(target error) bool { return target == ErrCancelRequested }

// Coded gives a handler's error a code that programs can act on: it is the code of
// the task's failure, at most 64 bytes. Text and verdict stay those of err.
// Coded(code, nil) is nil.
func Coded(code string, err error) error {
	if err == nil {
		return nil
	}
	return &codedError{code, err}
}

type codedError struct {
	code string
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// failureOf describes a handler's error.
func failureOf(err error) *FailureV1 {
	f := &FailureV1{Text: oneLine(err.Error(), maxError)}
	if coded, ok := errors.AsType[*codedError](err); ok {
		f.Code = oneLine(coded.code, maxCode)
	}
	return f
}

// parseID reads a task's id: the id of a message, so a UUID in its usual form.
func parseID(id string) (pgtype.UUID, error) {
	var u pgtype.UUID
	const usual = 36
	if len(id) != usual || u.Scan(id) != nil {
		return u, fmt.Errorf("%.80q is no task id, which is the command's: a UUID in its usual form", id)
	}
	return u, nil
}

// explain gives the errors of our own statements a text that helps.
func explain(doing string, err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "42P01", "42703", "3F000": // undefined table, undefined column, no schema
			return fmt.Errorf("%w: %w", ErrNotMigrated, err)
		}
	}
	return fmt.Errorf("task: %s: %w", doing, err)
}
