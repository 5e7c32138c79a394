package envelope

import (
	"errors"

	"codeberg.org/dataverket/messaging/subject"
)

// CheckSubject holds the envelope against the subject it was published on; of a
// replayed dead letter that is the original subject. All faults are joined:
//   - a [*FieldError] for a command without actor or correlation (requirement
//     E5);
//   - a [*MismatchError] where the two contradict each other: the type of a
//     command or event must begin with the subject's service and that of a task
//     event with "task"; an event's source must be the subject's service, which
//     is what makes the broker's permissions authenticate the source; and no
//     envelope of its own travels on any other family of subjects.
func (e *Envelope) CheckSubject(s subject.Subject) error {
	var faults []error
	if s.Family() == subject.FamilyCommand {
		if e.Actor == "" {
			faults = append(faults, &FieldError{"actor", "is required in a command"})
		}
		if e.CorrelationID == "" {
			faults = append(faults, &FieldError{"correlation_id", "is required in a command"})
		}
	}
	return errors.Join(append(faults, e.subjectMismatches(s)...)...)
}

// subjectMismatches returns where envelope and subject contradict each other.
func (e *Envelope) subjectMismatches(s subject.Subject) []error {
	owner := s.Service().String()
	switch s.Family() {
	case subject.FamilyCommand, subject.FamilyEvent:
	case subject.FamilyTaskEvent:
		owner = typeTask
	default:
		return []error{&MismatchError{"subject", "is of the family " + s.Family().String() +
			", on which no envelope of its own travels: commands, events and task events carry one"}}
	}
	var faults []error
	if firstToken(e.Type) != owner {
		faults = append(faults, &MismatchError{"type", "does not begin with " + owner + " like its subject"})
	}
	return appendForeign(faults, e.Source, s)
}

// appendForeign adds the fault of a source that publishes another service's event.
func appendForeign(faults []error, source subject.Service, s subject.Subject) []error {
	if s.Family() == subject.FamilyEvent && source != s.Service() {
		return append(faults, &MismatchError{"source", "is not the service of its event subject: " + s.Service().String()})
	}
	return faults
}
