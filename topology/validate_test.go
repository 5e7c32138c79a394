package topology_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestTheFixtureIsValid(t *testing.T) {
	t.Parallel()
	require.NoError(t, plattform().Validate())
	require.NoError(t, maskin().Validate())
	require.NoError(t, topology.Set{Service: subject.Maskin}.Validate(), "a service may have nothing yet")
}

// withStream returns the fixture with one stream changed, wherever it stands.
func withStream(name string, change func(*topology.Stream)) topology.Set {
	set := plattform()
	for i := range set.Streams {
		if set.Streams[i].Name == name {
			change(&set.Streams[i])
		}
	}
	for i := range set.Consumers {
		if set.Consumers[i].Stream.Name == name {
			change(&set.Consumers[i].Stream)
		}
	}
	return set
}

func withConsumer(change func(*topology.Consumer)) topology.Set {
	set := plattform()
	change(&set.Consumers[1])
	return set
}

func TestEachFaultIsRefusedAndItsNeighbourAccepted(t *testing.T) {
	t.Parallel()
	const evt, dlq = "DV_PLATTFORM_EVT", "DV_PLATTFORM_DLQ"
	stream := func(name string, change func(*topology.Stream)) topology.Set { return withStream(name, change) }
	for _, c := range []struct {
		field     string
		bad, good topology.Set
	}{
		{"Set.Service", topology.Set{}, topology.Set{Service: subject.Nett}},
		{"MaxBytes", stream(evt, func(s *topology.Stream) { s.MaxBytes = 1<<20 - 1 }), stream(evt, func(s *topology.Stream) { s.MaxBytes = 1 << 20 })},
		{"MaxBytes", stream(evt, func(s *topology.Stream) { s.MaxBytes, s.MaxMsgSize = 2<<20, 3<<20 }), stream(evt, func(s *topology.Stream) { s.MaxBytes, s.MaxMsgSize = 3<<20, 3<<20 })},
		{"MaxBytes", stream(evt, func(s *topology.Stream) { s.MaxBytes = -1 }), plattform()},
		{"MaxMsgs", stream(evt, func(s *topology.Stream) { s.MaxMsgs = -1 }), stream(evt, func(s *topology.Stream) { s.MaxMsgs = 1 })},
		{"MaxMsgSize", stream(evt, func(s *topology.Stream) { s.MaxMsgSize-- }), stream(evt, func(s *topology.Stream) { s.MaxMsgSize++ })},
		{"MaxMsgSize", stream(evt, func(s *topology.Stream) { s.MaxMsgSize = 8<<20 + 1 }), stream(evt, func(s *topology.Stream) { s.MaxMsgSize = 8 << 20 })},
		{"MaxMsgSize", stream(dlq, func(s *topology.Stream) { s.MaxMsgSize = topology.MaxMsgSize }), stream(dlq, func(s *topology.Stream) { s.MaxMsgSize = topology.MaxLetterSize })},
		{"Replicas", stream(evt, func(s *topology.Stream) { s.Replicas = 0 }), stream(evt, func(s *topology.Stream) { s.Replicas = 1 })},
		{"Replicas", stream(evt, func(s *topology.Stream) { s.Replicas = 6 }), stream(evt, func(s *topology.Stream) { s.Replicas = 5 })},
		{"Duplicates", stream(evt, func(s *topology.Stream) { s.Duplicates = 0 }), stream(evt, func(s *topology.Stream) { s.Duplicates = 100 * time.Millisecond })},
		{"Duplicates", stream(evt, func(s *topology.Stream) { s.Duplicates = time.Hour + 1 }), stream(evt, func(s *topology.Stream) { s.Duplicates = time.Hour })},
		{"MaxAge", stream(evt, func(s *topology.Stream) { s.MaxAge = 0 }), stream(evt, func(s *topology.Stream) { s.MaxAge = 2 * time.Minute })},
		{"MaxAge", stream(evt, func(s *topology.Stream) { s.MaxAge = 2*time.Minute - 1 }), plattform()},
		{"MaxAge", stream(dlq, func(s *topology.Stream) { s.MaxAge = time.Hour }), plattform()},
		{"DenyDelete", stream(dlq, func(s *topology.Stream) { s.DenyDelete = true }), stream(evt, func(s *topology.Stream) { s.DenyDelete = true })},
		{"Rate", stream(evt, func(s *topology.Stream) { s.Rate = -1 }), stream(evt, func(s *topology.Stream) { s.Rate = 1e9 })},
		{"Rate", stream(evt, func(s *topology.Stream) { s.Rate = math.NaN() }), plattform()},
		{"Rate", stream(evt, func(s *topology.Stream) { s.Rate = math.Inf(1) }), plattform()},
		{"Name", stream(evt, func(s *topology.Stream) { s.Name = "EVENTS" }), plattform()},
		{"Name", stream(evt, func(s *topology.Stream) { s.Name = "" }), plattform()},
		{"Service", stream(evt, func(s *topology.Stream) { s.Service = 0 }), plattform()},
		{"Class", stream(evt, func(s *topology.Stream) { s.Class = "kv" }), plattform()},
		{"Subjects", stream(evt, func(s *topology.Stream) { s.Subjects = nil }), plattform()},
		{"Subjects", stream(evt, func(s *topology.Stream) { s.Subjects = []subject.Filter{subject.EventsOf(subject.Nett)} }),
			stream(evt, func(s *topology.Stream) {
				s.Subjects = []subject.Filter{subject.MustFilter(subject.EntityEvents(subject.Plattform, "cluster"))}
			})},
		{"Subjects", stream(evt, func(s *topology.Stream) { s.Subjects = append(s.Subjects[:1:1], s.Subjects[0]) }), plattform()},
		{"Subjects", stream(evt, func(s *topology.Stream) { s.Subjects = []subject.Filter{{}} }), plattform()},

		{"Durable", withConsumer(func(c *topology.Consumer) { c.Durable = "" }), plattform()},
		{"Durable", withConsumer(func(c *topology.Consumer) { c.Durable = "plattform" }), plattform()},
		{"Durable", withConsumer(func(c *topology.Consumer) { c.Durable = "plattform__Events" }), withConsumer(func(c *topology.Consumer) { c.Durable = "plattform__events" })},
		{"Durable", withConsumer(func(c *topology.Consumer) { c.Durable = "plattform__x__replay" }), withConsumer(func(c *topology.Consumer) { c.Durable = "plattform__x__replays" })},
		{"Durable", withConsumer(func(c *topology.Consumer) { c.Durable = "nett__from_maskin" }), plattform()},
		{"Durable", withConsumer(func(c *topology.Consumer) { c.Durable = "plattform__from_nett" }), plattform()},
		{"Durable", withConsumer(func(c *topology.Consumer) { c.Durable = "plattform__from_bank" }), plattform()},
		{"Filter", withConsumer(func(c *topology.Consumer) { c.Filter = subject.Filter{} }), plattform()},
		{"Filter", withConsumer(func(c *topology.Consumer) { c.Filter = subject.EventsOf(subject.Nett) }),
			withConsumer(func(c *topology.Consumer) {
				c.Filter = subject.MustFilter(subject.VerbEvents(subject.Maskin, "provisioned"))
			})},
		{"Start", withConsumer(func(c *topology.Consumer) { c.Start = topology.Start{} }), plattform()},
		{"Start", withConsumer(func(c *topology.Consumer) { c.Start = topology.StartAtSequence(0) }), withConsumer(func(c *topology.Consumer) { c.Start = topology.StartAtSequence(1) })},
		{"Start", withConsumer(func(c *topology.Consumer) { c.Start = topology.StartAtTime(time.Time{}) }), withConsumer(func(c *topology.Consumer) { c.Start = topology.StartAtTime(time.Unix(0, 0)) })},
		{"AckWait", withConsumer(func(c *topology.Consumer) { c.AckWait = time.Millisecond }), withConsumer(func(c *topology.Consumer) { c.AckWait = 0 })},
		{"AckWait", withConsumer(func(c *topology.Consumer) { c.AckWait = 25 * time.Hour }), withConsumer(func(c *topology.Consumer) { c.AckWait = 24 * time.Hour })},
		{"MaxAckPending", withConsumer(func(c *topology.Consumer) { c.MaxAckPending = -1 }), withConsumer(func(c *topology.Consumer) { c.MaxAckPending = 0 })},
		{"MaxAckPending", withConsumer(func(c *topology.Consumer) { c.MaxAckPending = 10_001 }), withConsumer(func(c *topology.Consumer) { c.MaxAckPending = 10_000 })},
		{"Stream", withConsumer(func(c *topology.Consumer) { c.Stream.MaxAge *= 2 }), plattform()},
		{"Stream", withConsumer(func(c *topology.Consumer) { c.Stream = topology.Stream{} }), plattform()},
	} {
		require.ErrorContains(t, c.bad.Validate(), c.field+": ")
		require.ErrorContains(t, c.bad.Validate(), "topology: Set.")
		require.NoError(t, c.good.Validate(), c.field)
	}
}

func TestFaultsBetweenPartsAreRefused(t *testing.T) {
	t.Parallel()
	twice := plattform()
	twice.Streams = append(twice.Streams, twice.Streams[0])
	require.ErrorContains(t, twice.Validate(), "Set.Streams[DV_PLATTFORM_CMD]: is listed twice")

	twice = plattform()
	twice.Consumers = append(twice.Consumers, twice.Consumers[1])
	require.ErrorContains(t, twice.Validate(), "Set.Consumers[plattform__from_maskin]: is listed twice")

	unlisted := plattform()
	unlisted.Streams = unlisted.Streams[:4]
	require.ErrorContains(t, unlisted.Validate(), "DV_MASKIN_EVT is not in Set.Streams")

	for i, name := range map[int]string{2: "DV_PLATTFORM_DLQ is missing", 3: "DV_PLATTFORM_DLQOPS is missing"} {
		set := plattform()
		set.Streams = append(set.Streams[:i], set.Streams[i+1:]...)
		require.ErrorContains(t, set.Validate(), name)
	}

	// What overlaps on the server must have the same space, so one of the two
	// names is wrong as well; both are said.
	overlapping := plattform()
	other := overlapping.Streams[1]
	other.Name = "DV_PLATTFORM_EVT2"
	overlapping.Streams = append(overlapping.Streams, other)
	require.ErrorContains(t, overlapping.Validate(), "dv.plattform.evt.> overlaps with dv.plattform.evt.> of DV_PLATTFORM_EVT")
}

// A command done twice is a server ordered twice.
func TestOverlappingDurablesOnACommandStreamAreRefused(t *testing.T) {
	t.Parallel()
	with := func(filter subject.Filter) topology.Set {
		set := plattform()
		set.Consumers = append(set.Consumers, topology.Consumer{
			Durable: "plattform__more", Stream: set.Streams[0], Filter: filter, Start: topology.StartFirst(),
		})
		return set
	}
	restart := subject.Exactly(subject.Must(subject.Cmd(subject.Plattform, "restart")))
	overlap := asError[*topology.OverlapError](t, with(restart).Validate())
	require.Equal(t, &topology.OverlapError{Stream: "DV_PLATTFORM_CMD", Durable: "plattform__commands", Other: "plattform__more"}, overlap)

	apart := with(restart)
	apart.Consumers[0].Filter = subject.Exactly(subject.Must(subject.Cmd(subject.Plattform, "stop")))
	require.NoError(t, apart.Validate())

	// Of events everybody may have their own.
	events := plattform()
	events.Consumers = append(events.Consumers, events.Consumers[1])
	events.Consumers[2].Durable = "plattform__from_maskin__audit"
	require.NoError(t, events.Validate())
}

func TestCommandsToOthersAreNotOursToHandle(t *testing.T) {
	t.Parallel()
	set := plattform()
	foreign := topology.Commands(subject.Maskin, topology.Limits{})
	set.Streams = append(set.Streams, foreign)
	require.NoError(t, set.Validate(), "sending is what it is listed for")
	set.Consumers = append(set.Consumers, topology.Consumer{
		Durable: "plattform__from_maskin__cmd", Stream: foreign, Filter: subject.CommandsOf(subject.Maskin), Start: topology.StartFirst(),
	})
	require.ErrorContains(t, set.Validate(), "only that service may handle them")
}

func TestAllFaultsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	set := plattform()
	set.Service = 99
	set.Streams[0].Replicas = -1
	set.Streams[1].MaxBytes = 0
	set.Consumers[1].Start = topology.Start{}
	err := set.Validate()
	for _, field := range []string{
		"Set.Service", "Set.Streams[DV_PLATTFORM_CMD].Replicas", "Set.Streams[DV_PLATTFORM_EVT].MaxBytes", "Set.Consumers[plattform__from_maskin].Start",
	} {
		require.ErrorContains(t, err, "topology: "+field+": ")
	}
	fault := asError[*topology.FieldError](t, err)
	require.Equal(t, "Set.Service", fault.Field)
}

func TestLimitsOverrideTheDefaults(t *testing.T) {
	t.Parallel()
	s := topology.Events(subject.Maskin, topology.Limits{})
	require.Equal(t, 7*24*time.Hour, s.MaxAge)
	require.Equal(t, int64(10<<30), s.MaxBytes)
	require.Equal(t, 1, s.Replicas)
	require.Equal(t, int32(576<<10), s.MaxMsgSize)
	require.Equal(t, 2*time.Minute, s.Duplicates)
	require.Equal(t, int64(-1), s.Config().MaxMsgs)
	require.Equal(t, 14*24*time.Hour, topology.Commands(subject.Maskin, topology.Limits{}).MaxAge)
	require.Zero(t, topology.DeadLetters(subject.Maskin, topology.Limits{}).MaxAge)
	require.Zero(t, topology.DeadLetterOps(subject.Maskin, topology.Limits{}).MaxAge)

	l := topology.Limits{Replicas: 3, MaxBytes: 1 << 40, MaxMsgs: 5, MaxAge: time.Hour, Rate: 2}
	s = topology.Events(subject.Maskin, l)
	require.Equal(t, l, topology.Limits{Replicas: s.Replicas, MaxBytes: s.MaxBytes, MaxMsgs: s.MaxMsgs, MaxAge: s.MaxAge, Rate: s.Rate})
	require.Equal(t, int64(5), s.Config().MaxMsgs)
}
