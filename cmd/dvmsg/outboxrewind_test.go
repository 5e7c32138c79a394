package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// publish plays the relay: all there is was published, and the cursor before
// becomes an anchor of that time.
func (b parkedBundle) publish(t testing.TB, anchor string) {
	t.Helper()
	b.exec(t, "insert into messaging.outbox_state (stream) values ('DV_MASKIN_EVT') on conflict do nothing")
	b.exec(t, `
insert into messaging.outbox_anchors (stream, at, acked_sequence, base, floor, next_floor)
select stream, $1::text::timestamptz, acked_sequence, base, floor, next_floor from messaging.outbox_state`, anchor)
	b.exec(t, `
update messaging.outbox_state
   set base = pg_current_snapshot(), floor = next_floor, next_floor = (select last_value from messaging.outbox_events_seq_seq),
       acked_sequence = (select count(*) from messaging.outbox_events)`)
}

func setupRewind(t testing.TB) parkedBundle {
	t.Helper()
	b := setupParked(t)
	b.enqueue(t, "server-1", 1)
	b.publish(t, "2026-01-01 10:00:00.000001Z")
	b.enqueue(t, "server-1", 2)
	b.enqueue(t, "server-2", 3)
	b.publish(t, "2026-01-01 11:00:00.000002Z")
	b.enqueue(t, "server-1", 4)
	return b
}

func TestOutboxRewindOutputsAreAsRecorded(t *testing.T) {
	t.Parallel()
	b := setupRewind(t)
	golden := func(file, args string) {
		t.Helper()
		requireGolden(t, file, masked(b.dvmsg(t, strings.Fields("outbox "+args)...).ok(t).out))
	}
	const stream = " --stream DV_MASKIN_EVT"
	golden("rewind-dry.golden", "rewind --since 2026-01-01T11:30:00Z --reason DV-7 --dry-run"+stream)
	golden("rewind-dry.json", "rewind --since 2026-01-01T11:30:00Z --reason DV-7 --dry-run --json"+stream)
	golden("rewind-key-dry.golden", "rewind --all --key server-1 --reason DV-7 --dry-run"+stream)
	golden("rewind.golden", "rewind --all --reason DV-7"+stream)
	golden("rewind-key.golden", "rewind --since 2026-01-01 --key server-2 --reason DV-8"+stream)
	golden("rewind-key.json", "rewind --since 2026-01-01T12:00:00Z --key server-1 --reason DV-8 --json"+stream)
	b.exec(t, "update messaging.outbox_rewinds set done_at = clock_timestamp()")
	golden("rewind.json", "rewind --since 2026-01-01T10:30:00Z --reason DV-9 --json"+stream)
	golden("anchors.golden", "anchors"+stream)
	golden("anchors.json", "anchors --json"+stream)
	golden("anchors-none.golden", "anchors --stream DV_NETT_CMD")
}

func TestRewindGoesBackAsFarAsItsAnchor(t *testing.T) {
	t.Parallel()
	b := setupRewind(t)
	for args, want := range map[string][]int64{
		"--since 2026-01-01T11:00:00.000002Z":      {2, 2, 3},
		"--since 2026-01-01T11:00:00.000001Z":      {3, 1, 3},
		"--since 2025-12-31":                       {3, 1, 3},
		"--all":                                    {3, 1, 3},
		"--all --key server-1":                     {2, 1, 2},
		"--all --key server-2":                     {1, 3, 3},
		"--key server-1 --since 2026-01-01T12:00Z": nil,
	} {
		cmd := b.dvmsg(t, strings.Fields("outbox rewind --stream DV_MASKIN_EVT --reason x --dry-run --json "+args)...)
		if want == nil {
			cmd.failed(t, exitUsage, "--since")
			continue
		}
		plan := decode[outboxRewindResult](t, cmd.ok(t)).Plan
		require.Equal(t, want, []int64{plan.Rows, plan.FirstSeq, plan.LastSeq}, args)
	}
}

func TestWaitEndsWhenTheRewindIsCarriedOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, relay, want string }{
		{"--all", "update messaging.outbox_rewinds set done_at = clock_timestamp() where done_at is null", "carried out: the cursor is set back"},
		{"--all --key server-1", "delete from messaging.outbox_parked where released_at is not null", "carried out: the key is published again"},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			b := setupRewind(t)
			rewind := strings.Fields("outbox rewind --stream DV_MASKIN_EVT --reason x --wait " + c.args)
			// One that was carried out before is another.
			b.exec(t, "insert into messaging.outbox_rewinds values ('DV_MASKIN_EVT', now() - interval '1 hour', null, 'operator:kari', 'x', now())")
			late := b.dvmsg(t, append(rewind, "--timeout", "5s")...).failed(t, exitFailure, "not finished within 5s", "it is recorded")
			require.Contains(t, late.out, "asked for a rewind of ")
			b.exec(t, c.relay)
			defer b.carryOut(t, c.relay)()
			require.Contains(t, b.dvmsg(t, rewind...).ok(t).out, c.want)
		})
	}
}

func TestADryRunOfARewindChangesNothingAndEndsAsTheRealOne(t *testing.T) {
	t.Parallel()
	b := setupRewind(t)
	for args, refused := range map[string]string{
		"--all":                "operator:ola asked for a rewind of DV_MASKIN_EVT",
		"--all --key server-1": `key "server-1" of DV_MASKIN_EVT was released by operator:ola`,
	} {
		rewind := strings.Fields("outbox rewind --stream DV_MASKIN_EVT --reason x " + args)
		dry := append(rewind[:len(rewind):len(rewind)], "--dry-run")
		before := b.rows(t)
		b.dvmsg(t, dry...).ok(t)
		require.Equal(t, before, b.rows(t))
		b.dvmsg(t, rewind...).ok(t)
		for _, again := range [][]string{rewind, dry} {
			require.Empty(t, b.dvmsg(t, again...).failed(t, exitFailure, refused).out)
		}
	}
	for _, args := range []string{"--stream DV_MASKIN_EVTS --all", "--stream DV_MASKIN_EVT --all --key nobody"} {
		for _, dry := range []string{"", " --dry-run"} {
			b.dvmsg(t, strings.Fields("outbox rewind --reason x "+args+dry)...).failed(t, exitFailure, "nothing that was published since then")
		}
	}
}

func TestAcceptIsForAStreamThatWaits(t *testing.T) {
	t.Parallel()
	b := setupRewind(t)
	accept := []string{"outbox", "accept", "--stream", "DV_MASKIN_EVT", "--reason", "disk replaced, DV-9"}
	dry := append(accept[:len(accept):len(accept)], "--dry-run")
	for _, args := range [][]string{accept, dry} {
		b.dvmsg(t, args...).failed(t, exitFailure, "no relay waits for this stream to be accepted")
	}
	b.exec(t, "update messaging.outbox_state set stream_created = now() - interval '1 hour', recreated = now()")
	before := b.rows(t)
	requireGolden(t, "accept-dry.golden", b.dvmsg(t, dry...).ok(t).out)
	require.Equal(t, before, b.rows(t))
	requireGolden(t, "accept.golden", b.dvmsg(t, accept...).ok(t).out)
	status := decode[outboxResult](t, b.dvmsg(t, "outbox", "status", "--json").ok(t))
	require.EqualValues(t, 4, status.Streams[0].Unpublished)
	again := b.dvmsg(t, append(accept, "--json")...).failed(t, exitFailure, outbox.ErrNothingToAccept.Error())
	require.Empty(t, again.out)
}
