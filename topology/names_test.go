package topology_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestStreamNamesAndSubjects(t *testing.T) {
	t.Parallel()
	l := topology.Limits{}
	for _, c := range []struct {
		stream   topology.Stream
		name     string
		subjects []string
	}{
		{topology.Commands(subject.Maskin, l), "DV_MASKIN_CMD", []string{"dv.maskin.cmd.*"}},
		{topology.Events(subject.Objekt, l), "DV_OBJEKT_EVT", []string{"dv.objekt.evt.>"}},
		{topology.TaskEvents(subject.Sentral, l), "DV_TASK_EVT", []string{"dv.task.evt.*"}},
		{topology.DeadLetters(subject.Nett, l), "DV_NETT_DLQ", []string{"dv.nett.dlq.>"}},
		{topology.DeadLetterOps(subject.Nett, l), "DV_NETT_DLQOPS", []string{"dv.nett.dlqmark.*", "dv.nett.replay.*"}},
	} {
		require.Equal(t, c.name, c.stream.Name)
		require.Equal(t, c.name, topology.StreamName(c.stream.Service, c.stream.Class))
		require.Equal(t, c.subjects, c.stream.Config().Subjects)
	}
	for _, s := range subject.Services() {
		for _, c := range topology.Classes() {
			require.True(t, c.Valid())
			if topology.StreamName(s, c) == "" {
				require.Regexp(t, `^DV_[A-Z]+_(EVT_FROM|CMD_TO|EVT_RESENT_TO|CMD_RESENT_TO)_OSL1$`, topology.SiteStreamName(s, c, "osl1"))
				continue
			}
			require.Regexp(t, `^DV_[A-Z]+_[A-Z]+$`, topology.StreamName(s, c))
		}
	}
	require.Empty(t, topology.StreamName(0, topology.ClassEvents))
	require.Empty(t, topology.StreamName(subject.Maskin, "other"))
	require.False(t, topology.Class("").Valid())
}

func TestDurableNames(t *testing.T) {
	t.Parallel()
	from := func(parts ...string) (string, error) {
		return topology.DurableFrom(subject.Plattform, subject.Maskin, parts...)
	}
	for want, got := range map[string]func() (string, error){
		"plattform__from_maskin":                        func() (string, error) { return from() },
		"plattform__from_maskin__shard0":                func() (string, error) { return from("shard0") },
		"plattform__from_maskin__server_view__s1":       func() (string, error) { return from("server_view", "s1") },
		"plattform__from_maskin__server_view_xc6e9d32a": func() (string, error) { return from("Server View") },
		"maskin__commands":                              func() (string, error) { return topology.DurableFor(subject.Maskin, "commands") },
		"maskin__commands__2":                           func() (string, error) { return topology.DurableFor(subject.Maskin, "commands", "2") },
	} {
		name, err := got()
		require.NoError(t, err)
		if strings.Contains(want, "_x") {
			require.Regexp(t, `^plattform__from_maskin__server_view_x[0-9a-f]{8}$`, name)
			continue
		}
		require.Equal(t, want, name)
	}
	for fault, err := range map[string]error{
		"context is not a known service":           second(topology.DurableFrom(subject.Plattform, 0)),
		"consuming service is not a known service": second(topology.DurableFrom(0, subject.Maskin)),
		"use DurableFrom":                          second(topology.DurableFor(subject.Maskin, "from_nett")),
		`the part ""`:                              second(topology.DurableFor(subject.Maskin, "")),
		`the part "replay"`:                        second(from("replay")),
		"at most 52":                               second(from(strings.Repeat("x", 60))),
	} {
		require.ErrorContains(t, err, fault)
		require.ErrorContains(t, err, "topology: name durable")
	}
	require.ErrorContains(t, second(from("a", "", "b")), `the part ""`)
}

func second(_ string, err error) error { return err }

// Names made of different parts must differ, or two consumers share a position
// and each loses what the other gets.
func TestDifferentPartsGiveDifferentDurables(t *testing.T) {
	t.Parallel()
	seen := map[string][]string{}
	for _, parts := range [][]string{
		{}, {"a"}, {"b"}, {"a", "b"}, {"a_b"}, {"a__b"}, {"a b"}, {"a-b"}, {"A_B"}, {"a_b_"}, {"_a_b"}, {"a.b"}, {"æ"}, {"ø"}, {"_"}, {"__"}, {" "}, {"A"}, {"replay "},
	} {
		name, err := topology.DurableFrom(subject.Plattform, subject.Maskin, parts...)
		require.NoError(t, err, parts)
		require.NotContains(t, seen, name, "%q and %q", parts, seen[name])
		seen[name] = parts
		again, err := topology.DurableFrom(subject.Plattform, subject.Maskin, parts...)
		require.NoError(t, err)
		require.Equal(t, name, again, "every replica computes the same")
	}
}

func FuzzDurableFor(f *testing.F) {
	f.Add("commands", "shard 1")
	f.Add("from_nett", "replay")
	f.Add("a__b", "")
	f.Add("Æ", "_")
	f.Fuzz(func(t *testing.T, purpose, part string) {
		name, err := topology.DurableFor(subject.Tjeneste, purpose, part)
		if err != nil {
			require.Empty(t, name)
			return
		}
		require.LessOrEqual(t, len(name), topology.MaxDurable)
		c := topology.Consumer{Durable: name}
		require.Equal(t, subject.Tjeneste, c.Service())
		require.False(t, c.ReplayFilter().IsZero(), "the replay durable has a subject")
		require.Equal(t, name+"__replay", c.ReplayDurable())
		_, err = topology.DurableFor(subject.Tjeneste, name)
		if err == nil { // a name used as a purpose is another name
			other, _ := topology.DurableFor(subject.Tjeneste, name)
			require.NotEqual(t, name, other)
		}
	})
}

func TestReplayDurable(t *testing.T) {
	t.Parallel()
	c := topology.Consumer{Durable: "plattform__from_maskin"}
	require.Equal(t, "plattform__from_maskin__replay", c.ReplayDurable())
	require.Equal(t, "DV_PLATTFORM_DLQOPS", c.ReplayStream())
	require.Equal(t, "dv.plattform.replay.plattform__from_maskin", c.ReplayFilter().String())
	require.Equal(t, jetstream.DeliverNewPolicy, c.ReplayConfig().DeliverPolicy, "what was replayed before it existed is history")
	nobody := topology.Consumer{Durable: "unknown__x"}
	require.Zero(t, nobody.Service())
	require.Empty(t, nobody.ReplayStream())
	require.True(t, nobody.ReplayFilter().IsZero())
}

func TestEphemeralNamesAreUniqueAndNobodysDurable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, purpose := range []string{"list letters", "", "plattform__from_maskin", strings.Repeat("long ", 50), "æøå", "a.b*>"} {
		for range 50 {
			name := topology.EphemeralName(purpose)
			require.Regexp(t, `^[a-z0-9_]{1,24}-[a-z2-7]{26}$`, name)
			require.False(t, seen[name])
			seen[name] = true
		}
	}
	require.True(t, strings.HasPrefix(topology.EphemeralName("List letters!"), "list_letters-"))
}

func TestStartsSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	require.True(t, topology.Start{}.IsZero())
	require.Equal(t, "undeclared", topology.Start{}.String())
	require.Equal(t, "first", topology.StartFirst().String())
	require.Equal(t, "new", topology.StartNew().String())
	require.Equal(t, "sequence 7", topology.StartAtSequence(7).String())
}
