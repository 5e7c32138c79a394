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

// MigrationError says that the inbox's tables are not there, or not as this
// version needs them. It is retried like any other error, so that a service which
// starts before its migration recovers by itself.
type MigrationError struct {
	// Consumer is the inbox that met it; "" for the Janitor and operators.
	Consumer string
	// Err is PostgreSQL's answer.
	Err error
}

// Error names the remedy.
func (e *MigrationError) Error() string {
	who := ""
	if e.Consumer != "" {
		who = "consumer " + e.Consumer + ": "
	}
	return fmt.Sprintf("inbox: %sthe inbox's tables are missing or of another version; run migrate.Up, or dvmsg migrate up: %v", who, e.Err)
}

// Unwrap returns PostgreSQL's answer.
func (e *MigrationError) Unwrap() error { return e.Err }

// SQLSTATEs: of a schema, table or column that is not there, and of a lock that
// was waited for too long.
const (
	undefinedTable   = "42P01"
	undefinedColumn  = "42703"
	invalidSchema    = "3F000"
	lockNotAvailable = "55P03"
)

// code is the SQLSTATE of PostgreSQL's answer, "" if err is none.
func code(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// unmigrated tells whether the tables are not there, or of another version.
func unmigrated(err error) bool {
	switch code(err) {
	case undefinedTable, undefinedColumn, invalidSchema:
		return true
	}
	return false
}

// explain gives an error of the inbox's own statements a text that helps.
func (in *Inbox) explain(doing string, err error) error {
	if unmigrated(err) {
		return &MigrationError{Consumer: in.consumer, Err: err}
	}
	return fmt.Errorf("inbox: consumer %s: %s: %w", in.consumer, doing, err)
}

// explain is (*Inbox).explain for the Janitor and operators, who are told what was
// done elsewhere.
func explain(err error) error {
	if unmigrated(err) {
		return &MigrationError{Err: err}
	}
	return err
}
