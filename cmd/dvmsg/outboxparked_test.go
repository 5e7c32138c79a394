package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/outbox"
)

// anID is the id of message 1 in these tests.
const anID = "0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01"

// parkedBundle is the database of a service whose relay is played by the test.
type parkedBundle struct {
	environment
	pool *pgxpool.Pool
}

func setupParked(t testing.TB) parkedBundle {
	t.Helper()
	pool := dvtest.Postgres(t)
	return parkedBundle{environment{envDatabase: databaseURL(pool), envOperator: "operator:ola"}, pool}
}

func (b parkedBundle) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// enqueue stores messages whose numbers are also the ends of their ids.
func (b parkedBundle) enqueue(t testing.TB, key string, numbers ...int) {
	t.Helper()
	for _, n := range numbers {
		b.exec(t, `insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
			values ('DV_MASKIN_EVT', $1::text::uuid, 'dv.maskin.evt.server.provisioned', $2, $3, $4)`,
			idOf(n), key, "Nats-Msg-Id: "+idOf(n)+"\r\ntenant-id: tenant-1\r\nX-Odd: \x1b[31mred\r\n", fmt.Appendf(nil, `{"secret":"%s"}`, canary))
	}
}

func idOf(n int) string { return fmt.Sprintf("%s%02d", anID[:len(anID)-2], n) }

// park does what the relay does with a message that cannot be stored.
func (b parkedBundle) park(t testing.TB, n int) {
	t.Helper()
	b.exec(t, `
insert into messaging.outbox_parked (stream, ordering_key, seq, id, subject, cause)
select stream, ordering_key, seq, id, subject, 'can never be stored: message size exceeds maximum allowed'
  from messaging.outbox_events where id = $1::text::uuid
on conflict (stream, ordering_key) do update
   set seq = excluded.seq, id = excluded.id, cause = excluded.cause, released_at = null, released_by = null, reason = null`, idOf(n))
}

// carryOut plays the relay, which does what sql says once something is released.
func (b parkedBundle) carryOut(t testing.TB, sql string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		for {
			tag, err := b.pool.Exec(ctx, sql)
			if err != nil || tag.RowsAffected() > 0 || ctx.Err() != nil {
				ended <- err
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(tick):
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// rows is everything that an operator can change.
func (b parkedBundle) rows(t testing.TB) (text string) {
	t.Helper()
	require.NoError(t, b.pool.QueryRow(t.Context(), `
select concat((select string_agg(p::text, ' ' order by p) from messaging.outbox_parked p),
              (select string_agg(d::text, ' ' order by d) from messaging.outbox_discarded d),
              (select string_agg(d::text, ' ' order by d) from messaging.outbox_decisions d),
              (select string_agg(r::text, ' ' order by r) from messaging.outbox_rewinds r),
              (select string_agg(s::text, ' ' order by s.stream) from messaging.outbox_state s))`).Scan(&text))
	return text
}

func TestOutboxParkedOutputsAreAsRecorded(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	golden := func(file string, args ...string) {
		t.Helper()
		requireGolden(t, file, masked(b.dvmsg(t, append([]string{"outbox", "parked"}, args...)...).ok(t).out))
	}
	why := []string{"--reason", "limit raised, DV-412"}
	golden("parked-none.golden", "list")
	golden("parked-none.json", "list", "--json")
	golden("parked-discarded-none.golden", "list", "--state", "discarded")
	b.enqueue(t, "server-1", 1, 2, 3)
	b.enqueue(t, "server-2", 4)
	b.park(t, 1)
	b.park(t, 4)

	golden("parked-list.golden", "list")
	golden("parked-list.json", "list", "--json")
	golden("parked-show.golden", "show", idOf(1))
	golden("parked-show.json", "show", idOf(1), "--json")
	golden("parked-release-dry.golden", append(why, "release", idOf(1), "--dry-run")...)
	golden("parked-release-all-dry.golden", append(why, "release", "--stream", "DV_MASKIN_EVT", "--all", "--dry-run")...)
	golden("parked-release.golden", append(why, "release", idOf(1))...)
	golden("parked-show-released.golden", "show", idOf(1))
	b.park(t, 1)
	golden("parked-release-all.golden", append(why, "release", "--stream", "DV_MASKIN_EVT", "--all")...)
	b.park(t, 4)
	golden("parked-discard-dry.golden", append(why, "discard", idOf(4), "--dry-run")...)
	golden("parked-discard-dry.json", append(why, "discard", idOf(4), "--dry-run", "--json")...)
	golden("parked-discard.golden", append(why, "discard", idOf(4))...)
	golden("parked-list-released.golden", "list")
	golden("parked-discarded.golden", "list", "--state", "discarded")
	golden("parked-discarded.json", "list", "--state", "discarded", "--json")
}

func TestOutboxParkedListSelects(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	for n, key := range []string{"a", "b", "c"} {
		b.enqueue(t, key, n)
		b.park(t, n)
	}
	b.dvmsg(t, "outbox", "parked", "release", idOf(1), "--reason", "x").ok(t)
	for args, want := range map[string]string{
		"": "a b c", "--key b": "b", "--stream DV_NETT_CMD": "", "--state held": "a c", "--state released": "b", "--limit 1": "a",
	} {
		r := decode[parkedListResult](t, b.dvmsg(t, append([]string{"outbox", "parked", "list", "--json"}, strings.Fields(args)...)...).ok(t))
		var keys []string
		for _, p := range r.Parked {
			keys = append(keys, p.Key)
		}
		require.Equal(t, want, strings.Join(keys, " "), args)
		require.Equal(t, args == "--limit 1", r.Limited)
	}
	require.Contains(t, b.dvmsg(t, "outbox", "parked", "list", "--limit", "2").ok(t).out, "there may be more; --limit N")
}

func TestParkedPayloadIsShownOnlyOnRequest(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	b.enqueue(t, "a", 1, 2)
	b.park(t, 1)
	data := fmt.Appendf(nil, `{"secret":"%s"}`, canary)
	for _, args := range []string{
		"list", "list --json", "show " + anID, "show " + anID + " --json", "release " + anID + " --reason x --dry-run --json",
		"discard " + anID + " --reason x --dry-run --json", "discard " + anID + " --reason x", "list --state discarded --json",
	} {
		out := b.dvmsg(t, strings.Fields("outbox parked "+args)...).ok(t).out
		require.NotContains(t, out, canary, args)
		require.NotContains(t, out, base64.StdEncoding.EncodeToString(data)[:20], args)
		require.NotContains(t, out, "\x1b")
	}
	require.Contains(t, b.dvmsg(t, "outbox", "parked", "show", anID, "--data").ok(t).out, `"secret": "`+canary+`"`)
	require.Equal(t, data, decode[parkedShowResult](t, b.dvmsg(t, "outbox", "parked", "show", anID, "--data", "--json").ok(t)).Data)
}

func TestWaitEndsWhenTheRelayHasCarriedItOut(t *testing.T) {
	t.Parallel()
	const done = "delete from messaging.outbox_parked where released_at is not null"
	for args, want := range map[string]string{
		"release " + anID:                      "carried out: what was held is published\n",
		"release --stream DV_MASKIN_EVT --all": "carried out: what was held is published\n",
		"discard " + anID:                      "carried out: what was behind it is published\n",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			b := setupParked(t)
			b.enqueue(t, "a", 1, 2)
			b.park(t, 1)
			defer b.carryOut(t, done)()
			r := b.dvmsg(t, strings.Fields("outbox parked "+args+" --reason x --wait")...).ok(t)
			require.Contains(t, r.out, want)
		})
	}
}

// The document says what was decided, the exit code that it did not help.
func TestWaitFailsWhenTheKeyIsParkedAgain(t *testing.T) {
	t.Parallel()
	const again = `update messaging.outbox_parked set released_at = null, released_by = null, reason = null, cause = 'still too large' where released_at is not null`
	for _, c := range []struct{ args, want string }{
		{"release " + anID, `key "a" of DV_MASKIN_EVT is parked again: still too large; see: dvmsg outbox parked show ` + anID},
		{"release --stream DV_MASKIN_EVT --all", "parked again, or anew: 1 key of DV_MASKIN_EVT; see: dvmsg outbox parked list"},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			b := setupParked(t)
			b.enqueue(t, "a", 1, 2)
			b.park(t, 1)
			defer b.carryOut(t, again)()
			r := b.dvmsg(t, strings.Fields("outbox parked "+c.args+" --reason x --wait --json")...).failed(t, exitFailure, c.want)
			got := decode[parkedReleaseResult](t, r)
			require.EqualValues(t, 1, got.Keys)
			require.False(t, got.CarriedOut)
		})
	}
}

func TestWaitIsBoundedByTheTimeout(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"release " + anID, "release --stream DV_MASKIN_EVT --all", "discard " + anID} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			b := setupParked(t)
			b.enqueue(t, "a", 1, 2)
			b.park(t, 1)
			r := b.dvmsg(t, strings.Fields("outbox parked "+args+" --reason x --wait --timeout 5s")...)
			r.failed(t, exitFailure, "not finished within 5s", "it is recorded", "dvmsg outbox status")
			require.Contains(t, r.out, "next: dvmsg outbox status")
			require.Equal(t, outbox.ParkedReleased, decode[parkedShowResult](t, b.dvmsg(t, "outbox", "parked", "show", anID, "--json").ok(t)).State)
		})
	}
}

// The key went on while the operator read about its head.
func TestNothingIsDecidedAboutAHeadThatChanged(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	b.enqueue(t, "a", 1, 2)
	b.park(t, 1)
	b.park(t, 2)
	before := b.rows(t)
	for _, verb := range []string{"show " + anID, "release " + anID + " --reason x", "discard " + anID + " --reason x", "discard " + anID + " --reason x --dry-run"} {
		r := b.dvmsg(t, strings.Fields("outbox parked "+verb)...).failed(t, exitFailure, "not the head of a parked key", "look again")
		require.Empty(t, r.out)
	}
	require.Equal(t, before, b.rows(t))
}

func TestADryRunAboutAParkedKeyChangesNothingAndEndsAsTheRealOne(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	b.enqueue(t, "a", 1, 2)
	b.park(t, 1)
	verbs := []string{"release " + anID, "release --stream DV_MASKIN_EVT --all", "discard " + anID}
	run := func(verb, more string) result {
		return b.dvmsg(t, strings.Fields("outbox parked "+verb+" --reason x "+more)...)
	}
	for _, verb := range verbs {
		before := b.rows(t)
		run(verb, "--dry-run").ok(t)
		require.Equal(t, before, b.rows(t))
		run(verb, "").ok(t)
		for _, more := range []string{"", "--dry-run"} {
			for _, v := range verbs {
				want := "was released by operator:ola"
				if strings.Contains(v, "--all") {
					want = "nothing is parked there"
				}
				require.Empty(t, run(v, more).failed(t, exitFailure, want).out)
			}
		}
		b.exec(t, "delete from messaging.outbox_discarded")
		b.park(t, 1)
	}
}

func TestOperatorsCommandsWithoutTablesSayWhatToRun(t *testing.T) {
	t.Parallel()
	e := environment{envDatabase: databaseURL(dvtest.EmptyPostgres(t)), envOperator: "operator:ola"}
	for _, args := range []string{
		"parked list", "parked show " + anID, "parked release " + anID + " --reason x", "parked discard " + anID + " --reason x",
		"rewind --stream s --all --reason x", "anchors --stream s", "accept --stream s --reason x",
	} {
		e.dvmsg(t, strings.Fields("outbox "+args)...).failed(t, exitFailure, "dvmsg migrate up")
	}
}
