package main

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// delay parks message n of a durable, due in so long.
func (b parkedBundle) delay(t testing.TB, n int, durable string, in time.Duration) {
	t.Helper()
	box, err := inbox.New(b.pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	require.NoError(t, box.Park(t.Context(), &envelope.Parked{
		Source: "maskin", MessageID: idOf(n), Durable: durable, Key: fmt.Sprintf("server-%d", n),
		Stream: "DV_MASKIN_EVT", StreamCreated: time.Now(), Sequence: uint64(n), StoredAt: time.Now(),
		Subject: "dv.maskin.evt.server.provisioned", Header: envelope.Header{"Nats-Msg-Id": {idOf(n)}, "X-Odd": {"\x1b[31mred"}},
		Data: fmt.Appendf(nil, `{"secret":"%s"}`, canary), Attempts: 1, Reason: "rack is full",
	}, in))
}

func TestInboxParkedOutputsAreAsRecorded(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	golden := func(file string, args ...string) {
		t.Helper()
		requireGolden(t, file, masked(b.dvmsg(t, append([]string{"inbox", "parked"}, args...)...).ok(t).out))
	}
	why := []string{"--reason", "limit raised, DV-412"}
	golden("inbox-parked-none.golden", "list")
	golden("inbox-parked-none.json", "list", "--json")
	b.delay(t, 1, "plattform__from_maskin", time.Hour)
	b.delay(t, 2, "plattform__from_maskin", -time.Hour)
	b.delay(t, 3, "plattform__audit", 2*time.Hour)
	golden("inbox-parked-list.golden", "list")
	golden("inbox-parked-show.golden", "show", idOf(1))
	golden("inbox-parked-show.json", "show", idOf(1), "--json")
	golden("inbox-parked-release-dry.golden", append(why, "release", idOf(1), "--dry-run")...)
	golden("inbox-parked-release.golden", append(why, "release", idOf(1))...)
	golden("inbox-parked-show-released.golden", "show", idOf(1))
}

func TestInboxParkedSelectsAndReleasesAll(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	b.delay(t, 1, "plattform__from_maskin", time.Hour)
	b.delay(t, 2, "plattform__from_maskin", 2*time.Hour)
	b.delay(t, 3, "plattform__audit", 3*time.Hour)
	list := func(args string) (keys, states string) {
		t.Helper()
		r := decode[inboxParkedListResult](t, b.dvmsg(t, strings.Fields("inbox parked list --json "+args)...).ok(t))
		for _, m := range r.Parked {
			keys, states = keys+m.Key+" ", states+string(m.State)+" "
		}
		return keys, states
	}
	for args, want := range map[string]string{
		"": "server-1 server-2 server-3 ", "--durable plattform__audit": "server-3 ", "--key server-2": "server-2 ",
		"--consumer other": "", "--consumer plattform__servers --limit 1": "server-1 ",
	} {
		keys, _ := list(args)
		require.Equal(t, want, keys, args)
	}
	release := "inbox parked release --durable plattform__from_maskin --all --reason x"
	for _, more := range []string{" --dry-run", ""} {
		r := decode[inboxParkedReleaseResult](t, b.dvmsg(t, strings.Fields(release+" --json"+more)...).ok(t))
		require.EqualValues(t, 2, r.Messages)
		_, states := list("")
		require.Equal(t, more != "", strings.HasPrefix(states, "waiting waiting"), states)
	}
	b.dvmsg(t, strings.Fields(release)...).failed(t, exitFailure, inbox.ErrNothingToRelease.Error())
	b.dvmsg(t, strings.Fields(release+" --dry-run")...).failed(t, exitFailure, inbox.ErrNothingToRelease.Error())
	for _, verb := range []string{"show " + idOf(9), "release " + idOf(9) + " --reason x"} {
		b.dvmsg(t, strings.Fields("inbox parked "+verb)...).failed(t, exitFailure, inbox.ErrNotParked.Error())
	}
	b.dvmsg(t, "inbox", "parked", "release", "--reason", "x", "--all").failed(t, exitUsage, "ID is missing")
}

func TestInboxParkedPayloadIsShownOnlyOnRequest(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	b.delay(t, 1, "plattform__from_maskin", time.Hour)
	for _, args := range []string{"list", "list --json", "show " + idOf(1), "show " + idOf(1) + " --json", "release " + idOf(1) + " --reason x --json"} {
		out := b.dvmsg(t, strings.Fields("inbox parked "+args)...).ok(t).out
		require.NotContains(t, out, canary, args)
		require.NotContains(t, out, base64.StdEncoding.EncodeToString([]byte(`{"secret":"` + canary))[:20], args)
		require.NotContains(t, out, "\x1b")
	}
	require.Contains(t, b.dvmsg(t, "inbox", "parked", "show", idOf(1), "--data").ok(t).out, canary)
}

func TestInboxParkedWithoutTablesSaysWhatToRun(t *testing.T) {
	t.Parallel()
	e := environment{envDatabase: databaseURL(dvtest.EmptyPostgres(t)), envOperator: "operator:ola"}
	for _, args := range []string{"list", "show " + anID, "release " + anID + " --reason x"} {
		e.dvmsg(t, strings.Fields("inbox parked "+args)...).failed(t, exitFailure, "dvmsg migrate up")
	}
}
