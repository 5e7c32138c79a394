package subject

import (
	"errors"
	"strings"
)

// Cmd returns the subject of a command to service s: dv.<service>.cmd.<action>.
// The error joins one [*Error] per fault, as for all builders.
func Cmd(s Service, action string) (Subject, error) {
	return build(FamilyCommand, s, action)
}

// Evt returns the subject of an event of service s:
// dv.<service>.evt.<entity>.<verb>.
func Evt(s Service, entity, verb string) (Subject, error) {
	return build(FamilyEvent, s, entity, verb)
}

// CmdAt returns the subject on which a command to service s at another site waits
// until that site fetches it: dv.xdc.<site>.<service>.cmd.<action>. It arrives on
// that of [Cmd].
func CmdAt(site string, s Service, action string) (Subject, error) {
	err := check(FamilySiteCommand, s, []string{action})
	if fault := siteFault(site); fault != "" {
		err = errors.Join(newError("site", site, fault), err)
	}
	if err != nil {
		return Subject{}, err
	}
	head := siteHead(site, s)
	return Subject{text: head + action, tail: uint8(len(head)), family: FamilySiteCommand, service: s}, nil
}

// TaskEvt returns the subject of a task event: dv.task.evt.<verb>. Any verb that
// is a token is accepted: the decision names a minimum set, not a closed one.
func TaskEvt(verb string) (Subject, error) {
	return build(FamilyTaskEvent, 0, verb)
}

// RPC returns the subject of a call to service s: dv.rpc.<service>.<operation>.
func RPC(s Service, operation string) (Subject, error) {
	return build(FamilyRPC, s, operation)
}

// DLQ returns the subject of a dead letter of the consuming service:
// dv.<service>.dlq.<original> (requirement S5).
//
// original is any concrete NATS subject of at most [MaxOriginal] bytes, one that
// breaks the naming rules included, since that may be why its message is dead.
// Refused are a wildcard token, an empty token and white space, none of which
// the server accepts in a filter either, and what is a dead letter, a mark or a
// replay itself.
func DLQ(consuming Service, original string) (Subject, error) {
	return build(FamilyDeadLetter, consuming, original)
}

// DLQMark returns the subject that carries the state of one dead letter of
// service s: dv.<service>.dlqmark.<letter id>. A letter id is l followed by 40
// lower-case hex digits.
func DLQMark(s Service, letterID string) (Subject, error) {
	return build(FamilyDeadLetterMark, s, letterID)
}

// Replay returns the subject on which a message is handed to one durable of
// service s again, and to nobody else: dv.<service>.replay.<durable>.
func Replay(s Service, durable string) (Subject, error) {
	return build(FamilyReplay, s, durable)
}

// Must returns s, and panics if err is not nil. It is for package-level values
// whose parts are literals, as in
//
//	var provision = subject.Must(subject.Cmd(subject.Maskin, "provision"))
func Must(s Subject, err error) Subject {
	if err != nil {
		panic(err)
	}
	return s
}

// build joins the checked parts, or returns every fault at once.
func build(f Family, s Service, parts ...string) (Subject, error) {
	if err := check(f, s, parts); err != nil {
		return Subject{}, err
	}
	head := f.head(s)
	text := head + strings.Join(parts, ".")
	return Subject{text: text, tail: uint8(len(head)), family: f, service: s}, nil
}

// check returns the faults of all arguments of a builder.
func check(f Family, s Service, parts []string) error {
	var faults []error
	if f != FamilyTaskEvent && !s.Valid() {
		faults = append(faults, newError("service", s.String(), serviceRemedy()))
	}
	for i, part := range parts {
		if fault := f.fault(part); fault != "" {
			faults = append(faults, newError(f.shape().parts[i], part, fault))
		}
	}
	return errors.Join(faults...)
}
