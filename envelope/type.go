package envelope

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"unique"

	"codeberg.org/dataverket/messaging/internal/jsontype"
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
// A Type is an immutable value, safe for concurrent use, and comparable: equal
// declarations are equal, except that one with upcasters equals only its copies.
// The zero value is invalid: it drafts only messages that [New] refuses, and decodes
// nothing.
type Type[T any] struct {
	name       string
	subject    subject.Subject
	version    int
	schema     string
	visibility Visibility
	frame      unique.Handle[frame]
	older      *upcasts[T] // nil for none; a pointer keeps types comparable
}

// EventSpec describes an event: something that happened to an entity of a
// service. All fields but Visibility are required.
type EventSpec struct {
	// Service is whose fact it is; only that service can publish it.
	Service subject.Service
	// Entity and Verb are tokens of [a-z][a-z0-9_]*, at most 64 bytes, the verb
	// in the past tense: "server", "provisioned".
	Entity string
	Verb   string
	// Version of the data's schema, 1 to 65535.
	Version int
	// Visibility of its messages: Internal, the default, keeps them inside the
	// platform; External allows edges to send them on (requirement E8).
	Visibility Visibility
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
// With upcasters it reads older versions, too. All faults are reported at once.
func Event[T any](spec EventSpec, older ...Upcaster[T]) (Type[T], error) {
	s, err := subject.Evt(spec.Service, spec.Entity, spec.Verb)
	if reason := checkVisibility(spec.Visibility); reason != "" {
		err = errors.Join(err, &FieldError{"EventSpec.Visibility", reason})
	}
	t := Type[T]{
		name:    spec.Service.String() + "." + spec.Entity + "." + spec.Verb,
		subject: s, version: spec.Version, visibility: spec.Visibility,
	}
	return t.complete("EventSpec", err, older)
}

// Command returns the type "<service>.<entity>.<action>.requested" on the
// subject dv.<service>.cmd.<action>. T is a struct or a map, or marshals itself.
// With upcasters it reads older versions, too. All faults are reported at once.
func Command[T any](spec CommandSpec, older ...Upcaster[T]) (Type[T], error) {
	s, err := subject.Cmd(spec.Service, spec.Action)
	if reason := checkNameToken(spec.Entity); reason != "" {
		err = errors.Join(err, &FieldError{"CommandSpec.Entity", reason})
	}
	t := Type[T]{
		name:    spec.Service.String() + "." + spec.Entity + "." + spec.Action + ".requested",
		subject: s, version: spec.Version,
	}
	return t.complete("CommandSpec", err, older)
}

// TaskSpec describes an event of the task lifecycle. All fields are required.
type TaskSpec struct {
	// Verb is a token of [a-z][a-z0-9_]*, at most 64 bytes: "succeeded".
	Verb string
	// Version of the data's schema, 1 to 65535.
	Version int
}

// TaskEvent returns the type "task.<verb>" on the subject dv.task.evt.<verb>, which
// every service may publish. T is a struct or a map, or marshals itself. With
// upcasters it reads older versions, too. All faults are reported at once. Services
// use the types of package task.
func TaskEvent[T any](spec TaskSpec, older ...Upcaster[T]) (Type[T], error) {
	s, err := subject.TaskEvt(spec.Verb)
	t := Type[T]{name: typeTask + "." + spec.Verb, subject: s, version: spec.Version}
	return t.complete("TaskSpec", err, older)
}

// MustEvent is [Event] for package-level values. It panics on a bad spec, which
// is a fault of the program that its first start shows.
func MustEvent[T any](spec EventSpec, older ...Upcaster[T]) Type[T] {
	return must(Event(spec, older...))
}

// MustCommand is [Command] for package-level values. It panics on a bad spec.
func MustCommand[T any](spec CommandSpec, older ...Upcaster[T]) Type[T] {
	return must(Command(spec, older...))
}

// MustTaskEvent is [TaskEvent] for package-level values. It panics on a bad spec.
func MustTaskEvent[T any](spec TaskSpec, older ...Upcaster[T]) Type[T] {
	return must(TaskEvent(spec, older...))
}

func must[T any](t Type[T], err error) Type[T] {
	if err != nil {
		panic(err)
	}
	return t
}

// complete checks what both specs have in common, adds it to the faults found so
// far, and returns the type if there are none.
func (t Type[T]) complete(spec string, err error, older []Upcaster[T]) (Type[T], error) {
	faults := []error{err}
	if t.version < 1 || t.version > maxSchemaVersion {
		faults = append(faults, &FieldError{spec + ".Version", "must be 1 to 65535"})
	}
	if !marshalsToObject(reflect.TypeFor[T]()) {
		faults = append(faults, &FieldError{"data type", fmt.Sprintf(
			"%s does not marshal to a JSON object: use a struct, and reference binary data with envelope.Artifact",
			reflect.TypeFor[T]())})
	}
	ways, wrong := newUpcasts(t.name, t.version, older)
	if err := errors.Join(append(faults, wrong...)...); err != nil {
		return Type[T]{}, err
	}
	t.schema, t.older = schemaName(t.name, t.version), ways
	t.frame = newFrame(t.name, t.schema, t.version)
	return t, nil
}

// marshalsToObject refuses the Go types that can never be a payload, when the
// contract is declared rather than when the first message fails (requirement E2).
// [New] looks at what a type that marshals itself wrote. A map may be a payload, and
// not the body of a call, which package rpc reads by the names of its fields: a
// contract describes a map by what its values are.
func marshalsToObject(t reflect.Type) bool {
	return jsontype.ToObject(t, reflect.Struct, reflect.Map)
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

// Visibility returns whether messages of this type may leave the platform, unless
// a single one says otherwise.
func (t Type[T]) Visibility() Visibility { return t.visibility }

// Declaration is what a [Type] says, without its type parameter: what a catalogue
// of messages of several types is made of.
type Declaration struct {
	// Name, Version, Schema, Subject and Visibility are those of the Type.
	Name       string
	Version    int
	Schema     string
	Subject    subject.Subject
	Visibility Visibility
	// Data is the Go type of the data; nil for the zero Type.
	Data reflect.Type
	// Older are what the upcasters begin at, the lowest version first. Each has
	// those that it carries forward itself.
	Older []Declaration
}

// Declaration returns what t says. That of the zero Type is the zero Declaration.
func (t Type[T]) Declaration() Declaration {
	if t.name == "" {
		return Declaration{}
	}
	d := Declaration{Name: t.name, Version: t.version, Schema: t.schema, Subject: t.subject, Visibility: t.visibility, Data: reflect.TypeFor[T]()}
	if t.older != nil {
		d.Older = slices.Clone(t.older.from)
	}
	return d
}

// Decode returns the data of e. Data of an older version is carried forward if the
// declaration says how, see [Upcast]. It refuses an envelope of another type or a
// version that it does not know, and data that does not fit: every error is a
// [*DecodeError] that wraps [ErrMalformed], and none quotes the data, unless the
// error of an upcaster does. Fields that T does not have are ignored, as
// requirement E4 asks.
func (t Type[T]) Decode(e *Envelope) (T, error) {
	var data T
	version := e.SchemaVersion()
	if e.Type != t.name {
		return data, malformed(&DecodeError{Fault: FaultType, Type: e.Type, Version: version, Reason: fmt.Sprintf(
			"it is no %s: decode it with the Type of its own name", t)})
	}
	if version != t.version {
		if t.older != nil && t.older.ways[version] != nil {
			return t.older.ways[version](e)
		}
		return data, malformed(versionFault(e.Type, version, t.version))
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		var zero T // a half-filled value must not look usable
		return zero, malformed(&DecodeError{FaultData, e.Type, version, dataReason(err), err})
	}
	return data, nil
}
