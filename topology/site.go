package topology

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"codeberg.org/dataverket/messaging/subject"
)

// Network is the platform's sites and what flows between them. Each site has
// its own NATS and JetStream, in a domain of its own, and works alone while the
// link is down; nothing crosses the link but the flows. It is a value, one for
// the whole platform; the zero Network is a platform of one site.
type Network struct {
	// Sites are all sites. One of them accepts leafnode connections, the others
	// dial it.
	Sites []Site

	// Flows are what crosses the links.
	Flows []Flow
}

// Site is one datacenter.
type Site struct {
	// Name is a token as in a subject, at most 32 bytes: "osl1". It stands in the
	// header Dv-Site and in the names of streams.
	Name string

	// Domain is the site's JetStream domain: letters, digits, _ and -, at most 64
	// bytes. Required, and of no other site.
	Domain string

	// Accepts are the addresses, host:port, at which the site's servers accept
	// leafnode connections, one for each server. Empty: the site dials the one
	// that has some.
	Accepts []string
}

// Cargo is what a flow carries.
type Cargo string

// The kinds of cargo.
const (
	// CargoEvents: the events of a service, all or those of chosen entities. They
	// arrive in DV_<SERVICE>_EVT_FROM_<SITE>, on the subjects that they have.
	CargoEvents Cargo = "events"
	// CargoCommands: the commands to a service that are addressed to the
	// destination. They wait in DV_<SERVICE>_CMD_TO_<SITE> of the origin and arrive
	// in DV_<SERVICE>_CMD, beside the commands of the destination itself.
	CargoCommands Cargo = "commands"
	// CargoTasks: all task events. They arrive in DV_TASK_EVT_FROM_<SITE>, on the
	// subjects that they have. With it whoever sent a command to the site sees what
	// becomes of it, and with one the other way the worker hears of a request to
	// cancel.
	CargoTasks Cargo = "tasks"
)

// Flow is one direction of one kind of message of one service.
type Flow struct {
	From  string // the name of the site of origin
	To    string // the name of the destination
	Cargo Cargo

	// Service is whose events they are, or who is commanded; of task events, who owns
	// their stream.
	Service subject.Service

	// Entities choose events. Default: all. Commands and task events have none.
	Entities []string

	// Owner creates the stream that the flow needs: the copy at the destination,
	// or the stream of waiting commands at the origin. It must run there.
	// Default: Service.
	Owner subject.Service

	// Limits are those of that stream.
	Limits Limits
}

const (
	maxSite   = subject.MaxSite
	maxDomain = 64
)

var (
	siteName   = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	domainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)
)

// Site returns the site of that name.
func (n Network) Site(name string) (Site, bool) {
	at := slices.IndexFunc(n.Sites, func(s Site) bool { return s.Name == name })
	if at < 0 {
		return Site{}, false
	}
	return n.Sites[at], true
}

// hub is the site that accepts connections.
func (n Network) hub() (Site, bool) {
	at := slices.IndexFunc(n.Sites, func(s Site) bool { return len(s.Accepts) > 0 })
	if at < 0 {
		return Site{}, false
	}
	return n.Sites[at], true
}

// owner is who creates the flow's stream.
func (f Flow) owner() subject.Service {
	if f.Owner.Valid() {
		return f.Owner
	}
	return f.Service
}

// String names the flow for people: "events of maskin from osl1 to trd1".
func (f Flow) String() string {
	of := "of"
	switch f.Cargo {
	case CargoCommands:
		of = "to"
	case CargoTasks:
		return fmt.Sprintf("task events from %s to %s", f.From, f.To)
	}
	return fmt.Sprintf("%s %s %s from %s to %s", f.Cargo, of, f.Service, f.From, f.To)
}

// streamSite is the site that has the stream of [Network.StreamOf].
func (f Flow) streamSite() string {
	if f.Cargo == CargoCommands {
		return f.From
	}
	return f.To
}

// StreamOf returns the stream that exists because of f: the copy at the
// destination of events, DV_<SERVICE>_EVT_FROM_<SITE> or DV_TASK_EVT_FROM_<SITE>, or
// the waiting commands at the origin, DV_<SERVICE>_CMD_TO_<SITE>. It does not
// validate.
func (n Network) StreamOf(f Flow) Stream {
	class, other := ClassEventCopy, f.From
	switch f.Cargo {
	case CargoCommands:
		class, other = ClassOutgoing, f.To
	case CargoTasks:
		class = ClassTaskCopy
	}
	age := DefaultEventAge
	if class == ClassOutgoing {
		age = DefaultCommandAge
	}
	s := newStream(f.Service, class, age, MaxMsgSize, f.Limits)
	s.Name, s.Site, s.Owner = SiteStreamName(f.Service, class, other), other, f.owner()
	if class.IsCopy() {
		s.Sources = n.sources(f)
	} else {
		s.Subjects = outgoingSpace(f.Service, other)
	}
	return s
}

// Commands returns the command stream of a service at a site: that of Commands
// with, as sources, the commands that other sites send there.
func (n Network) Commands(site string, s subject.Service, l Limits) Stream {
	return n.Sourced(site, Commands(s, l))
}

// Sourced returns a command stream as it is at a site, with the flows that end
// in it as its sources. Another stream is returned as it is.
func (n Network) Sourced(site string, s Stream) Stream {
	if s.Class != ClassCommands {
		return s
	}
	s.Sources = nil
	for _, f := range n.Flows {
		if f.Cargo == CargoCommands && f.To == site && f.Service == s.Service {
			s.Sources = append(s.Sources, n.sources(f)...)
		}
	}
	return s
}

// At returns set as it is at a site: its command stream with the sources of
// the flows that end there, and the streams of flows that its service owns
// there, or needs: those that its consumers read, and where commands wait for a
// service at another site whose command stream here is in the set. Those of resent
// messages are there at the origin.
func (n Network) At(site string, set Set) Set {
	set.Site, set.Network = site, n
	set.Streams, set.Consumers = slices.Clone(set.Streams), slices.Clone(set.Consumers)
	for i, s := range set.Streams {
		set.Streams[i] = n.Sourced(site, s)
	}
	for i, c := range set.Consumers {
		set.Consumers[i].Stream = n.Sourced(site, c.Stream)
	}
	for _, f := range n.Flows {
		if s := n.StreamOf(f); set.needs(f, s) {
			set.Streams = append(set.Streams, s)
		}
	}
	for _, f := range n.Flows {
		if s := n.ResentOf(f); f.From == site && s.owner() == set.Service && !set.lists(s.Name) {
			set.Streams = append(set.Streams, s)
		}
	}
	return set
}

func (set Set) lists(stream string) bool {
	return slices.ContainsFunc(set.Streams, func(have Stream) bool { return have.Name == stream })
}

// needs reports whether s, the stream of f, is missing in the set.
func (set Set) needs(f Flow, s Stream) bool {
	switch {
	case f.streamSite() != set.Site || set.lists(s.Name):
		return false
	case s.owner() == set.Service, slices.ContainsFunc(set.Consumers, func(c Consumer) bool { return c.Stream.Name == s.Name }):
		return true
	}
	// Who sends commands to a service here may send them to the same one elsewhere.
	return f.Cargo == CargoCommands && f.Service != set.Service && set.lists(StreamName(f.Service, ClassCommands))
}

// source is where the destination of f takes it from.
func (n Network) source(f Flow) Source {
	from, _ := n.Site(f.From)
	src := Source{Site: f.From, Domain: from.Domain, Stream: StreamName(f.Service, ClassEvents)}
	switch {
	case f.Cargo == CargoCommands:
		src.Stream = SiteStreamName(f.Service, ClassOutgoing, f.To)
		src.Subjects = []Mapping{{
			From: outgoingPrefix(f.To) + "." + f.Service.String() + ".cmd.>",
			To:   "dv." + f.Service.String() + ".cmd.>",
		}}
	case f.Cargo == CargoTasks:
		src.Stream, src.Subjects = taskStream, []Mapping{{From: taskSpace, To: taskSpace}}
	case len(f.Entities) == 0:
		all := subject.EventsOf(f.Service).String()
		src.Subjects = []Mapping{{From: all, To: all}}
	}
	for _, entity := range f.Entities {
		of := "dv." + f.Service.String() + ".evt." + entity + ".>"
		src.Subjects = append(src.Subjects, Mapping{From: of, To: of})
	}
	return src
}

// outgoingPrefix begins the subjects of commands that wait for another site. No
// service has that name, so that no stream and no filter of a service holds
// them.
func outgoingPrefix(site string) string { return "dv.xdc." + site }

// taskSpace is all task events, as a mapping takes it.
const taskSpace = "dv.task.evt.>"

// outgoingSpace is the subjects of the commands to a service at another site;
// empty if either name is invalid.
func outgoingSpace(s subject.Service, site string) []subject.Filter {
	f, err := subject.CommandsAt(site, s)
	if err != nil {
		return nil
	}
	return []subject.Filter{f}
}

// SiteStreamName returns the name of a stream that exists because of another
// site: DV_<SERVICE>_EVT_FROM_<SITE> of class ClassEventCopy,
// DV_<SERVICE>_CMD_TO_<SITE> of class ClassOutgoing, DV_TASK_EVT_FROM_<SITE> of class
// ClassTaskCopy, whatever s is, and …_RESENT_TO_<SITE> of the classes of what is
// resent. It is "" for other classes and for invalid names.
func SiteStreamName(s subject.Service, c Class, site string) string {
	if !s.Valid() || !siteName.MatchString(site) {
		return ""
	}
	switch c {
	case ClassEventCopy:
		return StreamName(s, ClassEvents) + "_FROM_" + strings.ToUpper(site)
	case ClassOutgoing:
		return StreamName(s, ClassCommands) + "_TO_" + strings.ToUpper(site)
	case ClassTaskCopy:
		return taskStream + "_FROM_" + strings.ToUpper(site)
	case ClassResentEvents:
		return StreamName(s, ClassEvents) + "_RESENT_TO_" + strings.ToUpper(site)
	case ClassResentCommands:
		return StreamName(s, ClassCommands) + "_RESENT_TO_" + strings.ToUpper(site)
	case ClassResentTasks:
		return taskStream + "_RESENT_TO_" + strings.ToUpper(site)
	}
	return ""
}
