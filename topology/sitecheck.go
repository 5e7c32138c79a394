package topology

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"regexp"
	"strings"

	"codeberg.org/dataverket/messaging/subject"
)

// Validate returns all faults of the network at once, joined, each a *SiteError,
// or nil. It needs no server.
//
// No valid network has a loop: a flow begins in a stream that has no sources (a
// service's own events, or commands that wait), and ends in one where no flow
// begins (a copy, or a service's own commands).
func (n Network) Validate() error {
	var f faults
	n.validateSites(&f)
	for i := range n.Flows {
		n.validateFlow(&f, i)
	}
	return errors.Join(f...)
}

func (n Network) validateSites(f *faults) {
	accepting := 0
	for i, s := range n.Sites {
		field := siteField(i, s)
		if _, err := subject.CmdAt(s.Name, subject.Sentral, "any"); err != nil && siteName.MatchString(s.Name) && len(s.Name) <= maxSite {
			f.site(FaultDeclaration, field+".Name", "use a name like osl1", "%.40q is a word of the platform's subjects, which no site may have for its name", s.Name)
		}
		if !siteName.MatchString(s.Name) || len(s.Name) > maxSite {
			f.site(FaultDeclaration, field+".Name", "use a token like osl1 of at most 32 bytes", "%.40q is not a letter a to z followed by letters, digits and _", s.Name)
		}
		switch {
		case s.Domain == "":
			f.site(FaultNoDomain, field+".Domain", "give the site a JetStream domain of its own", "is empty; both sites would answer one request, and nobody could tell which of them stored a message")
		case !domainName.MatchString(s.Domain) || len(s.Domain) > maxDomain:
			f.site(FaultDeclaration, field+".Domain", "use at most 64 letters, digits, _ and -", "%.80q is no domain that NATS takes", s.Domain)
		}
		for _, address := range s.Accepts {
			if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" || strings.ContainsAny(address, "\"\\ \n") {
				f.site(FaultDeclaration, field+".Accepts", "write host:port", "%.80q is no address", address)
			}
		}
		if len(s.Accepts) > 0 {
			accepting++
		}
		for _, other := range n.Sites[:i] {
			if other.Name == s.Name {
				f.site(FaultDeclaration, field+".Name", "remove one", "is listed twice")
			}
			if other.Domain == s.Domain && s.Domain != "" {
				f.site(FaultLeak, field+".Domain", "give each site a domain of its own", "is the domain of %s too; a request to one would reach both", other.Name)
			}
		}
	}
	if len(n.Sites) > 1 && accepting != 1 {
		f.site(FaultDeclaration, "Network.Sites", "give Accepts to one site, which all others dial",
			"%d sites accept connections; with none there is no link, with several there are ways around", accepting)
	}
	if len(n.Sites) == 0 && len(n.Flows) > 0 {
		f.site(FaultDeclaration, "Network.Sites", "list the sites of the flows", "is empty")
	}
}

func siteField(i int, s Site) string {
	if s.Name == "" {
		return fmt.Sprintf("Network.Sites[%d]", i)
	}
	return "Network.Sites[" + s.Name + "]"
}

func (n Network) validateFlow(f *faults, i int) {
	flow, field := n.Flows[i], fmt.Sprintf("Network.Flows[%d]", i)
	from, found := n.Site(flow.From)
	if !found {
		f.site(FaultDeclaration, field+".From", "use the name of a site of Network.Sites", "%.40q is no site", flow.From)
	}
	to, there := n.Site(flow.To)
	if !there {
		f.site(FaultDeclaration, field+".To", "use the name of a site of Network.Sites", "%.40q is no site", flow.To)
	}
	switch {
	case found && flow.From == flow.To:
		f.site(FaultLoop, field+".To", "name another site, or remove the flow", "%s begins and ends at %s", flow.Cargo, flow.From)
	case found && there && len(from.Accepts) == 0 && len(to.Accepts) == 0:
		f.site(FaultDeclaration, field, "let one of them be the site that accepts connections", "%s and %s both dial; there is no link between them", flow.From, flow.To)
	}
	if !flow.Service.Valid() {
		f.site(FaultDeclaration, field+".Service", "use a constant of package subject", "is not a known service")
	}
	if flow.Owner != 0 && !flow.Owner.Valid() {
		f.site(FaultDeclaration, field+".Owner", "use a constant of package subject, or leave it", "is not a known service")
	}
	n.validateCargo(f, field, flow)
	for _, other := range n.Flows[:i] {
		same := other.Service == flow.Service || flow.Cargo == CargoTasks
		if other.From == flow.From && other.To == flow.To && other.Cargo == flow.Cargo && same {
			f.site(FaultDeclaration, field, "declare one flow with all its entities", "%s are declared twice; both need the stream %s", flow, n.StreamOf(flow).Name)
		}
	}
}

func (n Network) validateCargo(f *faults, field string, flow Flow) {
	switch {
	case flow.Cargo != CargoEvents && flow.Cargo != CargoCommands && flow.Cargo != CargoTasks:
		f.site(FaultDeclaration, field+".Cargo", "use CargoEvents, CargoCommands or CargoTasks", "%.40q is no cargo", flow.Cargo)
	case flow.Cargo != CargoEvents && len(flow.Entities) > 0:
		f.site(FaultDeclaration, field+".Entities", "leave it empty", "%s have no entities", flow.Cargo)
	}
	seen := map[string]bool{}
	for _, entity := range flow.Entities {
		if _, err := subject.EntityEvents(flow.Service, entity); err != nil && flow.Service.Valid() {
			f.site(FaultDeclaration, field+".Entities", "name an entity as in dv.<service>.evt.<entity>.<verb>", "%.80q is no entity", entity)
		}
		if seen[entity] {
			f.site(FaultDeclaration, field+".Entities", "remove one", "%.80q is listed twice", entity)
		}
		seen[entity] = true
	}
}

// validateNetwork holds the set's streams against its network.
func (set Set) validateNetwork(f *faults) {
	if err := set.Network.Validate(); err != nil {
		*f = append(*f, err)
	}
	_, known := set.Network.Site(set.Site)
	switch {
	case len(set.Network.Sites) > 0 && !known:
		f.site(FaultDeclaration, "Set.Site", "make the set of a site with Network.At", "%.40q is no site of Set.Network", set.Site)
	case len(set.Network.Sites) == 0 && set.Site != "":
		f.site(FaultDeclaration, "Set.Site", "make the set of a site with Network.At", "names a site, and Set.Network is empty")
	}
	for i, s := range set.Streams {
		s.validateSources(f, streamField(i, s))
		set.validateOfNetwork(f, streamField(i, s), s)
	}
}

// validateOfNetwork demands that what belongs to other sites is as the network
// makes it, so that all that read a network agree about it.
func (set Set) validateOfNetwork(f *faults, field string, s Stream) {
	if !s.Class.perSite() && s.Class != ClassCommands {
		return
	}
	n := set.Network
	if s.Class == ClassCommands {
		if want := n.Sourced(set.Site, s).Sources; !reflect.DeepEqual(want, s.Sources) {
			f.site(FaultDeclaration, field+".Sources", "make the set of a site with Network.At", "are not those of the flows that end in it")
		}
		return
	}
	for _, flow := range n.Flows {
		want, at := n.StreamOf(flow), flow.streamSite()
		if s.Class.resent() {
			want, at = n.ResentOf(flow), flow.From
		}
		if want.Name != s.Name || at != set.Site {
			continue
		}
		if !reflect.DeepEqual(want.Sources, s.Sources) || want.owner() != s.owner() {
			f.site(FaultDeclaration, field, "make it with Network.StreamOf or ResentOf", "has not the sources or the owner that its flow gives it")
		}
		return
	}
	f.site(FaultDeclaration, field, "declare the flow in the Network, or remove the stream", "no flow of this site has this stream")
}

// validateSources checks what a stream takes from other sites by itself.
func (s Stream) validateSources(f *faults, field string) {
	if s.Class.IsCopy() && len(s.Sources) != 2 {
		f.site(FaultDeclaration, field+".Sources", "make it with Network.StreamOf", "a copy has two sources, what was published and what was resent, not %d", len(s.Sources))
	}
	if s.Class.IsCopy() && len(s.Subjects) > 0 {
		f.site(FaultLeak, field+".Subjects", "leave it empty", "a copy would store what is published at this site, as if the other had published it")
	}
	if len(s.Sources) > 0 && !s.Class.IsCopy() && s.Class != ClassCommands {
		f.site(FaultBothDirections, field+".Sources", "let the flow end in a copy, made with Network.StreamOf",
			"it would take from another site into the subjects that it holds itself; a flow the other way makes a loop")
	}
	for i, src := range s.Sources {
		src.validate(f, fmt.Sprintf("%s.Sources[%d]", field, i), s)
	}
}

// copied is the names of streams that are copies. A site may have _FROM_ in its name.
var copied = regexp.MustCompile(`^DV_[A-Z0-9]+_EVT_FROM_`)

// validate checks one source of s.
func (src Source) validate(f *faults, field string, s Stream) {
	if src.Domain == "" {
		f.site(FaultNoDomain, field+".Domain", "name the JetStream domain of "+src.Site, "is empty; the stream would be looked for at this site")
	}
	if src.Stream == s.Name {
		f.site(FaultLoop, field+".Stream", "let the flow end in a copy, made with Network.StreamOf", "a stream of the same name feeds it; the two would feed each other")
	} else if copied.MatchString(src.Stream) {
		f.site(FaultLoop, field+".Stream", "take it from the site that published it", "%.80s is a copy itself; what it holds could come back to where it comes from", src.Stream)
	}
	if len(src.Subjects) == 0 {
		f.site(FaultLeak, field+".Subjects", "say what is taken, as Network.StreamOf does", "is empty; everything in the stream of the other site would come")
	}
	for _, m := range src.Subjects {
		s.validateMapping(f, field+".Subjects", m)
	}
}

func (s Stream) validateMapping(f *faults, field string, m Mapping) {
	from, err := subject.ParseFilter(m.From)
	to, toErr := subject.ParseFilter(m.To)
	if err != nil || toErr != nil {
		f.site(FaultDeclaration, field, "make the stream with a Network", "%.80q to %.80q is no mapping of the platform's subjects", m.From, m.To)
		return
	}
	if _, _, own := overlap([]subject.Filter{from}, s.Subjects); own {
		f.site(FaultBothDirections, field, "let the other site send on subjects of their own, as a flow of commands does",
			"%s is taken from the other site and published at this one; a flow the other way makes a loop", from)
	}
	space := []subject.Filter{subject.EventsOf(s.Service)}
	switch s.Class {
	case ClassCommands:
		space = []subject.Filter{subject.MustFilter(subject.ParseFilter("dv." + s.Service.String() + ".cmd.>"))}
	case ClassTaskCopy:
		space = []subject.Filter{subject.MustFilter(subject.ParseFilter(taskSpace))}
	}
	if s.Service.Valid() && !coveredBy(space, to) {
		f.site(FaultLeak, field, "make the stream with a Network", "%s is not of the subjects of class %s of %s", to, s.Class, s.Service)
	}
}
