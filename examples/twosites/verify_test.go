package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
)

// soundRun plants the facts of a small run in which everything went right: at each
// site two servers change by turns, twice a second, and the other site is sent six
// commands, while the link is disturbed nine times for a second each; the other site hears of a change three quarters of a second
// later, and so of all that was changed meanwhile half a second after the heal.
const soundRun = `
insert into facts.sites values ('osl1', 60, 6), ('trd1', 60, 6);
insert into facts.traffic values ('2026-01-01 12:00:00+00', '2026-01-01 12:00:30+00');
insert into facts.faults select n, (array['cut', 'black hole', 'cut', 'slow, 200 ms', 'cut', 'flapping', 'cut', 'black hole', 'cut'])[n],
	began + n * interval '3 s', began + n * interval '3 s' + interval '1 s' from facts.traffic, generate_series(1, 9) n;
insert into facts.changes select site, 'event', (array['a', 'b'])[1 + i % 2], 1 + i / 2, began + i * interval '500 ms' + interval '250 ms'
	from facts.sites, facts.traffic, generate_series(0, 59) i;
insert into facts.changes select site, 'command', 'a', n, began + n * interval '3 s' - interval '700 ms'
	from facts.sites, facts.traffic, generate_series(1, 6) n;
insert into facts.stored select site, cargo, site, row_number() over (partition by site, cargo order by made_at), gen_random_uuid(), server_id, revision from facts.changes;
insert into facts.stored select case origin when 'osl1' then 'trd1' else 'osl1' end, cargo, origin, place, message_id, server_id, revision from facts.stored;
insert into facts.effects select m.site, m.cargo, m.origin, 2 * m.place + (m.site <> m.origin)::int, m.message_id, m.server_id, m.revision,
	c.made_at + case when m.site = m.origin then interval '100 ms' else interval '751 ms' end
	from facts.stored m join facts.changes c on (c.site, c.cargo, c.server_id, c.revision) = (m.origin, m.cargo, m.server_id, m.revision)
	where m.cargo = 'event' or m.site <> m.origin;
`

// planted returns a database with the facts of soundRun.
func planted(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := dvtest.Postgres(t)
	for _, text := range []string{factsSQL, soundRun} {
		_, err := pool.Exec(t.Context(), text)
		require.NoError(t, err)
	}
	return pool
}

// readChanged counts the facts as they are with a change, which it takes back.
func readChanged(t *testing.T, pool *pgxpool.Pool, sql string) *report {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), sql)
	require.NoError(t, err)
	r, err := readReport(t.Context(), tx)
	require.NoError(t, err)
	return r
}

func TestSoundRunHasNoFaults(t *testing.T) {
	t.Parallel()
	r, err := readReport(t.Context(), planted(t))
	require.NoError(t, err)
	require.Len(t, r.sites, 2)
	for i, site := range []string{osl1, trd1} {
		f := r.sites[i]
		require.InDelta(t, 0.501, f.CaughtUp, 1e-6)
		require.InDelta(t, 9*3/(9*1.501), f.RateDisturbed, 1e-6, "from each fault's begin until both sites had caught up")
		require.InDelta(t, 33/(30-9*1.501), f.RateUndisturbed, 1e-6)
		require.InDelta(t, 0.1, f.P99Disturbed, 1e-6)
		f.CaughtUp, f.RateDisturbed, f.RateUndisturbed, f.P99Disturbed, f.P99Undisturbed = 0, 0, 0, 0, 0
		require.Equal(t, figures{
			Site: site, AskedEvents: 60, AskedCommands: 6, Events: 60, Commands: 6, CopiedEvents: 60, CopiedCommands: 6,
			OwnEffects: 60, OtherEffects: 60, Carried: 6,
		}, f)
	}
	require.Len(t, r.struck, len(plan))
	for i, s := range r.struck {
		require.Equal(t, struck{Kind: plan[i], After: float64(3 * (i + 1)), Lasted: 1, CaughtUp: 0.501, Made: 4}, s)
	}
	require.Empty(t, r.verdict(options{bars: true}))
}

// A check that cannot fail is worth nothing: each broken promise is planted and has to
// be found, in the figure that names it.
func TestEachBrokenPromiseIsFound(t *testing.T) {
	t.Parallel()
	pool := planted(t)
	const (
		own     = `site = 'trd1' and cargo = 'event' and origin = 'trd1' and server_id = 'a' and revision = 7`
		remote  = `site = 'trd1' and cargo = 'event' and origin = 'osl1' and server_id = 'a' and revision = 7`
		carried = `site = 'trd1' and cargo = 'command' and revision = 4`
		swapped = `revision = 15 - revision where site = 'trd1' and cargo = 'event' and origin = 'osl1' and server_id = 'a' and revision in (7, 8)`
	)
	for _, c := range []struct {
		name, sql string
		want      figures // of trd1, only the figures of the promises
		fault     string
	}{
		{"an effect of the other site's event is missing", `delete from facts.effects where ` + remote,
			figures{Lost: 1}, "trd1: 1 messages are lost"},
		{"an effect of the site's own event is missing", `delete from facts.effects where ` + own,
			figures{Lost: 1}, "trd1: 1 messages are lost"},
		{"an event never came over the link", `delete from facts.effects where ` + remote + `; delete from facts.stored where ` + remote,
			figures{Lost: 1}, "trd1: 59 events and 6 commands of osl1 came over the link, of 60 and 6"},
		{"a command was not carried out", `delete from facts.effects where ` + carried,
			figures{Lost: 1}, "and 5 commands carried out of 6"},
		{"an effect came twice", `insert into facts.effects select site, cargo, origin, 999, message_id, server_id, revision, applied_at from facts.effects where ` + remote,
			figures{Duplicated: 1, OutOfOrder: 1}, "trd1: 1 effects came more than once"},
		{"an event came twice, under two ids, and took effect twice", `insert into facts.effects select site, cargo, origin, place, gen_random_uuid(), server_id, revision, applied_at from facts.effects where ` + remote,
			figures{Duplicated: 1}, "trd1: 1 effects came more than once"},
		{"a command was carried out twice", `insert into facts.effects select * from facts.effects where ` + carried,
			figures{Duplicated: 1}, "trd1: 1 effects came more than once"},
		{"two effects of a server are swapped", `update facts.effects set ` + swapped,
			figures{OutOfOrder: 1}, "trd1: 1 effects or messages are out of order"},
		{"two events of a server are swapped in the copy", `update facts.stored set ` + swapped,
			figures{OutOfOrder: 1}, "trd1: 1 effects or messages are out of order"},
		{"two commands are swapped", `update facts.effects set place = 100 - place where site = 'trd1' and cargo = 'command' and revision > 4`,
			figures{OutOfOrder: 1}, "trd1: 1 effects or messages are out of order"},
		{"an effect of what was rolled back", `delete from facts.changes where site = 'osl1' and cargo = 'event' and server_id = 'a' and revision = 30`,
			figures{Phantoms: 2}, "trd1: 2 effects or messages have nothing committed behind them"},
		{"an effect is said to be of the wrong site", `update facts.effects set origin = 'trd1', revision = 99 where ` + remote,
			figures{Lost: 1, Phantoms: 1, OutOfOrder: 23}, "trd1: 1 messages are lost"},
		{"a dead letter", `insert into facts.letters values ('trd1', 'x')`,
			figures{Letters: 1}, "trd1: 1 dead letters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := readChanged(t, pool, c.sql)
			f := r.sites[1]
			require.Equal(t, c.want, figures{Lost: f.Lost, Duplicated: f.Duplicated, OutOfOrder: f.OutOfOrder, Phantoms: f.Phantoms, Letters: f.Letters})
			require.Contains(t, strings.Join(r.verdict(options{}), "\n"), c.fault)
		})
	}
}

// A message that the copy holds twice has one effect: that is no fault.
func TestRepeatInTheCopyIsNoFault(t *testing.T) {
	t.Parallel()
	r := readChanged(t, planted(t), `insert into facts.stored select site, cargo, origin, 999, message_id, server_id, revision from facts.stored
		where site = 'trd1' and cargo = 'event' and origin = 'osl1' and server_id = 'a' and revision = 7`)
	require.EqualValues(t, 1, r.sites[1].Repeats)
	require.Empty(t, r.verdict(options{bars: true}))
}

func TestVoidAndSlowRunsFail(t *testing.T) {
	t.Parallel()
	pool := planted(t)
	for _, c := range []struct{ name, sql, want string }{
		{"a fault that was not made", `delete from facts.faults where place = 4`, "void: 8 faults of the link, not 9"},
		{"nobody did anything meanwhile", `update facts.faults set healed = began + interval '100 ms' where place = 6`, "void: fault 6 (flapping): nothing was committed meanwhile"},
		{"a cut that let something through", `update facts.effects set applied_at = applied_at - interval '600 ms' where origin = 'osl1' and site = 'trd1'`, "void: fault 1 (cut): 2 messages passed all the same"},
		{"a site that stood still while the link was down", `update facts.effects e set applied_at = applied_at + interval '20 s' from facts.faults f
			where e.origin = e.site and applied_at between f.began and f.healed`, "osl1: 0."},
		{"a site that caught up late", `update facts.effects set applied_at = applied_at + interval '15 s' where origin = 'trd1' and site = 'osl1' and revision >= 28`, "osl1: caught up 1"},
		{"traffic that ended before the first fault", `update facts.traffic set ended = began + interval '2 s'`, "void: osl1: its own throughput was not seen"},
		{"a site that made too few", `update facts.sites set events = 61 where site = 'osl1'`, "osl1: 61 events and 6 commands were asked for, and 60 and 6 committed"},
		{"a site that is not there", `delete from facts.sites where site = 'osl1'`, "void: 1 sites are in the facts, not 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Contains(t, strings.Join(readChanged(t, pool, c.sql).verdict(options{bars: true}), "\n"), c.want)
		})
	}
}

func TestFailedRunIsReportedAndFails(t *testing.T) {
	t.Parallel()
	r := &report{sites: []figures{{Site: osl1}, {Site: trd1}}, struck: []struck{{Kind: kindCut}}, took: time.Second, faults: []string{"trd1: 1 messages are lost"}}
	var out strings.Builder
	require.ErrorContains(t, r.write(&out), "1 messages are lost")
	require.Contains(t, out.String(), "out of order")
}
