package consumer_test

import (
	"context"
	"fmt"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// Local and remote messages come to one handler, which may tell them apart. Who wants
// the local events only declares no twin; who wants those of other sites only runs the
// twins alone.
func ExampleOn_remote() {
	route := consumer.On(install, func(_ context.Context, m envelope.Received[serverV1]) error {
		switch {
		case m.Remote && m.Envelope.DatacenterID != "" && m.Envelope.DatacenterID == m.Site:
			// An answer, and no silent skip: a command that nobody does has to be seen.
			return envelope.Permanent(fmt.Errorf("site %s asks for a resource of its own", m.Site))
		case m.Remote:
			fmt.Println("asked for by", m.Site)
		default:
			fmt.Println("asked for here")
		}
		return nil
	})

	network := topology.Network{
		Sites: []topology.Site{{Name: "osl1", Domain: "osl1", Accepts: []string{"nats.osl1.example:7422"}}, {Name: "trd1", Domain: "trd1"}},
		Flows: []topology.Flow{{From: "osl1", To: "trd1", Cargo: topology.CargoEvents, Service: subject.Maskin}},
	}
	local := topology.Consumer{
		Durable: "plattform__from_maskin", Stream: topology.Events(subject.Maskin, topology.Limits{}),
		Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(),
	}
	for _, twin := range network.Twins("trd1", local) {
		fmt.Println(twin.Durable, "reads", twin.Stream.Name)
	}
	_ = route
	// Output: plattform__from_maskin__osl1 reads DV_MASKIN_EVT_FROM_OSL1
}
