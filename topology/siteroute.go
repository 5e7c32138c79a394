package topology

import (
	"fmt"
	"slices"

	"codeberg.org/dataverket/messaging/subject"
)

// StreamAt returns where a command on s is published so that its service at a site
// gets it: the stream, and the subject that it has there. For the set's own site, and
// for "", that is what [Set.StreamFor] says, with s itself; for another one it is
// where commands wait for that site. The error is an *UndeclaredError or a
// *NoFlowError.
func (set Set) StreamAt(site string, s subject.Subject) (subject.Subject, Stream, error) {
	if site == "" || site == set.Site {
		stream, err := set.StreamFor(s)
		return s, stream, err
	}
	there, err := subject.CmdAt(site, s.Service(), s.Action())
	if err != nil {
		return subject.Subject{}, Stream{}, err
	}
	if reason, remedy := set.flowFault(site, s); reason != "" {
		return subject.Subject{}, Stream{}, &NoFlowError{Subject: s, From: set.Site, To: site, Reason: reason, Remedy: remedy}
	}
	if stream, err := set.StreamFor(there); err == nil {
		return there, stream, nil
	}
	return subject.Subject{}, Stream{}, &NoFlowError{
		Subject: s, From: set.Site, To: site, Reason: "the stream of the flow is not in Set.Streams",
		Remedy: fmt.Sprintf("list Commands of %s before Network.At, or Network.StreamOf of the flow, so that Verify knows it", s.Service()),
	}
}

// flowFault returns why no flow takes s from the set's site to another one, and what
// to do; "" if one does.
func (set Set) flowFault(to string, s subject.Subject) (reason, remedy string) {
	n := set.Network
	_, known := n.Site(to)
	switch {
	case len(n.Sites) == 0:
		return "the Set has no Network", "make it with Network.At, or leave ToSite out on a platform of one site"
	case !known:
		return "no site of the Network has that name", "correct the name, or add the site to Network.Sites"
	case !slices.ContainsFunc(n.Flows, func(f Flow) bool {
		return f.Cargo == CargoCommands && f.From == set.Site && f.To == to && f.Service == s.Service()
	}):
		return "no flow of such commands is declared", fmt.Sprintf(
			"add Flow{From: %q, To: %q, Cargo: CargoCommands, Service: %s} to Network.Flows, and let both sites apply it", set.Site, to, s.Service())
	}
	return "", ""
}

// NoFlowError says that a command cannot be sent to a site, because nothing that is
// declared takes it there.
type NoFlowError struct {
	Subject  subject.Subject // of the command
	From, To string          // the sites
	Reason   string          // what is wrong
	Remedy   string          // what to do
}

// Error names the command, both sites, the reason and the remedy.
func (e *NoFlowError) Error() string {
	return fmt.Sprintf("topology: send %s from site %q to site %.40q: %s; %s", e.Subject, e.From, e.To, e.Reason, e.Remedy)
}
