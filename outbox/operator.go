package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/internal/pgschema"
)

// tally bounds how many rows are counted for an operator, who waits for it.
const tally = 100_000

// arg is a text that an operator has to give.
type arg struct{ name, value string }

// hint says what is to be given.
func (a arg) hint() string {
	switch a.name {
	case "by":
		return "say who decides, such as operator:ola"
	case "reason":
		return "say why: it is the audit trail"
	}
	return "say which is meant"
}

// operatorArgs checks the arguments of what an operator asks for and returns the
// quoted schema. It reports every fault at once.
func operatorArgs(act, schema string, args ...arg) (quoted string, err error) {
	quoted, err = pgschema.Quote(schema)
	var faults []error
	if err != nil {
		faults = append(faults, fmt.Errorf("outbox: %s: schema: %w", act, err))
	}
	for _, a := range args {
		if strings.TrimSpace(a.value) == "" {
			faults = append(faults, fmt.Errorf("outbox: %s: %s is empty; %s", act, a.name, a.hint()))
		}
	}
	return quoted, errors.Join(faults...)
}

// inSchema completes an operator's statement.
func inSchema(quoted, sql string) string { return strings.ReplaceAll(sql, "{{schema}}", quoted) }

// decide runs what an operator decides in one transaction. Its commit is
// synchronous whatever the role's default is: a crash that took a discard back
// after the relay acted on it would leave the followers before their head.
func decide(ctx context.Context, pool *pgxpool.Pool, do func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'")
		if err != nil {
			return err
		}
		return do(tx)
	})
}

// pinSearch is pinPlan for statements that also look rows up elsewhere: each row
// by itself, so that a search for the first one ends with it.
const pinSearch = pinPlan + `,
       set_config('enable_mergejoin', 'off', true), set_config('enable_hashjoin', 'off', true)`
