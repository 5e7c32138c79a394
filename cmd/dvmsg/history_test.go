package main

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/topology"
)

// tableAge finds the ages of messages.
var tableAge = regexp.MustCompile(`(?m)^(\d+ +)[0-9dhms]+`) // constant

// publish stores events about server-1 to server-n.
func (b dlqBundle) publish(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		f := failure(t, i+1)
		_, err := b.js.PublishMsg(t.Context(), &nats.Msg{Subject: f.Subject, Header: nats.Header(f.Header), Data: f.Data})
		require.NoError(t, err)
	}
}

func TestHistoryOutputsAreAsRecorded(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	requireGolden(t, "history-none.golden", b.dvmsg(t, "history", "list", "--service", "maskin").ok(t).out)
	b.publish(t, 3)
	_, err := b.js.Publish(t.Context(), "dv.maskin.evt.server.provisioned", []byte("no envelope"))
	require.NoError(t, err)
	list := []string{"history", "list", "dv.maskin.evt.server.*"}
	out := b.dvmsg(t, list...).ok(t).out
	requireGolden(t, "history-list.golden", masked(tableAge.ReplaceAllString(out, "${1}AGE")))
	require.NotContains(t, out, canary)
	requireGolden(t, "history-list.json", masked(b.dvmsg(t, append(list, "--json", "--limit", "1")...).ok(t).out))
	requireGolden(t, "history-data.golden", masked(b.dvmsg(t, append(list, "--data", "--resource", "server-2")...).ok(t).out))
}

func TestHistorySelectsAndSaysWhereToGoOn(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	b.publish(t, 5)
	for args, want := range map[string][]uint64{
		"":                       {1, 2, 3, 4, 5},
		"--resource server-2":    {2},
		"--correlation corr-3":   {3},
		"--tenant tenant-0":      {2, 4},
		"--from 4":               {4, 5},
		"--since 1h":             {1, 2, 3, 4, 5},
		"--until 1h":             {},
		"--stream DV_MASKIN_EVT": {1, 2, 3, 4, 5},
	} {
		r := decode[historyListResult](t, b.dvmsg(t, append([]string{"history", "list", "--service", "maskin", "--json"}, strings.Fields(args)...)...).ok(t))
		got := []uint64{}
		for _, m := range r.Messages {
			got = append(got, m.Sequence)
			require.Nil(t, m.Data)
		}
		require.Equal(t, want, got, args)
		require.Nil(t, r.More, args)
	}
	for flag, left := range map[string]uint64{"--limit": 3, "--max-read": 3} {
		out := b.dvmsg(t, "history", "list", "--service", "maskin", flag, "2").ok(t).out
		require.Contains(t, out, flag+" ended it: there may be more; go on with --from "+strconv.FormatUint(left, 10))
	}
	b.dvmsg(t, "history", "list", "--service", "nett").failed(t, exitFailure, "no such stream: DV_NETT_EVT")
	info, err := b.js.Stream(t.Context(), maskinEvents.Name)
	require.NoError(t, err)
	require.Equal(t, 1, info.CachedInfo().State.Consumers, "only the declared durable is left")
}

// The service goes on running; what it has no inbox for is done again, and the
// output says so before.
func TestADurableIsResetByTheOperator(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	b.publish(t, 3)
	reset := []string{"durable", "reset", servers.Durable, "--from", "2", "--reason", "handler repaired, DV-413"}
	b.dvmsg(t, reset...).failed(t, exitFailure, "nothing would come again")
	c, err := b.js.Consumer(t.Context(), maskinEvents.Name, servers.Durable)
	require.NoError(t, err)
	batch, err := c.Fetch(3)
	require.NoError(t, err)
	for m := range batch.Messages() {
		require.NoError(t, m.DoubleAck(t.Context()))
	}
	requireGolden(t, "durable-reset-dry.golden", masked(b.dvmsg(t, append(reset, "--dry-run")...).ok(t).out))
	require.Equal(t, uint64(0), pending(t, b))
	b.dvmsg(t, append(reset, "--horizon", "1ns")...).failed(t, exitFailure, "an inbox remembers 1ns", "repeat it with --beyond-horizon")
	requireGolden(t, "durable-reset.json", masked(b.dvmsg(t, append(reset, "--json")...).ok(t).out))
	require.Equal(t, uint64(2), pending(t, b))
	out := b.dvmsg(t, "durable", "reset", servers.Durable, "--stream", "DV_MASKIN_EVT", "--since", "1h", "--reason", "x").ok(t).out
	require.Contains(t, out, "hands plattform__from_maskin 1 message of DV_MASKIN_EVT again, from message 1 on")
	require.Contains(t, out, "2 messages it has not handled yet come after them")
	require.Equal(t, uint64(3), pending(t, b))
	b.dvmsg(t, "durable", "reset", "plattform__other", "--from", "1", "--reason", "x").failed(t, exitFailure, "has a durable plattform__other; if it reads another stream, say --stream")
}

// pending is what the durable has not been given yet.
func pending(t testing.TB, b dlqBundle) uint64 {
	t.Helper()
	c, err := b.js.Consumer(t.Context(), maskinEvents.Name, servers.Durable)
	require.NoError(t, err)
	return c.CachedInfo().NumPending
}

// A durable of one name on two streams is a question, not a guess.
func TestADurableOnTwoStreamsIsAsked(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	twin := topology.Commands(maskinEvents.Service, topology.Limits{})
	_, err := b.js.CreateStream(t.Context(), twin.Config())
	require.NoError(t, err)
	cfg := servers.Config()
	cfg.FilterSubject = ""
	_, err = b.js.CreateConsumer(t.Context(), twin.Name, cfg)
	require.NoError(t, err)
	b.dvmsg(t, "durable", "reset", servers.Durable, "--from", "1", "--reason", "x").failed(t, exitFailure,
		"several streams have a durable", "DV_MASKIN_EVT, DV_MASKIN_CMD")
}
