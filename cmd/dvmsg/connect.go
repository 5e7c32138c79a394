package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/natsconn"
)

// The environment variables that stand in for flags.
const (
	envDatabase = "DVMSG_DATABASE_URL"
	envNATS     = "DVMSG_NATS_URL"
	envCreds    = "DVMSG_NATS_CREDS"
	envOperator = "DVMSG_OPERATOR"
)

// connectTimeout bounds one attempt to connect, so that a host that does not
// answer is reported long before --timeout. There is no second attempt: whoever
// waits for a server does so outside.
const connectTimeout = 5 * time.Second

// connection holds the flags that say where PostgreSQL and NATS are.
type connection struct {
	database, nats, creds string
	pool                  *pgxpool.Config
}

// check fills in the environment and adds what is missing or unreadable. There
// are no default servers: acting on the wrong platform is worse than a question.
func (n *connection) check(c *call) {
	if c.command.needs&needsDatabase != 0 {
		n.database = cmp.Or(n.database, c.env(envDatabase))
		n.checkDatabase(c)
	}
	if c.command.needs&needsNATS == 0 {
		return
	}
	n.nats, n.creds = cmp.Or(n.nats, c.env(envNATS)), cmp.Or(n.creds, c.env(envCreds))
	if n.nats == "" {
		c.fault("--nats is missing: give the NATS servers as --nats nats://host:4222 or in %s", envNATS)
	}
	if n.creds != "" {
		if err := readable(n.creds); err != nil {
			c.fault("--creds (%s): %v", envCreds, err)
		}
	}
}

func (n *connection) checkDatabase(c *call) {
	if n.database == "" {
		c.fault("--database is missing: give the service's PostgreSQL as --database postgres://user@host:5432/name or in %s", envDatabase)
		return
	}
	config, err := pgxpool.ParseConfig(n.database)
	if err != nil {
		c.fault("--database (%s) cannot be used%s; write postgres://user@host:5432/name, and percent-encode reserved characters of a password",
			envDatabase, safeCause(n.database, err))
		return
	}
	config.MaxConns = 2 // one works, one for whoever asks meanwhile
	config.ConnConfig.ConnectTimeout = connectTimeout
	config.ConnConfig.RuntimeParams["application_name"] = "dvmsg"
	n.pool = config
}

// safeCause returns why the URL was refused, and "" where the reason might quote
// a password: a text that cannot be taken apart cannot be cut safely either.
func safeCause(raw string, err error) string {
	u, parseErr := url.Parse(raw)
	inner := errors.Unwrap(err)
	if parseErr != nil || u.Host == "" || inner == nil || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
		return ""
	}
	if password, ok := u.User.Password(); ok && password != "" && strings.Contains(inner.Error(), password) {
		return ""
	}
	return ": " + inner.Error()
}

func readable(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	return f.Close()
}

// openDatabase connects to PostgreSQL or says what could not be reached.
func (c *call) openDatabase(ctx context.Context) (*pgxpool.Pool, error) {
	pool, err := pgxpool.NewWithConfig(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, unreachableDatabase(c.pool, err)
	}
	return pool, nil
}

// withDatabase connects to PostgreSQL and calls do.
func (c *call) withDatabase(ctx context.Context, do func(*pgxpool.Pool) error) error {
	pool, err := c.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	return do(pool)
}

// unreachableDatabase names the server by its parts, never by the URL.
func unreachableDatabase(config *pgxpool.Config, err error) error {
	if connect, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = errors.Unwrap(connect)
	}
	to := config.ConnConfig
	// Each attempt is reported on a line of its own, with TLS and without mostly
	// for the same reason.
	attempts := slices.Compact(strings.FieldsFunc(err.Error(), isBreak))
	return fmt.Errorf("cannot reach PostgreSQL at %s (database %s, user %s): %s; start it, or correct --database or %s",
		net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))), to.Database, to.User, strings.Join(attempts, "; "), envDatabase)
}

func isBreak(r rune) bool { return r == '\n' || r == '\t' }

// openNATS connects to NATS or says what could not be reached. The caller calls
// the returned function when it is done.
func (c *call) openNATS(ctx context.Context) (*natsconn.Conn, func(), error) {
	conn, err := natsconn.Dial(ctx, natsconn.Config{
		URL: c.nats, CredentialsFile: c.creds, Name: "dvmsg",
		FailFast: true, ConnectTimeout: connectTimeout,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, nil, unreachableNATS(err)
	}
	// Everything was answered by then; nothing is left to be drained, and the
	// context may have ended.
	return conn, func() { _ = conn.Drain(context.WithoutCancel(ctx)) }, nil
}

func unreachableNATS(err error) error {
	down, ok := errors.AsType[*natsconn.NotReadyError](err)
	if !ok {
		// A fault of the configuration, which names fields instead of flags.
		text := strings.ReplaceAll(err.Error(), "natsconn: Config.URL:", "--nats ("+envNATS+"):")
		return &usageError{faults: strings.Split(text, "\n"), help: "dvmsg help"}
	}
	cause := ""
	if down.Err != nil {
		cause = ": " + down.Err.Error()
	}
	return fmt.Errorf("cannot reach NATS at %s%s; start it, or correct --nats or %s, and --creds or %s",
		down.URL, cause, envNATS, envCreds)
}
