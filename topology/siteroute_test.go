package topology_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

var install = subject.Must(subject.Cmd(subject.Plattform, "install"))

// sender is a service that sends commands to plattform, here and there.
func sender() topology.Set {
	return topology.Set{Service: subject.Sentral, Streams: []topology.Stream{topology.Commands(subject.Plattform, topology.Limits{})}}
}

func TestACommandGoesToTheLocalStreamOrToTheOneThatWaitsForTheSite(t *testing.T) {
	t.Parallel()
	set := twoSites().At("osl1", sender())
	require.NoError(t, set.Validate())
	for site, want := range map[string][2]string{
		"":     {"dv.plattform.cmd.install", "DV_PLATTFORM_CMD"},
		"osl1": {"dv.plattform.cmd.install", "DV_PLATTFORM_CMD"},
		"trd1": {"dv.xdc.trd1.plattform.cmd.install", "DV_PLATTFORM_CMD_TO_TRD1"},
	} {
		on, stream, err := set.StreamAt(site, install)
		require.NoError(t, err)
		require.Equal(t, want, [2]string{on.String(), stream.Name}, site)
	}
	undeclared := subject.Must(subject.Cmd(subject.Nett, "apply"))
	_, _, err := set.StreamAt("osl1", undeclared)
	_, ok := errors.AsType[*topology.UndeclaredError](err)
	require.True(t, ok, "%v", err)
}

// Who sends commands to a service at its own site has the stream in which those for
// another site wait, also where another service owns it.
func TestASenderHasTheStreamsOfTheFlowsThatItMayUse(t *testing.T) {
	t.Parallel()
	n := twoSites()
	sends := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Commands(subject.Plattform, topology.Limits{})}}
	set := n.At("osl1", sends)
	require.NoError(t, set.Validate())
	_, stream, err := set.StreamAt("trd1", install)
	require.NoError(t, err)
	require.Equal(t, subject.Sentral, stream.Owner)
	require.Empty(t, n.At("osl1", topology.Set{Service: subject.Plattform, Streams: sends.Streams}).Streams[1:], "who is commanded does not need it")
}

func TestACommandThatNoFlowTakesIsRefusedWithReasonAndRemedy(t *testing.T) {
	t.Parallel()
	n := twoSites()
	bare := n.At("osl1", topology.Set{Service: subject.Maskin})
	for name, c := range map[string]struct {
		set            topology.Set
		site           string
		reason, remedy string
	}{
		"no network":        {sender(), "trd1", "the Set has no Network", "make it with Network.At"},
		"unknown site":      {n.At("osl1", sender()), "bgo1", "no site of the Network has that name", "Network.Sites"},
		"no flow that way":  {n.At("trd1", sender()), "osl1", "no flow of such commands is declared", `add Flow{From: "trd1", To: "osl1", Cargo: CargoCommands, Service: plattform}`},
		"stream not listed": {bare, "trd1", "the stream of the flow is not in Set.Streams", "Network.StreamOf"},
	} {
		_, _, err := c.set.StreamAt(c.site, install)
		fault, ok := errors.AsType[*topology.NoFlowError](err)
		require.True(t, ok, "%s: %v", name, err)
		require.Equal(t, c.reason, fault.Reason, name)
		require.ErrorContains(t, err, c.remedy, name)
		require.ErrorContains(t, err, install.String(), name)
	}
	_, _, err := n.At("osl1", sender()).StreamAt("Trd1", install)
	require.ErrorContains(t, err, "upper-case letter")
}

// withTasks is twoSites with the task events both ways.
func withTasks() topology.Network {
	n := twoSites()
	n.Flows = append(n.Flows,
		topology.Flow{From: "osl1", To: "trd1", Cargo: topology.CargoTasks, Service: subject.Sentral},
		topology.Flow{From: "trd1", To: "osl1", Cargo: topology.CargoTasks, Service: subject.Sentral, Owner: subject.Maskin})
	return n
}

func TestTaskEventsOfAnotherSiteAreInACopyOfTheirOwn(t *testing.T) {
	t.Parallel()
	n := withTasks()
	require.NoError(t, n.Validate())
	there := n.StreamOf(n.Flows[3])
	require.Equal(t, "DV_TASK_EVT_FROM_OSL1", there.Name)
	require.Equal(t, topology.ClassTaskCopy, there.Class)
	cfg := there.Config()
	require.Empty(t, cfg.Subjects)
	require.Equal(t, "DV_TASK_EVT", cfg.Sources[0].Name)
	require.Equal(t, "dv.task.evt.>", cfg.Sources[0].SubjectTransforms[0].Destination)
	require.Equal(t, "task events from osl1 to trd1", n.Flows[3].String())

	// The destination's own task events are published into their stream as before.
	set := n.At("trd1", topology.Set{Service: subject.Sentral, Streams: []topology.Stream{topology.TaskEvents(subject.Sentral, topology.Limits{})}})
	require.NoError(t, set.Validate())
	stream, err := set.StreamFor(subject.Must(subject.TaskEvt("queued")))
	require.NoError(t, err)
	require.Equal(t, "DV_TASK_EVT", stream.Name)
	owned := n.At("osl1", topology.Set{Service: subject.Maskin}).Streams
	require.True(t, slices.ContainsFunc(owned, func(s topology.Stream) bool { return s.Name == "DV_TASK_EVT_FROM_TRD1" }), "the declared owner has it")

	n.Flows[3].Entities = []string{"created"}
	n.Flows = append(n.Flows, topology.Flow{From: "osl1", To: "trd1", Cargo: topology.CargoTasks, Service: subject.Nett})
	faults := siteFaults(n.Validate())
	require.Equal(t, topology.FaultDeclaration, faults["Network.Flows[3].Entities"])
	require.Equal(t, topology.FaultDeclaration, faults["Network.Flows[5]"], "both would need one stream")
}

func TestTwinsAreTheSameConsumerOnEachCopy(t *testing.T) {
	t.Parallel()
	n := withTasks()
	local := topology.Consumer{
		Durable: "plattform__from_maskin", Stream: topology.Events(subject.Maskin, topology.Limits{}),
		Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(), MaxAckPending: 7,
	}
	tasks := topology.Consumer{
		Durable: "plattform__tasks", Stream: topology.TaskEvents(subject.Sentral, topology.Limits{}),
		Filter: subject.TaskEvents(), Start: topology.StartFirst(),
	}
	for _, site := range []string{"osl1", "trd1"} {
		other := map[string]string{"osl1": "trd1", "trd1": "osl1"}[site]
		twins := append(n.Twins(site, local), n.Twins(site, tasks)...)
		require.Len(t, twins, 2)
		require.Equal(t, "plattform__from_maskin__"+other, twins[0].Durable)
		require.Equal(t, "plattform__tasks__"+other, twins[1].Durable)
		require.Equal(t, 7, twins[0].MaxAckPending)
		set := n.At(site, topology.Set{
			Service: subject.Plattform,
			Streams: []topology.Stream{
				local.Stream, tasks.Stream,
				topology.DeadLetters(subject.Plattform, topology.Limits{}), topology.DeadLetterOps(subject.Plattform, topology.Limits{}),
			},
			Consumers: append([]topology.Consumer{local, tasks}, twins...),
		})
		require.NoError(t, set.Validate(), "the copies are in the set, also of chosen entities")
	}

	narrow := local
	narrow.Filter = subject.MustFilter(subject.EntityEvents(subject.Maskin, "disk"))
	require.Empty(t, n.Twins("osl1", narrow), "the copy has servers and racks only")
	require.Len(t, n.Twins("trd1", narrow), 1)
	narrow.Stream = topology.Commands(subject.Maskin, topology.Limits{})
	require.Empty(t, n.Twins("trd1", narrow), "commands arrive beside the local ones")
	local.Start = topology.StartAtSequence(7)
	require.True(t, n.Twins("trd1", local)[0].Start.IsZero(), "a sequence is of one stream")
}

func TestACopyNamesTheSitesOfAllSourcesOfOneName(t *testing.T) {
	t.Parallel()
	n := topology.Network{
		Sites: []topology.Site{{Name: "osl1", Domain: "osl1", Accepts: []string{"a:1"}}, {Name: "trd1", Domain: "trd1"}, {Name: "bgo1", Domain: "bgo1"}},
		Flows: []topology.Flow{
			{From: "trd1", To: "osl1", Cargo: topology.CargoCommands, Service: subject.Maskin},
			{From: "bgo1", To: "osl1", Cargo: topology.CargoCommands, Service: subject.Maskin},
		},
	}
	require.NoError(t, n.Validate())
	s := n.Commands("osl1", subject.Maskin, topology.Limits{})
	require.Equal(t, []string{"trd1", "bgo1"}, s.SourceSites("DV_MASKIN_CMD_TO_OSL1"))
	require.Empty(t, s.SourceSites("DV_MASKIN_CMD"))
}
