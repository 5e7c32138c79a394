// Package maskinevents is what the service maskin promises the platform, in the
// release that knows both versions of its event.
package maskinevents

import (
	"fmt"
	"strings"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// ServerProvisionedV1 says that a server is there. It stays as it was: messages of
// version 1 lie in streams and among dead letters.
type ServerProvisionedV1 struct {
	Hostname string `json:"hostname"` // "web-1.osl.example"
}

// ServerProvisionedV2 has the host apart from its domain.
type ServerProvisionedV2 struct {
	Host   string `json:"host"`
	Domain string `json:"domain"`
}

// FirstServerProvisioned is version 1, for those who still send or read it.
var FirstServerProvisioned = envelope.MustEvent[ServerProvisionedV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
})

// ServerProvisioned is version 2. Whoever handles it receives version 1, too.
var ServerProvisioned = envelope.MustEvent(envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 2,
}, envelope.Upcast(FirstServerProvisioned, func(old ServerProvisionedV1) (ServerProvisionedV2, error) {
	host, domain, ok := strings.Cut(old.Hostname, ".")
	if !ok {
		return ServerProvisionedV2{}, fmt.Errorf("the hostname has no domain")
	}
	return ServerProvisionedV2{Host: host, Domain: domain}, nil
}))

// Catalogue is all of it. Version 1 is listed until no instance of maskin sends it.
var Catalogue = contract.MustNew(subject.Maskin,
	contract.Produces(FirstServerProvisioned, ServerProvisioned),
)
