package contract

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Message is a declared message: an envelope.Type of any data.
type Message interface {
	// Declaration returns what the type says.
	Declaration() envelope.Declaration
}

// Part is what a service does with some messages: [Produces] or [Handles].
type Part struct {
	direction Direction
	messages  []Message
}

// Produces lists what the service publishes: events of its own, and commands to
// itself and others. While a version is still sent anywhere, it stays listed.
func Produces(messages ...Message) Part { return Part{Sent, messages} }

// Handles lists what the service takes: commands addressed to it, and events of
// its own and of others. Older versions that a type carries forward need not be
// listed, unless the service also has a handler of their own; they are locked as
// retired.
func Handles(messages ...Message) Part { return Part{Received, messages} }

// Catalogue is what a service says and understands: its messages with their
// schemas. Make one with [New] or [MustNew], as a package-level value beside the
// messages. It is immutable and safe for concurrent use. The zero value is the
// catalogue of no service and has no messages.
type Catalogue struct{ list List }

// New returns the catalogue of a service. It reports all faults at once: messages
// that the service cannot send or is never sent, what is listed twice, and every
// field that cannot be described by a JSON Schema, by its name.
func New(service subject.Service, parts ...Part) (Catalogue, error) {
	b := builder{service: service, types: map[string]reflect.Type{}}
	if !service.Valid() {
		b.fault("service", "is not set: use a constant of package subject")
	}
	for _, part := range parts {
		for i, m := range part.messages {
			b.add(part.direction, i, m)
		}
	}
	for _, part := range parts {
		for _, m := range part.messages {
			b.addOlder(part.direction, m)
		}
	}
	if len(b.faults) > 0 {
		return Catalogue{}, errors.Join(b.faults...)
	}
	list := List{Format: format, Service: service.String(), Contracts: b.contracts}
	list.sort()
	return Catalogue{list}, nil
}

// MustNew is [New] for package-level values. It panics on a fault, which the first
// start of the program, or its first test, shows.
func MustNew(service subject.Service, parts ...Part) Catalogue {
	c, err := New(service, parts...)
	if err != nil {
		panic(err)
	}
	return c
}

// List returns the messages as data: what is written to a file, compared and
// linted. The caller may change it.
func (c Catalogue) List() List {
	l := c.list
	l.Contracts = append([]Contract{}, l.Contracts...)
	return l
}

// Subjects returns the subjects of the messages that the service produces, or
// handles, or both: each once, in their order as text.
func (c Catalogue) Subjects(direction Direction) []subject.Subject {
	var texts []string
	for _, m := range c.list.Contracts { // retired ones are on the subject of a later version
		if direction == Both || m.Direction == Both || m.Direction == direction {
			texts = append(texts, m.Subject)
		}
	}
	texts = slices.Compact(slices.Sorted(slices.Values(texts)))
	all := make([]subject.Subject, len(texts))
	for i, text := range texts {
		all[i] = subject.Must(subject.Parse(text)) // it was built from one
	}
	return all
}

// AsyncAPI returns the AsyncAPI 3.1.0 document of the service, see [List.AsyncAPI].
func (c Catalogue) AsyncAPI(about AsyncAPIOptions) ([]byte, error) { return c.list.AsyncAPI(about) }

// MarshalJSON writes the list, so that json.Marshal exports a catalogue.
func (c Catalogue) MarshalJSON() ([]byte, error) { return c.list.Encode() }

// builder collects the contracts of a catalogue.
type builder struct {
	service   subject.Service
	contracts []Contract
	types     map[string]reflect.Type // of the data, by type and version
	faults    []error
}

func (b *builder) fault(what, reason string) {
	b.faults = append(b.faults, fmt.Errorf("contract: %s: %s", what, reason))
}

// add takes the i-th message of a part.
func (b *builder) add(dir Direction, i int, m Message) {
	at := fmt.Sprintf("%s[%d]", dir, i)
	if m == nil || m.Declaration().Name == "" {
		b.fault(at, "is no message: declare it with envelope.MustEvent or envelope.MustCommand")
		return
	}
	d := m.Declaration()
	at += fmt.Sprintf(" (%s v%d)", d.Name, d.Version)
	owner := d.Subject.Service()
	switch family := d.Subject.Family(); {
	case dir == Sent && family == subject.FamilyEvent && owner != b.service:
		b.fault(at, fmt.Sprintf("only %s can publish its events; list what is handled in Handles", owner))
	case dir == Received && family == subject.FamilyCommand && owner != b.service:
		b.fault(at, fmt.Sprintf("the command is addressed to %s; list what is sent in Produces", owner))
	}
	c, err := contractOf(d, dir)
	if err != nil {
		for _, e := range parts(err) {
			b.fault(at, e.Error())
		}
		return
	}
	b.merge(at, c, d.Data)
}

// addOlder takes the versions that a message carries forward, unless they are
// listed themselves. Stored messages have them for long after the last was sent, so
// their Go types are held to their meaning like the others.
func (b *builder) addOlder(dir Direction, m Message) {
	if m == nil {
		return // reported already
	}
	b.carried(dir, m.Declaration().Older)
}

func (b *builder) carried(dir Direction, all []envelope.Declaration) {
	for _, d := range all {
		at := fmt.Sprintf("carried forward (%s v%d)", d.Name, d.Version)
		c, err := contractOf(d, dir)
		if err != nil {
			for _, e := range parts(err) {
				b.fault(at, e.Error())
			}
			continue
		}
		c.Retired = true
		b.merge(at, c, d.Data)
		b.carried(dir, d.Older)
	}
}

// merge adds a contract, or the other direction of one that is there.
func (b *builder) merge(at string, c Contract, data reflect.Type) {
	known, again := b.types[c.String()]
	b.types[c.String()] = data
	for i := range b.contracts {
		have := &b.contracts[i]
		switch {
		case have.String() != c.String():
		case known != data:
			b.fault(at, fmt.Sprintf("is declared with the data %s, and elsewhere with %s: a version has one type", data, known))
		case c.Retired && !have.Retired: // it is listed, too
		case have.Direction != c.Direction && have.Direction != Both:
			have.Direction = Both
		case !c.Retired:
			b.fault(at, "is listed twice")
		}
	}
	if !again {
		b.contracts = append(b.contracts, c)
	}
}

// parts returns what errors.Join put into err.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}
