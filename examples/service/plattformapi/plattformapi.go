// Package plattformapi is what the service plattform promises the platform: the
// events it publishes, the command it accepts, the call it answers, and the streams
// they lie on. Whoever talks to plattform imports it, so it imports nothing of the
// service.
package plattformapi

import (
	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// NodeRegisteredV1 says that a server has become a node. The resource is the server.
type NodeRegisteredV1 struct {
	Hostname string `json:"hostname"`
	Site     string `json:"site"`
}

// NodeDrainedV1 says that nothing runs on a node any more.
type NodeDrainedV1 struct {
	// Moved is how many workloads ran there.
	Moved int `json:"moved"`
}

// DrainV1 asks for everything on a node to run elsewhere. It takes a while: the
// command has a task.
type DrainV1 struct {
	Reason string `json:"reason"`
}

// GetNodeV1 asks for a node of the caller's tenant.
type GetNodeV1 struct {
	ID string `json:"id"`
}

// NodeV1 is a node as callers see it.
type NodeV1 struct {
	ID       string `json:"id"`
	Hostname string `json:"hostname"`
	Size     string `json:"size"`
	State    string `json:"state"` // ready or drained
}

// NodeRegistered is the event dv.plattform.evt.node.registered.
var NodeRegistered = envelope.MustEvent[NodeRegisteredV1](envelope.EventSpec{
	Service: subject.Plattform, Entity: "node", Verb: "registered", Version: 1,
})

// NodeDrained is the event dv.plattform.evt.node.drained.
var NodeDrained = envelope.MustEvent[NodeDrainedV1](envelope.EventSpec{
	Service: subject.Plattform, Entity: "node", Verb: "drained", Version: 1,
})

// Drain is the command dv.plattform.cmd.drain.
var Drain = envelope.MustCommand[DrainV1](envelope.CommandSpec{
	Service: subject.Plattform, Entity: "node", Action: "drain", Version: 1,
})

// GetNode is the call dv.rpc.plattform.get_node.
var GetNode = rpc.MustOperation[GetNodeV1, NodeV1](rpc.Spec{
	Service: subject.Plattform, Name: "get_node", Version: 1,
})

// Catalogue is what contracts.lock.json keeps from changing silently.
var Catalogue = contract.MustNew(subject.Plattform,
	contract.Produces(NodeRegistered, NodeDrained),
	contract.Handles(Drain),
)

// Events is the stream DV_PLATTFORM_EVT.
func Events() topology.Stream { return topology.Events(subject.Plattform, topology.Limits{}) }

// Commands is the stream DV_PLATTFORM_CMD.
func Commands() topology.Stream { return topology.Commands(subject.Plattform, topology.Limits{}) }
