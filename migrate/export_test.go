package migrate

import (
	"context"
	"io/fs"

	"github.com/jackc/pgx/v5/pgxpool"
)

// ParseName is fuzzed.
var ParseName = parseName

// Load reads a folder and returns the names and checksums in order.
func Load(fsys fs.FS, dir string) (names, checksums []string, err error) {
	migrations, err := load(fsys, dir)
	for _, m := range migrations {
		names, checksums = append(names, m.String()), append(checksums, m.checksum)
	}
	return names, checksums, err
}

// UpFrom is Up with the migrations of another folder: what an older, a newer or
// a broken version of the library would do.
func UpFrom(ctx context.Context, pool *pgxpool.Pool, cfg Config, fsys fs.FS) error {
	p, err := planFrom(cfg, fsys)
	if err != nil {
		return err
	}
	return p.up(ctx, pool)
}

// VerifyFrom is Verify with the migrations of another folder.
func VerifyFrom(ctx context.Context, pool *pgxpool.Pool, cfg Config, fsys fs.FS) error {
	p, err := planFrom(cfg, fsys)
	if err != nil {
		return err
	}
	return p.verify(ctx, pool)
}

func planFrom(cfg Config, fsys fs.FS) (plan, error) {
	p, err := newPlan(cfg)
	if err != nil {
		return plan{}, err
	}
	p.migrations, err = load(fsys, ".")
	return p, err
}
