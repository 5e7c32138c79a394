package topology

import (
	"fmt"
	"strings"

	"codeberg.org/dataverket/messaging/subject"
)

// FieldError is a fault of a declaration, found without a server. Validate
// joins all of them; errors.AsType finds the first.
type FieldError struct {
	Field  string // as in "Set.Streams[DV_MASKIN_EVT].MaxBytes"
	Reason string // what is wrong and what to do
}

// Error names the field and the reason.
func (e *FieldError) Error() string { return "topology: " + e.Field + ": " + e.Reason }

// DriftError is one setting on the server that contradicts the declaration.
// Several are joined.
type DriftError struct {
	Object string // "stream DV_MASKIN_EVT", "consumer DV_MASKIN_EVT/plattform__from_maskin", "server"
	Field  string // as the server names it: max_bytes
	Want   string // declared
	Got    string // on the server
}

// Error names object, field and both values.
func (e *DriftError) Error() string {
	remedy := "correct the declaration, or let the operator apply it"
	if e.Object == serverObject {
		remedy = "change the server"
	}
	return fmt.Sprintf("topology: verify %s: %s is %s, declared %s; %s", e.Object, e.Field, e.Got, e.Want, remedy)
}

// MissingError is something declared that the server does not have.
type MissingError struct {
	Object string // as in DriftError
	Remedy string
}

// Error names the object and the remedy.
func (e *MissingError) Error() string {
	return fmt.Sprintf("topology: verify %s: it does not exist; %s", e.Object, e.Remedy)
}

// OverlapError says that two durables of one command stream would both handle
// some commands (requirement T7).
type OverlapError struct {
	Stream  string
	Durable string // ours, where one of the two is declared
	Other   string
}

// Error names the stream and both durables.
func (e *OverlapError) Error() string {
	return fmt.Sprintf("topology: stream %s: durables %s and %s both receive some commands, which would be done twice; narrow their filters, or delete the one that is no longer used",
		e.Stream, e.Durable, e.Other)
}

// UndeclaredError says that no stream of a Set holds a subject.
type UndeclaredError struct {
	Subject subject.Subject
}

// Error names the subject and the remedy.
func (e *UndeclaredError) Error() string {
	return fmt.Sprintf("topology: find stream of subject %q: no declared stream holds it; add the stream to Set.Streams, also if another service owns it", e.Subject)
}

// ImpossibleError is a difference that no update can remove.
type ImpossibleError struct {
	Object string // as in DriftError
	Field  string
	From   string // on the server
	To     string // declared
	Remedy string
}

// Error names the difference, and the way around.
func (e *ImpossibleError) Error() string {
	return fmt.Sprintf("topology: plan %s: %s cannot be changed from %s to %s; %s", e.Object, e.Field, e.From, e.To, e.Remedy)
}

// DestructiveError says that Apply has changed nothing, because these changes
// lose messages or cannot be undone and were not allowed.
type DestructiveError struct {
	Changes []Change // the destructive ones only
}

// Error lists the changes and the remedy.
func (e *DestructiveError) Error() string {
	texts := make([]string, 0, len(e.Changes))
	for _, c := range e.Changes {
		texts = append(texts, c.String())
	}
	return "topology: apply: refused, nothing was changed, because it may lose messages or cannot be undone: " +
		strings.Join(texts, "; ") + "; correct the declaration, or set ApplyOptions.Destructive"
}

const serverObject = "server"

func streamObject(name string) string { return "stream " + name }

func consumerObject(stream, name string) string { return "consumer " + stream + "/" + name }
