package dvtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
)

const (
	// envDatabase names a server to use instead of one of our own.
	envDatabase = "DVMSG_DATABASE_URL"
	// testPrefix and templatePrefix begin the names of what we create.
	testPrefix     = "dvmsg_test_"
	templatePrefix = "dvmsg_template_"
	// leftover is the age from which a test database has no owner any more.
	leftover = 24 * time.Hour
)

// factory makes databases on one server. It holds no goroutine, so that leak
// checks of the test binaries see none.
type factory struct {
	config   *pgxpool.Config // of the maintenance database
	template string
	strategy string // how a template is copied; empty for the server's default

	mu   sync.Mutex
	idle []*pgx.Conn // connections to the maintenance database
}

// shared is the factory of this test binary: one server for all tests, started
// by the first that needs it. It stays until the process ends.
var shared = sync.OnceValues(newFactory)

// newFactory finds or starts the server and sees to the template.
func newFactory() (*factory, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	url, strategy, err := server(ctx)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("dvtest: read %s: %w", envDatabase, err)
	}
	f := &factory{config: config, strategy: strategy}
	if err := f.prepare(ctx); err != nil {
		return nil, fmt.Errorf("dvtest: prepare template database: %w", err)
	}
	return f, nil
}

// server returns the address of the server to use and how to copy on it.
func server(ctx context.Context) (url, strategy string, err error) {
	if url := os.Getenv(envDatabase); url != "" {
		return url, "", nil
	}
	own, err := pgserver.Start(ctx, pgserver.Options{CachedInit: true})
	if err != nil {
		return "", "", err
	}
	if own.Major() >= 15 {
		// Copying files instead of writing the copy to the log: 15 instead of
		// 25 ms. It begins with a checkpoint, which costs nothing on a server
		// that does not force to disk, and much on another.
		strategy = " strategy file_copy"
	}
	return own.URL("postgres"), strategy, nil
}

// prepare makes the template unless an earlier run did, and removes what killed
// tests left on a server that outlives them.
func (f *factory) prepare(ctx context.Context) error {
	script, err := migrate.Export(migrate.Config{})
	if err != nil {
		return err
	}
	// Other migrations need another template, also with two checkouts at once,
	// and so does another role, which would not own the tables in this one.
	sum := sha256.Sum256([]byte(f.config.ConnConfig.User + "\x00" + script))
	f.template = templatePrefix + hex.EncodeToString(sum[:6])
	return f.maintain(ctx, func(conn *pgx.Conn) error {
		// One test binary at a time; the lock goes with the connection.
		if _, err := conn.Exec(ctx, `select pg_advisory_lock(hashtextextended($1, 0))`, templatePrefix); err != nil {
			return err
		}
		err := errors.Join(f.makeTemplate(ctx, conn), dropLeftovers(ctx, conn))
		_, unlockErr := conn.Exec(ctx, `select pg_advisory_unlock(hashtextextended($1, 0))`, templatePrefix)
		return errors.Join(err, unlockErr)
	})
}

// makeTemplate creates and migrates the template. That it is marked as one is the
// last step, so an unmarked one was left unfinished.
func (f *factory) makeTemplate(ctx context.Context, conn *pgx.Conn) error {
	var finished bool
	err := conn.QueryRow(ctx, `select exists (select from pg_database where datname = $1 and datistemplate)`, f.template).Scan(&finished)
	if err != nil || finished {
		return err
	}
	if err := exec(ctx, conn, "drop database if exists "+f.template+" with (force)", "create database "+f.template); err != nil {
		return err
	}
	pool, err := f.open(ctx, f.template, "dvtest")
	if err != nil {
		return err
	}
	err = migrate.Up(ctx, pool, migrate.Config{})
	pool.Close()
	if err != nil {
		return err
	}
	// Nobody may connect: a template that is in use cannot be copied.
	return exec(ctx, conn, "alter database "+f.template+" with is_template true allow_connections false")
}

// dropLeftovers removes the test databases of this role whose name says that they
// are old.
func dropLeftovers(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `select datname from pg_database
		where starts_with(datname, $1) and datdba = current_user::regrole`, testPrefix)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		if created, ok := createdAt(name); ok && time.Since(created) > leftover {
			if err := exec(ctx, conn, "drop database if exists "+pgx.Identifier{name}.Sanitize()+" with (force)"); err != nil {
				return err
			}
		}
	}
	return nil
}
