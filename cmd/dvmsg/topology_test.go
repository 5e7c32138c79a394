package main

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

var (
	limits       = topology.Limits{MaxBytes: 64 << 20}
	maskinEvents = topology.Events(subject.Maskin, limits)
	servers      = topology.Consumer{
		Durable: "plattform__from_maskin", Stream: maskinEvents, Filter: subject.EventsOf(subject.Maskin),
		AckWait: 2 * time.Second, MaxAckPending: 5, Start: topology.StartFirst(),
	}
)

func maskinSet() topology.Set {
	return topology.Set{Service: subject.Maskin, Streams: []topology.Stream{maskinEvents}}
}

func plattformSet() topology.Set {
	return topology.Set{
		Service: subject.Plattform,
		Streams: []topology.Stream{
			maskinEvents, topology.DeadLetters(subject.Plattform, limits), topology.DeadLetterOps(subject.Plattform, limits),
		},
		Consumers: []topology.Consumer{servers},
	}
}

func TestTopologyGoesThroughMissingAppliedDriftedAndMended(t *testing.T) {
	t.Parallel()
	broker := dvtest.Server(t)
	js := broker.Connect(t).JetStream()
	e := environment{envNATS: broker.URL()}
	file := writeSet(t, maskinSet())
	dvmsg := func(args ...string) result {
		return e.dvmsg(t, append([]string{"topology"}, append(args, "--file", file)...)...)
	}

	// Missing.
	requireGolden(t, "topology-verify-missing.golden", masked(dvmsg("verify").failed(t, exitFound, "topology of maskin: 1 difference found").out))
	requireGolden(t, "topology-diff-missing.golden", masked(dvmsg("diff").failed(t, exitFound).out))
	requireGolden(t, "topology-diff-missing.json", masked(dvmsg("diff", "--json").failed(t, exitFound).out))
	require.Equal(t, dvmsg("diff").out, dvmsg("apply", "--dry-run").ok(t).out)
	_, err := js.Stream(t.Context(), "DV_MASKIN_EVT")
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound, "a dry run changes nothing")

	// Applied.
	applied := decode[topologyResult](t, dvmsg("apply", "--json").ok(t))
	require.Equal(t, []change{{Object: "stream DV_MASKIN_EVT", Create: true}}, applied.Changes)
	require.NoError(t, topology.Verify(t.Context(), js, maskinSet()))
	require.Contains(t, dvmsg("diff").ok(t).out, "nothing to do")
	require.Contains(t, dvmsg("verify").ok(t).out, "as declared")
	require.Equal(t, topologyVerifyResult{Service: subject.Maskin, OK: true, Findings: []finding{}, Warnings: []string{}},
		decode[topologyVerifyResult](t, dvmsg("verify", "--json").ok(t)))

	// Drifted.
	longer := maskinEvents.Config()
	longer.MaxAge += 24 * time.Hour
	_, err = js.UpdateStream(t.Context(), longer)
	require.NoError(t, err)
	requireGolden(t, "topology-verify-drift.golden", masked(dvmsg("verify").failed(t, exitFound, "1 difference found").out))
	requireGolden(t, "topology-verify-drift.json", masked(dvmsg("verify", "--json").failed(t, exitFound).out))
	requireGolden(t, "topology-diff-drift.golden", masked(dvmsg("diff").failed(t, exitFound).out))

	// Refused, by the dry run too: it ends as the real run does.
	dvmsg("apply").failed(t, exitFailure, "refused, nothing was changed", "--destructive", "max_age")
	dry := dvmsg("apply", "--dry-run").failed(t, exitFailure, "--destructive")
	require.Contains(t, dry.out, "destructive")
	require.Error(t, topology.Verify(t.Context(), js, maskinSet()))

	// Mended.
	dvmsg("apply", "--destructive", "--dry-run").ok(t)
	require.Error(t, topology.Verify(t.Context(), js, maskinSet()))
	require.Contains(t, dvmsg("apply", "--destructive").ok(t).out, "max_age")
	dvmsg("verify").ok(t)
}

func TestTopologyTellsAMissingForeignStreamFromAChange(t *testing.T) {
	t.Parallel()
	e := environment{envNATS: dvtest.Server(t).URL()}
	file := writeSet(t, plattformSet())
	r := decode[topologyResult](t, e.dvmsg(t, "topology", "diff", "--file", file, "--json").failed(t, exitFound))
	require.Equal(t, "missing", r.Findings[0].Kind)
	require.Equal(t, "stream DV_MASKIN_EVT", r.Findings[0].Object)
	e.dvmsg(t, "topology", "apply", "--file", file).failed(t, exitFailure, "DV_MASKIN_EVT", "it belongs to maskin")

	e.dvmsg(t, "topology", "apply", "--file", writeSet(t, maskinSet())).ok(t)
	e.dvmsg(t, "topology", "apply", "--file", file).ok(t)
	e.dvmsg(t, "topology", "verify", "--file", file).ok(t)
}

func TestTopologyReadsTheStandardInputAndWarns(t *testing.T) {
	t.Parallel()
	set := maskinSet()
	set.Streams[0].Rate = 100
	data, err := set.MarshalJSON()
	require.NoError(t, err)
	e := environment{envNATS: dvtest.Server(t).URL()}
	r := e.piped(t, string(data), "topology", "apply", "--file", "-").ok(t)
	require.Contains(t, r.out, "warning: stream DV_MASKIN_EVT is full after")
	got := decode[topologyVerifyResult](t, e.piped(t, string(data), "topology", "verify", "--json", "--file=-").ok(t))
	require.Len(t, got.Warnings, 1)
}
