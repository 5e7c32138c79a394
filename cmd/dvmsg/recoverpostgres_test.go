package main

import (
	"context"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// otherCluster is constant once it is started: a PostgreSQL cluster that no other
// test uses.
var otherCluster = sync.OnceValues(func() (*pgserver.Server, error) {
	return pgserver.Start(context.Background(), pgserver.Options{})
})

// inAnotherCluster is an empty database of the other cluster.
func inAnotherCluster(t *testing.T) *pgxpool.Pool {
	t.Helper()
	server, err := otherCluster()
	require.NoError(t, err)
	return newDatabase(t, server)
}

func newDatabase(t *testing.T, server *pgserver.Server) *pgxpool.Pool {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "create database plattform")
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))
	pool, err := pgxpool.New(t.Context(), server.URL("plattform"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// backup is a way to save a database: take makes the backup and returns what
// restores it, as an empty machine would.
type backup struct {
	database func(*testing.T) *pgxpool.Pool
	take     func(*testing.T, *party) (restore func())
}

// byDump saves with pg_dump and restores somewhere else.
func byDump(somewhere func(*testing.T) *pgxpool.Pool) backup {
	return backup{
		func(t *testing.T) *pgxpool.Pool { return dvtest.Postgres(t) },
		func(t *testing.T, p *party) func() {
			dump := filepath.Join(t.TempDir(), "dump")
			pgTool(t, p.pool, "pg_dump", "--format", "custom", "--file", dump)
			return func() {
				empty := somewhere(t)
				pgTool(t, empty, "pg_restore", "--no-owner", dump)
				p.use(t, empty)
			}
		},
	}
}

// byFiles copies the files of a server and puts them back: what a restore to a point
// in time ends with. Transaction ids and sequences are given out once more.
func byFiles(t *testing.T) backup {
	t.Helper()
	server, err := pgserver.Start(t.Context(), pgserver.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	shell := func(script string, args ...string) {
		out, err := exec.CommandContext(t.Context(), "sh", append([]string{"-euc", script, "sh"}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	return backup{
		func(t *testing.T) *pgxpool.Pool {
			pool := newDatabase(t, server)
			require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{}))
			return pool
		},
		func(t *testing.T, p *party) func() {
			var data string
			require.NoError(t, p.pool.QueryRow(t.Context(), "show data_directory").Scan(&data))
			kept := filepath.Join(t.TempDir(), "kept")
			offline := func(script string) {
				require.NoError(t, server.Kill9())
				shell(script, data, kept)
				require.NoError(t, server.Restart(t.Context()))
				p.pool.Reset()
			}
			p.stop()
			offline(`cp -a "$1" "$2"`)
			p.start(t)
			return func() { offline(`rm -rf "$1" && cp -a "$2" "$1"`) }
		},
	}
}

// pgTool runs a client program of the installed PostgreSQL on a database.
func pgTool(t *testing.T, pool *pgxpool.Pool, name string, args ...string) {
	t.Helper()
	binaries, err := pgserver.Find(t.Context())
	require.NoError(t, err)
	server, err := filepath.EvalSymlinks(filepath.Join(binaries.Dir, "postgres"))
	require.NoError(t, err)
	path := filepath.Join(filepath.Dir(server), name) // that of the server's version
	require.FileExists(t, path, "install the client programs of PostgreSQL beside the server")
	u, err := url.Parse(databaseURL(pool))
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), path, append([]string{"--dbname", u.String()}, args...)...).CombinedOutput()
	require.NoError(t, err, string(out))
}

// A service loses its database and gets it back from a dump that is older. The
// document is followed to the letter, and what comes back is what it says.
//
// A row of docs/DELIVERY.md.
func TestAServiceThatLostItsPostgresIsBroughtUpToDateByTheRunbook(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]func(*testing.T) backup{
		"a dump in another cluster": func(*testing.T) backup { return byDump(inAnotherCluster) },
		"a dump in the same cluster": func(*testing.T) backup {
			return byDump(func(t *testing.T) *pgxpool.Pool { return dvtest.EmptyPostgres(t) })
		},
		"its files": byFiles,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, broker, book := kind(t), dvtest.Server(t), readRunbook(t)
			conn := broker.Connect(t)
			maskin := newParty(t, conn, broker.URL(), maskinSet(), dvtest.Postgres(t))
			set := plattformSet()
			set.Streams = append(set.Streams, topology.Events(subject.Plattform, limits))
			plattform := newParty(t, conn, broker.URL(), set, b.database(t))
			plattform.bad.Store(is("bad"))
			maskin.start(t)
			plattform.start(t)
			v := variables{"SERVICE": "plattform", "FILE": plattform.file, "WHY": "restored from a backup, DV-501"}

			old := numbered("old-", 9)
			maskin.provision(t, slices.Concat([]string{"bad-old", "bad-open", "bad-edit"}, old)...)
			plattform.requireHosts(t, old)
			plattform.requireLetters(t, dlq.StateOpen, "bad-old", "bad-open", "bad-edit")
			plattform.requirePublished(t)
			v["BACKUP"] = time.Now().UTC().Add(-time.Second).Format(time.RFC3339Nano)
			restore := b.take(t, plattform)

			// What comes after the backup: handled messages, letters that are resolved,
			// one that is new, and requests.
			young := numbered("young-", 5)
			maskin.provision(t, append(slices.Clone(young), "bad-young")...)
			plattform.requireHosts(t, old, young)
			plattform.requireLetters(t, dlq.StateOpen, "bad-old", "bad-open", "bad-edit", "bad-young")
			plattform.bad.Store(is("bad-open", "bad-edit"))
			plattform.replay(t, "bad-old")
			plattform.replay(t, "bad-edit", "--data", "@"+writeFile(t, "edit.json", []byte(`{"hostname":"edited"}`)))
			plattform.requireHosts(t, old, young, []string{"bad-old", "edited"})
			plattform.say(t, registered.New("request-1", nodeV1{"request-1"}), registered.New("request-2", nodeV1{"request-2"}))
			plattform.requirePublished(t)
			require.Len(t, plattform.stored(t, "DV_PLATTFORM_EVT"), 18, "9 and 5 were handled, two were replayed, two were asked for")

			plattform.stop()
			restore()
			plattform.requireHosts(t, old)
			for _, step := range []string{"P3", "P4", "P5", "P6"} {
				book.requirePrinted(t, step, book.follow(t, step, plattform.environment, v))
			}
			plattform.requireOrphans(t, v, 7, 2)
			plattform.start(t)

			plattform.requireHosts(t, old, young, []string{"bad-old", "bad-young"})
			plattform.requireLetters(t, dlq.StateOpen, "bad-open", "bad-young", "bad-edit")
			plattform.requirePublished(t)
			plattform.requireIdle(t)
			plattform.requireHosts(t, old, young, []string{"bad-old", "bad-young"})
			plattform.requireSaid(t, old, young)

			// One of the letters has its effect by now: its replay finds that out.
			plattform.replay(t, "bad-young")
			plattform.requireLetters(t, dlq.StateResolved, "bad-old", "bad-young")
			plattform.requireHosts(t, old, young, []string{"bad-old", "bad-young"})
		})
	}
}

// replay replays the open letter about a host and waits until it is handled.
func (p *party) replay(t *testing.T, host string, flags ...string) {
	t.Helper()
	p.dvmsg(t, append([]string{"dlq", "replay", p.letters(t, dlq.StateOpen)[host], "--reason", "mended", "--wait"}, flags...)...).ok(t)
}

// requireOrphans checks how many of the orphans messages led to, and how many
// requests.
func (p *party) requireOrphans(t *testing.T, v variables, messages, requests int) {
	t.Helper()
	found := decode[outboxOrphansResult](t, p.dvmsg(t, "outbox", "orphans", "--service", "plattform", "--since", v["BACKUP"], "--json").ok(t))
	var byMessage, byRequest int
	for _, o := range found.Orphans.Orphans {
		require.Equal(t, "DV_PLATTFORM_EVT", o.Stream)
		if o.CausationID == "" {
			require.Contains(t, o.Resource, "request-")
			byRequest++
		} else {
			byMessage++
		}
	}
	require.Equal(t, []int{messages, requests}, []int{byMessage, byRequest})
}

// requireSaid checks what others see of the service: what was said before the backup
// once, what was said in a handler after it twice, by two ids of one cause, and
// requests once, of which the service knows nothing.
func (p *party) requireSaid(t *testing.T, old, young []string) {
	t.Helper()
	want := map[string]int{"bad-old": 2, "bad-young": 1, "edited": 1, "request-1": 1, "request-2": 1}
	for _, host := range old {
		want[host] = 1
	}
	for _, host := range young {
		want[host] = 2
	}
	var said map[string]int
	require.Eventually(t, func() bool {
		said = map[string]int{}
		ids, causes := map[string]bool{}, map[string]string{}
		for _, e := range p.stored(t, "DV_PLATTFORM_EVT") {
			require.False(t, ids[e.ID], "%s is stored twice", e.ID)
			ids[e.ID] = true
			host := hostOf(t, e)
			require.True(t, said[host] == 0 || causes[host] == e.CausationID)
			causes[host] = e.CausationID
			said[host]++
		}
		return len(said) == len(want) && said["bad-young"] == 1
	}, soon, tick)
	require.Equal(t, want, said)
}
