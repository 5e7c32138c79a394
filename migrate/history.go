package migrate

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// applied is one row of schema_migrations.
type applied struct {
	Version  int
	Checksum string
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// history reads what was applied, in order; nothing where the table is missing.
func (p plan) history(ctx context.Context, db querier) ([]applied, error) {
	// Asked of the catalog, which needs no right on the schema, instead of
	// waiting for an error, which would end a transaction around it.
	rows, err := db.Query(ctx, `select exists (select from pg_catalog.pg_class c
		join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		where n.nspname = $1 and c.relname = 'schema_migrations')`, p.schema)
	if err != nil {
		return nil, fmt.Errorf("look for schema_migrations: %w", err)
	}
	exists, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	if err != nil || !exists {
		return nil, wrap("look for schema_migrations", err)
	}
	rows, err = db.Query(ctx, p.fill(`select version, checksum from {{schema}}.schema_migrations order by version`))
	if err != nil {
		return nil, fmt.Errorf("read schema_migrations: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[applied])
	return found, wrap("read schema_migrations", err)
}

// check compares what was applied with what the library holds. A shorter history
// is no fault here: Up mends it.
func (p plan) check(history []applied) error {
	var faults []error
	for i, have := range history {
		if have.Version != i+1 {
			return fmt.Errorf("migrate: verify schema %q: schema_migrations holds version %d where %d is due: "+
				"somebody removed a row; compare the tables with \"dvmsg migrate export\" and put it back", p.schema, have.Version, i+1)
		}
		if i >= p.latest() {
			break
		}
		if want := p.migrations[i]; have.Checksum != want.checksum {
			faults = append(faults, &ChecksumError{Schema: p.schema, Version: want.version, Name: want.name, Have: have.Checksum, Want: want.checksum})
		}
	}
	if len(history) > p.latest() {
		faults = append(faults, p.versionError(history))
	}
	return errors.Join(faults...)
}

func (p plan) versionError(history []applied) *VersionError {
	return &VersionError{Schema: p.schema, Have: len(history), Want: p.latest()}
}

// wrap adds what was being done to an error, if there is one.
func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
