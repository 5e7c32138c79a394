package main

import (
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// The two sites, which are JetStream domains too. osl1 accepts the link, trd1 dials
// it.
const (
	osl1 = "osl1"
	trd1 = "trd1"
)

// flows are what crosses the link: maskin's events and the commands to it, both ways.
// They belong into the contract that all services share.
func flows(limits topology.Limits) (all []topology.Flow) {
	for _, cargo := range []topology.Cargo{topology.CargoEvents, topology.CargoCommands} {
		all = append(all,
			topology.Flow{From: osl1, To: trd1, Cargo: cargo, Service: subject.Maskin, Limits: limits},
			topology.Flow{From: trd1, To: osl1, Cargo: cargo, Service: subject.Maskin, Limits: limits},
		)
	}
	return all
}

// declared is what maskin has on the broker of a site. Network.At adds the streams of
// the flows that begin or end there, and Network.Twins what reads the copy of the
// other site's events: a durable like that of the own ones.
func declared(n topology.Network, site string, limits topology.Limits) topology.Set {
	commands, events := maskinevents.Commands(), maskinevents.Events()
	commands.Replicas, events.Replicas = limits.Replicas, limits.Replicas
	carried := topology.Consumer{
		Durable: "maskin__commands", Stream: commands, Filter: subject.CommandsOf(subject.Maskin),
		MaxAckPending: 500, Start: topology.StartFirst(), // many: the consumer keeps the order of each server
	}
	registered := topology.Consumer{
		Durable: "maskin__from_maskin", Stream: events, Filter: subject.EventsOf(subject.Maskin),
		MaxAckPending: 500, Start: topology.StartFirst(),
	}
	return n.At(site, topology.Set{
		Service: subject.Maskin,
		Streams: []topology.Stream{
			commands, events, topology.DeadLetters(subject.Maskin, limits), topology.DeadLetterOps(subject.Maskin, limits),
		},
		Consumers: append(n.Twins(site, registered), registered, carried),
	})
}
