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
	admin, err := pgx.Connect(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "create database restored")
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))
	pool, err := pgxpool.New(t.Context(), server.URL("restored"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
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
	for name, restored := range map[string]func(*testing.T) *pgxpool.Pool{
		"in another cluster":  inAnotherCluster,
		"in the same cluster": func(t *testing.T) *pgxpool.Pool { return dvtest.EmptyPostgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker, book := dvtest.Server(t), readRunbook(t)
			conn := broker.Connect(t)
			maskin := newParty(t, conn, broker.URL(), maskinSet(), dvtest.Postgres(t))
			set := plattformSet()
			set.Streams = append(set.Streams, topology.Events(subject.Plattform, limits))
			plattform := newParty(t, conn, broker.URL(), set, dvtest.Postgres(t))
			plattform.bad.Store(is("bad"))
			maskin.start(t)
			plattform.start(t)
			v := variables{"SERVICE": "plattform", "FILE": plattform.file, "WHY": "restored from a backup, DV-501"}

			old := numbered("old-", 9)
			maskin.provision(t, slices.Concat([]string{"bad-old", "bad-open"}, old)...)
			plattform.requireHosts(t, old)
			plattform.requireLetters(t, dlq.StateOpen, "bad-old", "bad-open")
			plattform.requirePublished(t)
			v["BACKUP"] = time.Now().UTC().Add(-time.Second).Format(time.RFC3339Nano)
			dump := filepath.Join(t.TempDir(), "dump")
			pgTool(t, plattform.pool, "pg_dump", "--format", "custom", "--file", dump)

			// What comes after the backup: handled messages, a letter that is resolved,
			// one that is new, and requests.
			young := numbered("young-", 5)
			maskin.provision(t, append(slices.Clone(young), "bad-young")...)
			plattform.requireHosts(t, old, young)
			plattform.requireLetters(t, dlq.StateOpen, "bad-old", "bad-open", "bad-young")
			plattform.bad.Store(is("bad-open"))
			replay := []string{"dlq", "replay", plattform.letters(t, dlq.StateOpen)["bad-old"], "--reason", "mended", "--wait"}
			plattform.dvmsg(t, replay...).ok(t)
			plattform.requireHosts(t, old, young, []string{"bad-old"})
			plattform.say(t, registered.New("request-1", nodeV1{"request-1"}), registered.New("request-2", nodeV1{"request-2"}))
			plattform.requirePublished(t)
			said := len(plattform.stored(t, "DV_PLATTFORM_EVT"))
			require.Equal(t, 17, said, "9 and 5 were handled, one was replayed, two were asked for")

			plattform.stop()
			empty := restored(t)
			pgTool(t, empty, "pg_restore", "--no-owner", dump)
			plattform.use(t, empty)
			plattform.requireHosts(t, old)
			for _, step := range []string{"P3", "P4", "P5", "P6"} {
				book.requirePrinted(t, step, book.follow(t, step, plattform.environment, v))
			}
			plattform.requireOrphans(t, v, 6, 2)
			plattform.start(t)

			plattform.requireHosts(t, old, young, []string{"bad-old", "bad-young"})
			plattform.requirePublished(t)
			plattform.requireIdle(t)
			plattform.requireHosts(t, old, young, []string{"bad-old", "bad-young"})
			plattform.requireSaid(t, old, young)

			// The letters: one says what is so, one has its effect by now, one is as bad as before.
			plattform.requireLetters(t, dlq.StateOpen, "bad-open", "bad-young")
			replay[2] = plattform.letters(t, dlq.StateOpen)["bad-young"]
			plattform.dvmsg(t, replay...).ok(t)
			plattform.requireLetters(t, dlq.StateResolved, "bad-old", "bad-young")
			plattform.requireHosts(t, old, young, []string{"bad-old", "bad-young"})
		})
	}
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
	want := map[string]int{"bad-old": 2, "bad-young": 1, "request-1": 1, "request-2": 1}
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
