package envelope

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"codeberg.org/dataverket/messaging/subject"
)

// Type ties one message type together: its name on the wire, the version of its
// schema, the subject it travels on, and the Go type of its data. One package
// level value per message, in a package that producer and consumer share, is
// the whole contract:
//
//	var ServerProvisioned = envelope.MustEvent[ServerProvisionedV1](envelope.EventSpec{
//		Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
//	})
//
// The names are written, never derived from Go names: renaming a Go type changes
// nothing on the wire. The meaning of a version never changes; what must change
// gets the next version and a Type of its own (requirement E3).
//
// A Type is an immutable, comparable value, safe for concurrent use. The zero
// value is invalid: it drafts only messages that [New] refuses, and decodes
// nothing.
type Type[T any] struct {
	name    string
	subject subject.Subject
	version int
	schema  string
}

// EventSpec describes an event: something that happened to an entity of a
// service. All fields are required.
type EventSpec struct {
	// Service is whose fact it is; only that service can publish it.
	Service subject.Service
	// Entity and Verb are tokens of [a-z][a-z0-9_]*, at most 64 bytes, the verb
	// in the past tense: "server", "provisioned".
	Entity string
	Verb   string
	// Version of the data's schema, 1 to 65535.
	Version int
}

// CommandSpec describes a command: work that is asked of a service. All fields
// are required.
type CommandSpec struct {
	// Service is the addressee.
	Service subject.Service
	// Entity and Action are tokens of [a-z][a-z0-9_]*, at most 64 bytes, the
	// action in the imperative: "server", "provision".
	Entity string
	Action string
	// Version of the data's schema, 1 to 65535.
	Version int
}

// Event returns the type "<service>.<entity>.<verb>" on the subject
// dv.<service>.evt.<entity>.<verb>. T is a struct or a map, or marshals itself.
// All faults of the spec are reported at once.
func Event[T any](spec EventSpec) (Type[T], error) {
	s, err := subject.Evt(spec.Service, spec.Entity, spec.Verb)
	name := spec.Service.String() + "." + spec.Entity + "." + spec.Verb
	if err := specFaults[T]("EventSpec", spec.Version, err); err != nil {
		return Type[T]{}, err
	}
	return Type[T]{name, s, spec.Version, schemaName(name, spec.Version)}, nil
}

// Command returns the type "<service>.<entity>.<action>.requested" on the
// subject dv.<service>.cmd.<action>. T is a struct or a map, or marshals itself.
// All faults of the spec are reported at once.
func Command[T any](spec CommandSpec) (Type[T], error) {
	s, err := subject.Cmd(spec.Service, spec.Action)
	if reason := checkNameToken(spec.Entity); reason != "" {
		err = errors.Join(err, &FieldError{"CommandSpec.Entity", reason})
	}
	name := spec.Service.String() + "." + spec.Entity + "." + spec.Action + ".requested"
	if err := specFaults[T]("CommandSpec", spec.Version, err); err != nil {
		return Type[T]{}, err
	}
	return Type[T]{name, s, spec.Version, schemaName(name, spec.Version)}, nil
}

// MustEvent is [Event] for package-level values. It panics on a bad spec, which
// is a fault of the program that its first start shows.
func MustEvent[T any](spec EventSpec) Type[T] { return must(Event[T](spec)) }

// MustCommand is [Command] for package-level values. It panics on a bad spec.
func MustCommand[T any](spec CommandSpec) Type[T] { return must(Command[T](spec)) }

func must[T any](t Type[T], err error) Type[T] {
	if err != nil {
		panic(err)
	}
	return t
}

// specFaults adds what both specs have in common to the faults found so far.
func specFaults[T any](spec string, version int, err error) error {
	if version < 1 || version > maxSchemaVersion {
		err = errors.Join(err, &FieldError{spec + ".Version", "must be 1 to 65535"})
	}
	if !marshalsToObject(reflect.TypeFor[T]()) {
		err = errors.Join(err, &FieldError{"data type", fmt.Sprintf(
			"%s does not marshal to a JSON object: use a struct, and reference binary data with envelope.Artifact",
			reflect.TypeFor[T]())})
	}
	return err
}

// marshalsToObject refuses the Go types that can never be a payload, when the
// contract is declared rather than when the first message fails (requirement
// E2). Types that marshal themselves are believed; [New] looks at the result.
func marshalsToObject(t reflect.Type) bool {
	marshaler := reflect.TypeFor[json.Marshaler]()
	if t.Implements(marshaler) || reflect.PointerTo(t).Implements(marshaler) {
		return true
	}
	if t.Kind() == reflect.Pointer {
		return marshalsToObject(t.Elem())
	}
	return t.Kind() == reflect.Struct || t.Kind() == reflect.Map
}

// Name returns the type's name on the wire.
func (t Type[T]) Name() string { return t.name }

// Version returns the version of the data's schema.
func (t Type[T]) Version() int { return t.version }

// Subject returns the subject that messages of this type are published on.
func (t Type[T]) Subject() subject.Subject { return t.subject }

// Schema returns "urn:dataverket:schema:<type>:v<n>", the dataschema of every
// message of this type.
func (t Type[T]) Schema() string { return t.schema }

// String returns the name and the version, for messages.
func (t Type[T]) String() string { return fmt.Sprintf("%s v%d", t.name, t.version) }

// Decode returns the data of e. It refuses an envelope of another type or
// another version, naming both, and data that does not fit T; every error wraps
// [ErrMalformed] and none quotes the data. Fields that T does not have are
// ignored, as requirement E4 asks.
func (t Type[T]) Decode(e *Envelope) (T, error) {
	var data T
	if e.Type != t.name {
		return data, malformed(&FieldError{"type", fmt.Sprintf(
			"is %s, decoding as %s", clip(e.Type), t)})
	}
	if v := e.SchemaVersion(); v != t.version {
		return data, malformed(&FieldError{"dataschema", fmt.Sprintf(
			"is version %d, decoding as %s", v, t)})
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		var zero T // a half-filled value must not look usable
		return zero, malformed(dataFault(t.String(), err))
	}
	return data, nil
}
