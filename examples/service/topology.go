package main

import (
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
	"codeberg.org/dataverket/messaging/examples/service/plattformapi"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// The durables are constant: their names, once created, are where the service has
// got to.
var (
	serversDurable = topology.Consumer{
		Durable: "plattform__from_maskin", Stream: maskinevents.Events(),
		Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(),
	}
	commandsDurable = topology.Consumer{
		Durable: "plattform__commands", Stream: plattformapi.Commands(),
		Filter: subject.CommandsOf(subject.Plattform), Start: topology.StartFirst(),
	}
	// cancelsDurable is how handlers hear that somebody changed his mind.
	cancelsDurable = topology.Consumer{
		Durable: "plattform__cancels", Stream: taskEvents(),
		Filter: subject.MustFilter(subject.ParseFilter("dv.task.evt.updated")), Start: topology.StartNew(),
	}
)

// taskEvents is the stream of the task events, which sentral owns.
func taskEvents() topology.Stream { return topology.TaskEvents(subject.Sentral, topology.Limits{}) }

// declared is everything on the broker that plattform needs. Ensure creates what is
// plattform's and verifies the rest.
func declared() topology.Set {
	return topology.Set{
		Service: subject.Plattform,
		Streams: []topology.Stream{
			plattformapi.Events(), plattformapi.Commands(),
			topology.DeadLetters(subject.Plattform, topology.Limits{}),
			topology.DeadLetterOps(subject.Plattform, topology.Limits{}),
			maskinevents.Events(), taskEvents(), // others': verified only
		},
		Consumers: []topology.Consumer{serversDurable, commandsDurable, cancelsDurable},
	}
}
