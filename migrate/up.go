package migrate

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Up applies the migrations that the database lacks; it creates the schema where
// that is missing too. It returns at once when there is nothing to do, and waits
// for another Up on the same schema; ctx bounds that waiting and the migrations.
// The pool stays the caller's.
//
// A database that is newer than the library is a [*VersionError], one whose
// history differs a [*ChecksumError], and then nothing is changed.
func Up(ctx context.Context, pool *pgxpool.Pool, cfg Config) error {
	p, err := newPlan(cfg)
	if err != nil {
		return err
	}
	return p.up(ctx, pool)
}

func (p plan) up(ctx context.Context, pool *pgxpool.Pool) error {
	// Looked at without the lock first, so that the everyday start of a service
	// needs no right to create anything and waits for nobody.
	history, err := p.history(ctx, pool)
	if err != nil {
		return fmt.Errorf("migrate: up schema %q: %w", p.schema, err)
	}
	done, err := len(history) == p.latest(), p.check(history)
	for !done && err == nil {
		done, err = p.step(ctx, pool)
	}
	return err
}

// transaction is constant. It overrides what a role may have as its default: a
// repeatable read would look at the history as it was before the lock was waited
// for.
var transaction = pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}

// step applies the next migration, if one is missing, in a transaction of its
// own, and says whether it was the last.
func (p plan) step(ctx context.Context, pool *pgxpool.Pool) (done bool, err error) {
	err = pgx.BeginTxFunc(ctx, pool, transaction, func(tx pgx.Tx) error {
		if err := run(ctx, tx, p.fill(guardText+historyText)); err != nil {
			return fmt.Errorf("migrate: up schema %q: prepare: %w", p.schema, err)
		}
		history, err := p.history(ctx, tx)
		if err != nil {
			return fmt.Errorf("migrate: up schema %q: %w", p.schema, err)
		}
		// Checked again: while we waited for the lock, a newer library may have
		// gone further than we know.
		if err := p.check(history); err != nil {
			return err
		}
		if done = len(history) == p.latest(); done {
			return nil
		}
		next := p.migrations[len(history)]
		if err := run(ctx, tx, p.applyText(next)); err != nil {
			return fmt.Errorf("migrate: up schema %q: apply %s: %w", p.schema, next, err)
		}
		done = next.version == p.latest()
		return nil
	})
	return done, err
}

// run executes a text of several statements, which the simple protocol alone
// takes in one go.
func run(ctx context.Context, tx pgx.Tx, text string) error {
	_, err := tx.Conn().PgConn().Exec(ctx, text).ReadAll()
	return err
}
