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

// flows are what crosses the link: maskin's events, both ways. They belong into the
// contract that all services share.
func flows(limits topology.Limits) []topology.Flow {
	return []topology.Flow{
		{From: osl1, To: trd1, Cargo: topology.CargoEvents, Service: subject.Maskin, Limits: limits},
		{From: trd1, To: osl1, Cargo: topology.CargoEvents, Service: subject.Maskin, Limits: limits},
	}
}

// declaration is what maskin has on the broker of a site.
type declaration struct {
	set           topology.Set
	events        topology.Stream   // the site's own
	copied        topology.Stream   // the other site's, here
	local, remote topology.Consumer // who reads them
}

// declare returns maskin's declaration at a site. The streams of the flows that end
// here are in it: Network.At adds them.
func declare(n topology.Network, site string, limits topology.Limits) declaration {
	d := declaration{events: maskinevents.Events()}
	d.events.Replicas = max(limits.Replicas, 1)
	for _, f := range n.Flows {
		if f.To == site && f.Cargo == topology.CargoEvents {
			d.copied = n.StreamOf(f)
			d.remote = reader("maskin__from_maskin__"+f.From, d.copied)
		}
	}
	d.local = reader("maskin__from_maskin", d.events)
	d.set = n.At(site, topology.Set{
		Service: subject.Maskin,
		Streams: []topology.Stream{
			d.events, topology.DeadLetters(subject.Maskin, limits), topology.DeadLetterOps(subject.Maskin, limits),
		},
		Consumers: []topology.Consumer{d.local, d.remote},
	})
	return d
}

// reader reads maskin's events from a stream, many at a time: the consumer keeps the
// order of each server.
func reader(durable string, from topology.Stream) topology.Consumer {
	return topology.Consumer{
		Durable: durable, Stream: from, Filter: subject.EventsOf(subject.Maskin),
		MaxAckPending: 500, Start: topology.StartFirst(),
	}
}
