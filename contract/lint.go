package contract

import (
	"errors"
	"fmt"
	"strings"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Finding is a name in a list that breaks the naming rules.
type Finding struct {
	// Contract is the type and version it is about; "" for the list itself.
	Contract string `json:"contract,omitempty"`
	// Field is the member of the contract.
	Field string `json:"field"`
	// Reason says what is wrong and what to do.
	Reason string `json:"reason"`
}

// String returns the finding as one line.
func (f Finding) String() string {
	if f.Contract == "" {
		return f.Field + ": " + f.Reason
	}
	return f.Contract + ": " + f.Field + ": " + f.Reason
}

// Lint returns what in a list breaks the naming rules of subjects and types
// (requirement S6), or contradicts itself. A [Catalogue] has no such findings; a
// list that was written by hand, or in another language, may.
func (l List) Lint() []Finding {
	var found []Finding
	service, err := subject.ParseService(l.Service)
	if err != nil {
		found = append(found, Finding{Field: "service", Reason: reasonOf(err)})
	}
	for _, c := range l.Contracts {
		for _, f := range c.lint(service) {
			f.Contract = c.String()
			found = append(found, f)
		}
	}
	return found
}

// reasonOf is an error's text for somebody who knows where it belongs.
func reasonOf(err error) string {
	text := strings.ReplaceAll(err.Error(), "subject: ", "")
	return strings.ReplaceAll(text, "\n", "; ")
}

// maxVersion is the highest version of a schema.
const maxVersion = 1<<16 - 1

// lint checks one contract of a list of the service.
func (c Contract) lint(service subject.Service) (found []Finding) {
	add := func(field, reason string) { found = append(found, Finding{Field: field, Reason: reason}) }
	if c.Version < 1 || c.Version > maxVersion {
		add("version", "must be 1 to 65535")
	}
	if v := c.Visibility; v != envelope.Internal.String() && v != envelope.External.String() {
		add("visibility", "must be internal or external")
	} else if v == envelope.External.String() && c.Kind == Command {
		add("visibility", "a command never leaves the platform: internal")
	}
	want, err := c.subject()
	if err != nil {
		add("type", reasonOf(err))
	} else if want.String() != c.Subject {
		add("subject", fmt.Sprintf("of this %s it must be %s", c.Kind, want))
	}
	switch owner := want.Service(); {
	case c.Direction != Sent && c.Direction != Received && c.Direction != Both:
		add("direction", "must be produces, handles or both")
	case err != nil || !service.Valid() || owner == service:
	case c.Kind == Event && c.Direction != Received:
		add("direction", fmt.Sprintf("only %s publishes its events: handles", owner))
	case c.Kind == Command && c.Direction != Sent:
		add("direction", fmt.Sprintf("the command is addressed to %s: produces", owner))
	}
	return found
}

// requested is the last token of a command's type.
const requested = "requested"

// subject returns the subject that follows from kind and type.
func (c Contract) subject() (subject.Subject, error) {
	tokens := strings.Split(c.Type, ".")
	switch {
	case c.Kind == Event && len(tokens) == 3:
		service, err := subject.ParseService(tokens[0])
		if err != nil {
			return subject.Subject{}, err
		}
		return subject.Evt(service, tokens[1], tokens[2])
	case c.Kind == Event:
		return subject.Subject{}, errors.New("an event is called <service>.<entity>.<verb>")
	case c.Kind == Command && len(tokens) == 4 && tokens[3] == requested:
		service, err := subject.ParseService(tokens[0])
		if err != nil {
			return subject.Subject{}, err
		}
		// The entity is in no command's subject; an event's has the same rules.
		if _, err := subject.Evt(service, tokens[1], requested); err != nil {
			return subject.Subject{}, err
		}
		return subject.Cmd(service, tokens[2])
	case c.Kind == Command:
		return subject.Subject{}, errors.New("a command is called <service>.<entity>.<action>.requested")
	}
	return subject.Subject{}, errors.New("kind must be event or command")
}
