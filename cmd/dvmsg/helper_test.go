package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/topology"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, natsserver.StillWaiting(
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))...)
}

// environment is what a test's dvmsg finds instead of the process's.
type environment map[string]string

func (e environment) get(name string) string { return e[name] }

// result is how a run ended.
type result struct {
	code     int
	out, err string
}

// dvmsg runs the command with args.
func (e environment) dvmsg(t testing.TB, args ...string) result {
	t.Helper()
	return e.piped(t, "", args...)
}

// piped runs the command with an input.
func (e environment) piped(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	var out, err bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &out, &err, e.get)
	return result{code, out.String(), err.String()}
}

// ok requires success and silence on the standard error output.
func (r result) ok(t testing.TB) result {
	t.Helper()
	require.Equal(t, exitOK, r.code, r.err)
	require.Empty(t, r.err)
	return r
}

// failed requires an exit code and the texts on the standard error output.
func (r result) failed(t testing.TB, code int, texts ...string) result {
	t.Helper()
	require.Equal(t, code, r.code, r.out+r.err)
	for _, text := range texts {
		require.Contains(t, r.err, text)
	}
	return r
}

// decode reads the output as exactly one JSON document without unknown fields.
func decode[T any](t testing.TB, r result) T {
	t.Helper()
	var v T
	dec := json.NewDecoder(strings.NewReader(r.out))
	dec.DisallowUnknownFields()
	require.NoError(t, dec.Decode(&v), r.out)
	_, err := dec.Token()
	require.ErrorIs(t, err, io.EOF)
	return v
}

// databaseURL is the address of a test database, in a form that stands in an
// environment. The password is one that must not be seen again.
func databaseURL(pool *pgxpool.Pool) string {
	c := pool.Config().ConnConfig
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(c.User, canary), Path: "/" + c.Database,
		RawQuery: url.Values{"host": {c.Host}, "port": {fmt.Sprint(c.Port)}, "sslmode": {"disable"}}.Encode(),
	}
	if c.Password != "" {
		u.User = url.UserPassword(c.User, c.Password)
	}
	return u.String()
}

// writeFile writes a file of the test's own.
func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// writeSet writes a contract file.
func writeSet(t testing.TB, set topology.Set) string {
	t.Helper()
	data, err := json.Marshal(set)
	require.NoError(t, err)
	return writeFile(t, "topology.json", data)
}

// The parts of an output that differ between runs.
var volatile = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`\((in )?[0-9dhms]+( ago)?\)`), "(AGE)"},
	{regexp.MustCompile(`(l[0-9a-f]{9,40}  )[0-9dhms]+`), "${1}AGE"},
	// Columns are as wide as what stands in them.
	{regexp.MustCompile(`(\S) {2,}`), "$1  "},
	{regexp.MustCompile(` +\n`), "\n"},
}

// masked replaces times and ages.
func masked(text string) string {
	for _, v := range volatile {
		text = v.pattern.ReplaceAllString(text, v.instead)
	}
	return text
}

// requireGolden compares an output with testdata/<file>.
func requireGolden(t testing.TB, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// silent is an app for tests of parts.
func silent() *app {
	return &app{
		stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard,
		env: environment{}.get, now: func() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) },
	}
}

// expired is a context that has ended.
func expired(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
