package topology

import "fmt"

// SiteFault is what kind of mistake in sites or flows was found.
type SiteFault string

// The faults.
const (
	// FaultDeclaration: a name, an address or an owner is missing or wrong.
	FaultDeclaration SiteFault = "declaration"
	// FaultLoop: messages would come back to where they come from. The server
	// does not notice loops between domains (measured: 2 messages became 58,708 in
	// 3 s).
	FaultLoop SiteFault = "loop"
	// FaultBothDirections: a stream would take from another site the subjects
	// that it holds itself, so that a flow the other way makes a loop.
	FaultBothDirections SiteFault = "both_directions"
	// FaultLeak: messages, or requests, would cross the link outside of a flow.
	FaultLeak SiteFault = "leak"
	// FaultNoDomain: without a domain of its own a site cannot be told from
	// another one.
	FaultNoDomain SiteFault = "no_domain"
	// FaultDenyList: a leafnode connection does not deny the platform's subjects,
	// so that one publish is stored at both sites, and either may acknowledge it
	// (measured).
	FaultDenyList SiteFault = "deny_list"
	// FaultFlowControl: the user of a leafnode connection may not use flow
	// control, so that a flow stands still after about 2 MB, silently (measured).
	FaultFlowControl SiteFault = "flow_control"
	// FaultAllowList: the user of a leafnode connection lacks a right that a flow
	// needs.
	FaultAllowList SiteFault = "allow_list"
)

// SiteError is a fault of sites, flows or a server's configuration, found without
// a server.
type SiteError struct {
	Fault  SiteFault
	Field  string // as in "Network.Flows[0].To", or the path in a server's configuration
	Reason string // what is wrong
	Remedy string // what to do
}

// Error names the field, the reason and the remedy.
func (e *SiteError) Error() string {
	return fmt.Sprintf("topology: %s: %s; %s", e.Field, e.Reason, e.Remedy)
}

func (f *faults) site(fault SiteFault, field, remedy, format string, args ...any) {
	*f = append(*f, &SiteError{Fault: fault, Field: field, Reason: fmt.Sprintf(format, args...), Remedy: remedy})
}
