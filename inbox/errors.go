package inbox

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrDeadUnderOtherLetter: a replay names a letter, but the message is dead under
// another one, for example because two durables share the inbox. Nothing was
// done. The error names the letter to replay instead; it is permanent and does
// not match envelope.ErrAlreadyProcessed, so that the replay fails visibly.
var ErrDeadUnderOtherLetter = errors.New("is dead under another letter")

// MigrationError says that the inbox's table is not there, or not as this
// version needs it. It is retried like any other error, so that a service which
// starts before its migration recovers by itself.
type MigrationError struct {
	// Consumer is the inbox that met it.
	Consumer string
	// Err is PostgreSQL's answer.
	Err error
}

// Error names the remedy.
func (e *MigrationError) Error() string {
	return fmt.Sprintf("inbox: consumer %s: the table inbox_messages is missing or of another version; run migrate.Up, or dvmsg migrate up: %v", e.Consumer, e.Err)
}

// Unwrap returns PostgreSQL's answer.
func (e *MigrationError) Unwrap() error { return e.Err }

// The SQLSTATEs of a schema, table or column that is not there.
const (
	undefinedTable  = "42P01"
	undefinedColumn = "42703"
	invalidSchema   = "3F000"
)

// explain gives an error of the inbox's own statements a text that helps.
func (in *Inbox) explain(doing string, err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case undefinedTable, undefinedColumn, invalidSchema:
			return &MigrationError{Consumer: in.consumer, Err: err}
		}
	}
	return fmt.Errorf("inbox: consumer %s: %s: %w", in.consumer, doing, err)
}
