package dvtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"codeberg.org/dataverket/messaging/internal/pgschema"
)

// DefaultWait is how long the assertions about what happens in the background
// wait before they fail; see [Within]. Nothing that works takes so long.
const DefaultWait = 10 * time.Second

// Pauses between two looks. They grow, so that a fact of milliseconds is seen at
// once and one of seconds costs few queries.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = 100 * time.Millisecond
)

// lookGrace is what a look that began in time may still take: a slow answer of
// the server is not to be reported as a missing fact.
const lookGrace = 5 * time.Second

// Patience is how long an assertion waits for its fact; see [Within].
type Patience struct{ limit time.Duration }

// Within bounds the time that an assertion waits for its fact. Zero or less looks
// once. Default [DefaultWait].
func Within(d time.Duration) Patience { return Patience{d} }

// Place is the schema that an assertion looks into; see [InSchema].
type Place struct{ schema string }

// InSchema names the PostgreSQL schema that holds the library's tables. Default
// "messaging".
func InSchema(schema string) Place { return Place{schema} }

// quoted returns the schema as SQL, or fails the test.
func (p Place) quoted(tb testing.TB) string {
	tb.Helper()
	schema, err := pgschema.Quote(p.schema)
	if err != nil {
		tb.Fatalf("dvtest: InSchema: %v", err)
	}
	return schema
}

// String returns the schema's name, for messages.
func (p Place) String() string {
	if p.schema == "" {
		return pgschema.Default
	}
	return p.schema
}

// await looks until look says done or the time is up, and reports whether it did.
// The last look begins when the time is up and not before, so that what happened
// during a pause counts.
func (p Patience) await(tb testing.TB, look func(context.Context) (done bool)) bool {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), max(p.limit, 0)+lookGrace)
	defer cancel()
	end := time.Now().Add(p.limit)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		last := !time.Now().Before(end)
		if look(ctx) {
			return true
		}
		if last || ctx.Err() != nil {
			return false
		}
		select {
		case <-time.After(min(pause, max(time.Until(end), 0))):
		case <-ctx.Done():
			return false
		}
	}
}

// The SQLSTATEs of a schema, table or column that is not there, and of a
// transaction in which a statement failed before.
const (
	undefinedTable     = "42P01"
	undefinedColumn    = "42703"
	invalidSchema      = "3F000"
	abortedTransaction = "25P02"
)

// lacksTables reports whether waiting cannot help: the tables are not there.
func lacksTables(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == undefinedTable || pg.Code == undefinedColumn || pg.Code == invalidSchema)
}

// explain gives an error of an assertion's own query the remedy.
func (p Place) explain(err error) error {
	if lacksTables(err) {
		return fmt.Errorf("the library's tables are not in schema %q; use dvtest.Postgres, run migrate.Up on the pool, or pass dvtest.InSchema: %w", p, err)
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == abortedTransaction {
		return fmt.Errorf("an earlier statement of this transaction failed, and nothing can be read through it any more; check the error of Enqueue: %w", err)
	}
	return err
}
