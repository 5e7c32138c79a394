package topology

import (
	"cmp"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/subject"
)

// Defaults of a stream of resent messages. What is in it is on its way: the
// destination takes it at once, or asks again.
const (
	DefaultResentAge   = time.Hour // how long it is kept
	DefaultResentBytes = 256 << 20 // 256 MiB

	// ResentDuplicates is its duplicate window. It makes one of what two watchers
	// ask for in the same moment, and lets what did not arrive be sent again soon.
	ResentDuplicates = 10 * time.Second
)

// ResentOf returns the stream of what is sent again in f, at its origin:
// DV_<SERVICE>_EVT_RESENT_TO_<SITE>, DV_<SERVICE>_CMD_RESENT_TO_<SITE> or
// DV_TASK_EVT_RESENT_TO_<SITE>. The destination takes from it as from the origin's own
// stream, on the same subjects. It exists because a source that was rolled back to an
// earlier state gives out its sequences again, and what has one of those never comes
// by itself.
//
// Its owner at the origin is the service whose events they are, or that has the task
// events, and of commands who sends them. It has the replicas of the flow and limits
// of its own. ResentOf does not validate.
func (n Network) ResentOf(f Flow) Stream {
	class, owner := ClassResentEvents, f.Service
	switch f.Cargo {
	case CargoCommands:
		class, owner = ClassResentCommands, f.owner()
	case CargoTasks:
		class = ClassResentTasks
	}
	s := newStream(f.Service, class, DefaultResentAge, MaxMsgSize, Limits{
		Replicas: cmp.Or(f.Limits.Replicas, DefaultReplicas), MaxBytes: DefaultResentBytes,
	})
	s.Name, s.Site, s.Owner = SiteStreamName(f.Service, class, f.To), f.To, owner
	s.Subjects, s.Duplicates = resentSpace(f.Service, class, f.To), ResentDuplicates
	return s
}

// OriginOf returns the name of the stream at the origin in which f begins:
// DV_<SERVICE>_EVT of events, DV_TASK_EVT of task events, DV_<SERVICE>_CMD_TO_<SITE>
// of commands.
func (n Network) OriginOf(f Flow) string { return n.source(f).Stream }

// sources are all that the destination of f takes: what was published, and what
// was resent.
func (n Network) sources(f Flow) []Source {
	src := n.source(f)
	again := Source{Site: src.Site, Domain: src.Domain, Stream: n.ResentOf(f).Name}
	for _, m := range src.Subjects {
		again.Subjects = append(again.Subjects, Mapping{From: resentSubject(f.To, m.To), To: m.To})
	}
	return []Source{src, again}
}

// ResentSubject returns the subject on which a message of f is sent again, from
// the one that it has at the origin; "" for one that is not of f.
func (n Network) ResentSubject(f Flow, at string) string {
	published, err := subject.ParseFilter(at)
	if err != nil {
		return ""
	}
	for _, m := range n.source(f).Subjects {
		from, err := subject.ParseFilter(m.From)
		if err == nil && from.Covers(published) {
			arrives := strings.TrimSuffix(m.To, ">") + strings.TrimPrefix(at, strings.TrimSuffix(m.From, ">"))
			return resentSubject(f.To, arrives)
		}
	}
	return ""
}

// resentSubject is where a message that arrives on a subject, or on those of a
// filter, is sent again.
func resentSubject(site, arrives string) string {
	return "dv.xdr." + site + strings.TrimPrefix(arrives, "dv")
}

// resentSpace is the subjects of what is resent to another site; empty if either
// name is invalid. No service is called xdr, so that no other stream and no
// filter of a service holds them.
func resentSpace(s subject.Service, c Class, site string) []subject.Filter {
	arrives := "dv." + s.String() + ".evt.>"
	switch c {
	case ClassResentCommands:
		arrives = "dv." + s.String() + ".cmd.*"
	case ClassResentTasks:
		arrives = subject.TaskEvents().String()
	}
	f, err := subject.ParseFilter(resentSubject(site, arrives))
	if err != nil || !s.Valid() || !siteName.MatchString(site) {
		return nil
	}
	return []subject.Filter{f}
}
