package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
)

// soundRun plants the facts of a small run in which everything went right:
// server a is provisioned and resized twice, once with a redelivery that the inbox
// skipped; b and c are provisioned, c after a replay; d is an open dead letter; e
// was refused.
const soundRun = `
insert into facts.sites values ('osl1');
insert into facts.sizes values ('small'), ('large');
insert into facts.wanted values ('a', 1, 'host-a', 'osl1', 'small'), ('a', 2, 'host-a', 'osl1', 'large'), ('a', 3, 'host-a', 'osl1', 'small'),
	('b', 1, 'host-b', 'osl1', 'large'), ('c', 1, 'host-c', 'osl1', 'gpu'), ('d', 1, '', 'osl1', 'small'), ('e', 1, 'host-e', 'mars', 'small');
insert into facts.requests values ('a', 1, 'small', 'cor-a1'), ('a', 2, 'large', 'cor-a2'), ('a', 3, 'small', 'cor-a3'),
	('b', 1, 'large', 'cor-b1'), ('c', 1, 'gpu', 'cor-c1'), ('d', 1, 'small', 'cor-d1');
insert into facts.commands select row_number() over (), gen_random_uuid(), server_id, revision, correlation_id from facts.requests;
insert into facts.handled select place, message_id, server_id, revision, 1 from facts.commands where server_id <> 'd';
insert into facts.events select place, gen_random_uuid(), server_id, revision, correlation_id from facts.commands where server_id <> 'd';
insert into facts.applied select place, message_id, server_id, revision, 1 from facts.events;
insert into facts.servers values ('a', 'host-a', 'small'), ('b', 'host-b', 'large'), ('c', 'host-c', 'gpu');
insert into facts.nodes table facts.servers;
insert into facts.letters values ('l1', 'cor-c1', 1, true, true), ('l2', 'cor-d1', 1, false, false);
insert into facts.deliveries values ('maskin__commands', 7, 6), ('plattform__from_maskin', 5, 5);
`

// planted returns a database with the facts of soundRun, changed by sql.
func planted(t *testing.T, sql string) *pgxpool.Pool {
	t.Helper()
	pool := dvtest.Postgres(t)
	for _, text := range []string{factsSQL, soundRun, sql} {
		_, err := pool.Exec(t.Context(), text)
		require.NoError(t, err)
	}
	return pool
}

func TestSoundRunHasNoFaults(t *testing.T) {
	t.Parallel()
	f, err := readFigures(t.Context(), planted(t, ""))
	require.NoError(t, err)
	require.Equal(t, figures{
		Requested: 7, Committed: 6, ExpectedRefused: 1, Effects: 5, Nodes: 3,
		DeadLettered: 2, ExpectedDead: 2, Replayed: 1, Redelivered: 1, Skipped: 1,
	}, f)
	require.Empty(t, f.faults(1, 1, true))
}

// A check that cannot fail is worth nothing: each broken promise is planted and
// has to be found, in the figure that names it.
func TestEachBrokenPromiseIsFound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, sql string
		want      figures // only the figures of the promises
		fault     string
	}{
		{"effect missing at plattform", `delete from facts.applied where server_id = 'b'`,
			figures{Lost: 1}, "1 requests are lost"},
		{"effect missing at maskin", `delete from facts.handled where server_id = 'a' and revision = 2`,
			figures{Lost: 1}, "1 requests are lost"},
		{"node missing although its effect is recorded", `delete from facts.nodes where server_id = 'b'`,
			figures{Lost: 1}, "1 requests are lost"},
		{"dead letter closed without an effect", `update facts.letters set closed = true where letter_id = 'l2'`,
			figures{Lost: 1}, "1 requests are lost"},
		{"dead letter vanished", `delete from facts.letters where letter_id = 'l2'`,
			figures{Lost: 1}, "1 requests are lost"},
		{"one event in effect twice", `insert into facts.applied select 9, message_id, server_id, revision, 2 from facts.applied where server_id = 'b'`,
			figures{Duplicated: 1}, "1 effects came more than once"},
		{"one command in effect twice, with two events", `insert into facts.handled select 9, message_id, server_id, revision, 2 from facts.handled where server_id = 'b';
			insert into facts.events select 9, gen_random_uuid(), server_id, revision, correlation_id from facts.events where server_id = 'b';
			insert into facts.applied select 9, gen_random_uuid(), server_id, revision, 1 from facts.applied where server_id = 'b'`,
			figures{Duplicated: 2}, "2 effects came more than once"},
		{"two nodes of one host", `insert into facts.nodes select server_id, hostname, size from facts.nodes where server_id = 'b'`,
			figures{Duplicated: 1}, "1 effects came more than once"},
		{"effects of a server inverted at plattform", `update facts.applied set place = 5 - place where server_id = 'a' and revision > 1`,
			figures{OutOfOrder: 1}, "1 effects are out of order"},
		{"effects of a server inverted at maskin", `update facts.handled set place = 5 - place where server_id = 'a' and revision > 1`,
			figures{OutOfOrder: 1}, "1 effects are out of order"},
		{"events of a server inverted in the stream", `update facts.events set place = 3 - place where server_id = 'a' and revision < 3`,
			figures{OutOfOrder: 1}, "1 effects are out of order"},
		{"node ended at an earlier size", `update facts.nodes set size = 'large' where server_id = 'a'`,
			figures{OutOfOrder: 1}, "1 effects are out of order"},
		{"server ended at an earlier size", `update facts.servers set size = 'large' where server_id = 'a'`,
			figures{OutOfOrder: 1}, "1 effects are out of order"},
		{"message of a rolled-back request", `insert into facts.commands values (9, gen_random_uuid(), 'e', 1, 'cor-e1')`,
			figures{Phantoms: 1}, "1 messages were published whose transaction did not commit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, err := readFigures(t.Context(), planted(t, c.sql))
			require.NoError(t, err)
			require.Equal(t, c.want, figures{Lost: f.Lost, Duplicated: f.Duplicated, OutOfOrder: f.OutOfOrder, Phantoms: f.Phantoms})
			require.Contains(t, strings.Join(f.faults(1, 1, true), "\n"), c.fault)
		})
	}
}

// A message that a stream holds twice, behind its duplicate window, has one
// effect: that is no fault.
func TestRepeatInAStreamIsNoFault(t *testing.T) {
	t.Parallel()
	f, err := readFigures(t.Context(), planted(t, `
		insert into facts.events select 9, message_id, server_id, revision, correlation_id from facts.events where server_id = 'a' and revision = 1`))
	require.NoError(t, err)
	require.Empty(t, f.faults(1, 1, true))
}

func TestVoidAndUnexpectedRunsFail(t *testing.T) {
	t.Parallel()
	sound := figures{Requested: 7, Committed: 6, ExpectedRefused: 1, Effects: 5, DeadLettered: 2, ExpectedDead: 2, Replayed: 1, Redelivered: 1}
	require.Empty(t, sound.faults(1, 1, true))
	for _, c := range []struct {
		change      func(*figures)
		kills       int
		wantedKills int
		replay      bool
		want        string
	}{
		{func(f *figures) {}, 1, 3, true, "void: maskin was killed 1 times, not 3"},
		{func(f *figures) { f.Redelivered = 0 }, 1, 1, true, "void: nothing was delivered twice"},
		{func(f *figures) { f.Committed-- }, 1, 1, true, "but 5 were committed"},
		{func(f *figures) { f.Effects++ }, 1, 1, true, "6 effects, but"},
		{func(f *figures) { f.ExpectedDead++ }, 1, 1, true, "2 dead letters, but the input has 3"},
		{func(f *figures) {}, 1, 1, false, "1 dead letters were resolved by a replay, not 0"},
	} {
		f := sound
		c.change(&f)
		require.Contains(t, strings.Join(f.faults(c.wantedKills, c.kills, c.replay), "\n"), c.want)
	}
}
