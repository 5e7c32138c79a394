// Package maskinevents is what the service maskin promises the platform: the
// commands it accepts, the events it publishes, and the streams they lie on.
// Whoever talks to maskin imports it; the names on the wire are written here and
// nowhere else.
package maskinevents

import (
	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// ProvisionV1 asks for a server. The resource id is the server's.
type ProvisionV1 struct {
	Hostname string `json:"hostname"`
	Site     string `json:"site"`
	Size     string `json:"size"`
	// Revision counts the requests for this server, from 1. It is the order that
	// everybody who handles them can check.
	Revision int `json:"revision"`
}

// ResizeV1 asks for another size of a server.
type ResizeV1 struct {
	Size     string `json:"size"`
	Revision int    `json:"revision"`
}

// ServerProvisionedV1 says that a server is there.
type ServerProvisionedV1 struct {
	Hostname string `json:"hostname"`
	Site     string `json:"site"`
	Size     string `json:"size"`
	Revision int    `json:"revision"`
}

// ServerResizedV1 says that a server has another size.
type ServerResizedV1 struct {
	Size     string `json:"size"`
	Revision int    `json:"revision"`
}

// Provision is the command dv.maskin.cmd.provision.
var Provision = envelope.MustCommand[ProvisionV1](envelope.CommandSpec{
	Service: subject.Maskin, Entity: "server", Action: "provision", Version: 1,
})

// Resize is the command dv.maskin.cmd.resize.
var Resize = envelope.MustCommand[ResizeV1](envelope.CommandSpec{
	Service: subject.Maskin, Entity: "server", Action: "resize", Version: 1,
})

// ServerProvisioned is the event dv.maskin.evt.server.provisioned.
var ServerProvisioned = envelope.MustEvent[ServerProvisionedV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
})

// ServerResized is the event dv.maskin.evt.server.resized.
var ServerResized = envelope.MustEvent[ServerResizedV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "resized", Version: 1,
})

// Catalogue is all of it: what contracts.lock.json and the AsyncAPI document say.
var Catalogue = contract.MustNew(subject.Maskin,
	contract.Produces(ServerProvisioned, ServerResized),
	contract.Handles(Provision, Resize),
)

// Commands is the stream of maskin's commands, DV_MASKIN_CMD.
func Commands() topology.Stream { return topology.Commands(subject.Maskin, topology.Limits{}) }

// Events is the stream of maskin's events, DV_MASKIN_EVT.
func Events() topology.Stream { return topology.Events(subject.Maskin, topology.Limits{}) }
