package dvtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// create makes a database for one test, as a copy of the template or empty, and
// returns its name.
func (f *factory) create(ctx context.Context, migrated bool) (string, error) {
	name := newName()
	statement := "create database " + name
	if migrated {
		statement += " template " + f.template + f.strategy
	}
	err := f.maintain(ctx, func(conn *pgx.Conn) error { return exec(ctx, conn, statement) })
	if err != nil {
		return "", fmt.Errorf("dvtest: create database: %w", err)
	}
	return name, nil
}

// drop removes a database together with the connections that a test left open.
func (f *factory) drop(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := f.maintain(ctx, func(conn *pgx.Conn) error {
		return exec(ctx, conn, "drop database if exists "+name+" with (force)")
	})
	if err != nil {
		return fmt.Errorf("dvtest: drop database %s: %w", name, err)
	}
	return nil
}

// open returns a pool on a database. The server shows test, the name of the test,
// for its connections.
func (f *factory) open(ctx context.Context, name, test string) (*pgxpool.Pool, error) {
	config := f.config.Copy()
	config.ConnConfig.Database = name
	config.ConnConfig.RuntimeParams["application_name"] = printable(test)
	config.MaxConns = maxConns
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("dvtest: open database %s: %w", name, err)
	}
	return pool, nil
}

// maintain runs do on a connection to the maintenance database.
func (f *factory) maintain(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := f.take(ctx)
	if err != nil {
		return err
	}
	err = do(conn)
	f.put(ctx, conn)
	return err
}

// take returns an idle connection or opens one: as many as tests ask at once.
func (f *factory) take(ctx context.Context) (*pgx.Conn, error) {
	f.mu.Lock()
	if last := len(f.idle) - 1; last >= 0 {
		conn := f.idle[last]
		f.idle = f.idle[:last]
		f.mu.Unlock()
		return conn, nil
	}
	f.mu.Unlock()
	return pgx.ConnectConfig(ctx, f.config.ConnConfig.Copy())
}

// put keeps a connection for the next one, unless an error has closed it.
func (f *factory) put(ctx context.Context, conn *pgx.Conn) {
	// When a write took long, on a loaded machine, the driver reads in the background
	// until the next answer. Nobody may find that goroutine.
	if conn.IsClosed() || conn.PgConn().SyncConn(ctx) != nil {
		_ = conn.Close(ctx) // the next one opens another
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = append(f.idle, conn)
}

// exec runs statements one by one: database commands refuse to run in a
// transaction, which several in one text would be.
func exec(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// newName is a name that no other test has and that tells its age.
func newName() string {
	return testPrefix + strconv.FormatInt(time.Now().Unix(), 16) + "_" + strings.ToLower(rand.Text()[:12])
}

// createdAt reads the age back from a name.
func createdAt(name string) (time.Time, bool) {
	stamp, _, found := strings.Cut(strings.TrimPrefix(name, testPrefix), "_")
	seconds, err := strconv.ParseInt(stamp, 16, 64)
	return time.Unix(seconds, 0), found && err == nil
}

// printable replaces what PostgreSQL would show as a question mark. It keeps the
// first 63 bytes of a name by itself.
func printable(test string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '_'
		}
		return r
	}, test)
}
