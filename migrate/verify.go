package migrate

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Verify checks that the database is at exactly the version that the library
// needs, and changes nothing. An older or newer one is a [*VersionError] whose
// text says what to do, a changed history a [*ChecksumError].
func Verify(ctx context.Context, pool *pgxpool.Pool, cfg Config) error {
	p, err := newPlan(cfg)
	if err != nil {
		return err
	}
	return p.verify(ctx, pool)
}

func (p plan) verify(ctx context.Context, db querier) error {
	history, err := p.history(ctx, db)
	if err != nil {
		return fmt.Errorf("migrate: verify schema %q: %w", p.schema, err)
	}
	if err := p.check(history); err != nil {
		return err
	}
	if len(history) < p.latest() {
		return p.versionError(history)
	}
	return nil
}
