package topology

import (
	"slices"
	"strings"

	"codeberg.org/dataverket/messaging/subject"
)

// Class is what kind of messages a stream holds. Each service has at most one
// stream of each class, and of the last six one for each other site, and no
// stream mixes classes or belongs to a tenant (requirement T2).
type Class string

// The classes.
const (
	// ClassCommands: DV_<SERVICE>_CMD with dv.<service>.cmd.*, kept for 14 days.
	ClassCommands Class = "cmd"
	// ClassEvents: DV_<SERVICE>_EVT with dv.<service>.evt.>, kept for 7 days.
	ClassEvents Class = "evt"
	// ClassTaskEvents: DV_TASK_EVT with dv.task.evt.*, kept for 7 days. There
	// is one in the platform, owned by the service that its declaration names.
	ClassTaskEvents Class = "task"
	// ClassDeadLetters: DV_<SERVICE>_DLQ with dv.<service>.dlq.>, the letters
	// of the consuming service, without age.
	ClassDeadLetters Class = "dlq"
	// ClassDeadLetterOps: DV_<SERVICE>_DLQOPS with dv.<service>.dlqmark.* and
	// dv.<service>.replay.*, without age. It is apart from the letters so that
	// a full letter stream never locks the operator out.
	ClassDeadLetterOps Class = "dlqops"
	// ClassEventCopy: DV_<SERVICE>_EVT_FROM_<SITE>, the events of a service at
	// another site, kept for 7 days. It takes nothing that is published here.
	ClassEventCopy Class = "evtcopy"
	// ClassOutgoing: DV_<SERVICE>_CMD_TO_<SITE> with dv.xdc.<site>.<service>.cmd.*,
	// the commands that another site fetches, kept for 14 days.
	ClassOutgoing Class = "cmdout"
	// ClassTaskCopy: DV_TASK_EVT_FROM_<SITE>, the task events of another site, kept
	// for 7 days. It takes nothing that is published here.
	ClassTaskCopy Class = "taskcopy"
	// ClassResentEvents: DV_<SERVICE>_EVT_RESENT_TO_<SITE> with
	// dv.xdr.<site>.<service>.evt.>, the events that another site lacked and asked
	// for again, kept for an hour. Its copy takes them from here too.
	ClassResentEvents Class = "evtresent"
	// ClassResentCommands: DV_<SERVICE>_CMD_RESENT_TO_<SITE> with
	// dv.xdr.<site>.<service>.cmd.*, the same of commands.
	ClassResentCommands Class = "cmdresent"
	// ClassResentTasks: DV_TASK_EVT_RESENT_TO_<SITE> with dv.xdr.<site>.task.evt.*,
	// the same of task events.
	ClassResentTasks Class = "taskresent"
)

// taskStream is the name of the one stream that no service is part of.
const taskStream = "DV_TASK_EVT"

// Classes returns all classes.
func Classes() []Class {
	return []Class{ClassCommands, ClassEvents, ClassTaskEvents, ClassDeadLetters, ClassDeadLetterOps, ClassEventCopy, ClassOutgoing, ClassTaskCopy,
		ClassResentEvents, ClassResentCommands, ClassResentTasks}
}

// Valid reports whether c is one of the classes.
func (c Class) Valid() bool {
	return slices.Contains(Classes(), c)
}

// dead reports whether messages of c wait for an operator, and so must not age
// out, and must be removable once they are dealt with.
func (c Class) dead() bool { return c == ClassDeadLetters || c == ClassDeadLetterOps }

// perSite reports whether there is one stream of c for each other site.
func (c Class) perSite() bool { return c.IsCopy() || c == ClassOutgoing || c.resent() }

// resent reports whether c holds what another site asked for again.
func (c Class) resent() bool {
	return c == ClassResentEvents || c == ClassResentCommands || c == ClassResentTasks
}

// IsCopy reports whether streams of c hold what was published at another site, and
// nothing else.
func (c Class) IsCopy() bool { return c == ClassEventCopy || c == ClassTaskCopy }

// StreamName returns the name of the stream of class c of service s. For
// ClassTaskEvents that is DV_TASK_EVT whatever s is. It is "" if either is
// invalid, and for the classes that SiteStreamName is for.
func StreamName(s subject.Service, c Class) string {
	switch {
	case !c.Valid() || !s.Valid() || c.perSite():
		return ""
	case c == ClassTaskEvents:
		return taskStream
	}
	return "DV_" + strings.ToUpper(s.String()) + "_" + strings.ToUpper(string(c))
}

// space returns all subjects that a stream of class c of service s may hold.
func (c Class) space(s subject.Service) []subject.Filter {
	switch c {
	case ClassCommands:
		return []subject.Filter{subject.CommandsOf(s)}
	case ClassEvents:
		return []subject.Filter{subject.EventsOf(s)}
	case ClassTaskEvents:
		return []subject.Filter{subject.TaskEvents()}
	case ClassDeadLetters:
		return []subject.Filter{subject.DeadLettersOf(s)}
	case ClassDeadLetterOps:
		return []subject.Filter{subject.MarksOf(s), subject.ReplaysOf(s)}
	}
	return nil
}
