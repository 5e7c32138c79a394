package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/internal/natsserver"
)

// canary is a password that must never be seen.
const canary = "c4n4ry-p4ss"

func TestAnUnreachableDatabaseIsNamedWithTheFlagToSet(t *testing.T) {
	t.Parallel()
	address := closedPort(t)
	for _, args := range [][]string{{"migrate", "up"}, {"migrate", "verify"}, {"outbox", "status"}} {
		e := environment{envDatabase: "postgres://ola:" + canary + "@" + address + "/maskin"}
		r := e.dvmsg(t, args...).failed(t, exitFailure,
			"dvmsg "+strings.Join(args, " ")+": cannot reach PostgreSQL at "+address+" (database maskin, user ola): ",
			"connection refused", "start it, or correct --database or DVMSG_DATABASE_URL\n")
		require.NotContains(t, r.err, canary)
		require.Equal(t, 1, strings.Count(r.err, "\n"), r.err)
		require.Empty(t, r.out)
	}
}

func TestAnUnreachableBrokerIsNamedWithTheFlagToSet(t *testing.T) {
	t.Parallel()
	address := closedPort(t)
	set := writeSet(t, plattformSet())
	for _, args := range [][]string{
		{"dlq", "list"}, {"dlq", "show", "l1234"}, {"dlq", "replay", "l1234", "--by", "operator:ola", "--reason", "x"},
		{"topology", "diff", "--file", set}, {"topology", "verify", "--file", set}, {"topology", "apply", "--file", set},
	} {
		begin := time.Now()
		r := environment{}.dvmsg(t, append(args, "--nats", "nats://ola:"+canary+"@"+address)...).failed(t, exitFailure,
			": cannot reach NATS at nats://xxxxx@"+address, "start it, or correct --nats or DVMSG_NATS_URL, and --creds or DVMSG_NATS_CREDS\n")
		require.NotContains(t, r.err, canary)
		require.Empty(t, r.out)
		require.Less(t, time.Since(begin), defaultTimeout/2, "it does not wait for the server")
	}
}

func TestWrongCredentialsAreReportedWithoutThem(t *testing.T) {
	t.Parallel()
	broker, err := natsserver.Start(t.Context(), t.TempDir(), natsserver.Options{TCP: true, Configure: func(o *server.Options) {
		o.Username, o.Password = "ola", "right"
	}})
	require.NoError(t, err)
	t.Cleanup(broker.Stop)
	url := strings.Replace(broker.URL(), "nats://", "nats://ola:"+canary+"@", 1)
	r := environment{envNATS: url}.dvmsg(t, "dlq", "list").failed(t, exitFailure, "cannot reach NATS at nats://xxxxx@127.0.0.1", "uthorization")
	require.NotContains(t, r.err, canary)
}

// What cannot be taken apart cannot be cut safely, so nothing of it is repeated.
func TestNoFormOfAnAddressGivesItsPasswordAway(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"postgres://ola:%s@db:notaport/x", "postgres://ola:%s/x@127.0.0.1:1/x", "postgres://ola:%s?x@db/x", "postgres://ola:%s#@db/x",
		"postgres://ola:%%zz%s@db/x", "postgres://ola:%s@[::1/x", "host=db password=%s port=no", "password='%s", "postgres//ola:%s@db",
		"postgres://ola:%s@127.0.0.1:1/x?sslmode=odd", "postgres://127.0.0.1:1/x?password=%s&sslmode=odd", "postgres://ola@db/x?sslpassword=%s&sslkey=/no/such",
		"postgres://ola:%s@127.0.0.1:1/x?sslrootcert=/no/such/file", "postgres://127.0.0.1:1/x?password=%s&sslmode=disable",
	} {
		r := environment{envDatabase: fmt.Sprintf(url, canary)}.dvmsg(t, "outbox", "status", "--timeout", "5s")
		require.NotEqual(t, exitOK, r.code, url)
		require.Contains(t, r.err, "--database")
		require.NotContains(t, r.out+r.err, canary, url)
	}
	for _, url := range []string{
		"http://ola:%s@db", "nats://ola:%s@db:port", "nats://ola:%s/x@127.0.0.1:1", "nats://%s@127.0.0.1:1", "ola:%s@127.0.0.1:1",
		"nats://ola:%s?@127.0.0.1:1", "nats://127.0.0.1:1,nats://x:%s@127.0.0.1:1", "%s://127.0.0.1:1",
	} {
		r := environment{envNATS: fmt.Sprintf(url, canary)}.dvmsg(t, "dlq", "list", "--timeout", "5s")
		require.NotEqual(t, exitOK, r.code, url)
		require.Contains(t, r.err, "--nats")
		require.NotContains(t, r.out+r.err, canary, url)
	}
}

func TestAnUnusableAddressSaysWhyWhereThatIsSafe(t *testing.T) {
	t.Parallel()
	environment{envDatabase: "postgres://ola:" + canary + "@db/x?sslmode=odd"}.dvmsg(t, "outbox", "status").
		failed(t, exitUsage, "--database (DVMSG_DATABASE_URL) cannot be used: sslmode is invalid")
}

// A server behind a dead firewall takes the connection and says nothing.
func TestTimeoutEndsTheWaitForASilentServerAndIsNamed(t *testing.T) {
	t.Parallel()
	address := silentServer(t)
	e := environment{envNATS: "nats://" + address, envDatabase: "postgres://ola:" + canary + "@" + address + "/maskin?sslmode=disable"}
	begin := time.Now()
	for _, args := range [][]string{{"dlq", "list"}, {"migrate", "verify"}} {
		r := e.dvmsg(t, append(args, "--timeout", "100ms")...).failed(t, exitFailure, "cannot reach ", address,
			"not finished within 100ms; allow more with --timeout")
		require.NotContains(t, r.err, canary)
	}
	require.Less(t, time.Since(begin), connectTimeout)
}

func TestTimeoutEndsACommandThatIsConnected(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table messaging.schema_migrations in access exclusive mode")
	require.NoError(t, err)
	r := environment{envDatabase: databaseURL(pool)}.dvmsg(t, "migrate", "verify", "--timeout", "1s")
	require.NoError(t, tx.Rollback(t.Context()))
	r.failed(t, exitFailure, "not finished within 1s; allow more with --timeout")
}

func TestAnInterruptIsReportedAsOne(t *testing.T) {
	t.Parallel()
	var out, err strings.Builder
	e := environment{envNATS: dvtest.Server(t).URL()}
	require.Equal(t, exitFailure, run(expired(t), []string{"dlq", "list"}, strings.NewReader(""), &out, &err, e.get))
	require.Contains(t, err.String(), "dvmsg dlq list: interrupted")
}

// closedPort is an address that refuses connections.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// silentServer takes connections and never answers.
func silentServer(t testing.TB) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
	}()
	return l.Addr().String()
}
