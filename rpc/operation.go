package rpc

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"codeberg.org/dataverket/messaging/internal/jsontype"
	"codeberg.org/dataverket/messaging/internal/strictjson"
	"codeberg.org/dataverket/messaging/subject"
)

// Operation ties one operation of a service together: its subject, the version of
// its schema, and the Go types of request and reply. One package-level value per
// operation, in a package that server and callers share, is the whole contract:
//
//	var GetServer = rpc.MustOperation[GetServerRequest, GetServerReply](rpc.Spec{
//		Service: subject.Maskin, Name: "get_server", Version: 1,
//	})
//
// Names on the wire are written, never derived from Go names. The meaning of a
// version never changes; a field may be added, since readers ignore what they do
// not know. What must change gets the next version and an Operation of its own,
// on the same subject: a server serves both until the last caller has moved. Replace
// all its replicas before the first caller uses the next version: one that does not
// have it yet answers CodeUnimplemented.
//
// An Operation is an immutable, comparable value, safe for concurrent use. The zero
// value is refused by [Operation.Call] and by [NewServer].
type Operation[T, R any] struct{ contract *contract }

// Spec describes an operation. All fields are required.
type Spec struct {
	// Service is the one that answers.
	Service subject.Service
	// Name is a token of [a-z][a-z0-9_]*, at most 64 bytes, in the imperative:
	// "get_server".
	Name string
	// Version of the schemas of request and reply, 1 to 65535.
	Version int
}

// contract is what an Operation is, without its Go types.
type contract struct {
	subject subject.Subject
	name    string // <service>.<operation>
	version string
	request shape
	reply   shape
}

// shape is one of the two bodies of an operation.
type shape struct {
	schema string
	// names are the top-level names that the Go type knows, so that none can come
	// in another case.
	names *strictjson.Names
}

// maxVersion is the highest schema version, as in package envelope.
const maxVersion = 65535

// NewOperation returns the operation on dv.rpc.<service>.<name>; no other subject
// can be called. T and R are structs, or marshal themselves to JSON objects. All
// faults are reported at once.
func NewOperation[T, R any](spec Spec) (Operation[T, R], error) {
	on, err := subject.RPC(spec.Service, spec.Name)
	if spec.Version < 1 || spec.Version > maxVersion {
		err = errors.Join(err, fmt.Errorf("rpc: Spec.Version: %d is out of range; use 1 to %d", spec.Version, maxVersion))
	}
	for _, t := range []struct {
		what string
		of   reflect.Type
	}{{"request", reflect.TypeFor[T]()}, {"reply", reflect.TypeFor[R]()}} {
		if !marshalsToObject(t.of) {
			err = errors.Join(err, fmt.Errorf("rpc: %s type: %s does not marshal to a JSON object of known fields; use a struct", t.what, t.of))
		}
	}
	if err != nil {
		return Operation[T, R]{}, err
	}
	name, version := spec.Service.String()+"."+spec.Name, strconv.Itoa(spec.Version)
	of := func(t reflect.Type, part string) shape {
		return shape{"urn:dataverket:schema:" + name + "." + part + ":v" + version, fieldNames(t)}
	}
	return Operation[T, R]{&contract{
		subject: on, name: name, version: version,
		request: of(reflect.TypeFor[T](), "request"), reply: of(reflect.TypeFor[R](), "reply"),
	}}, nil
}

// MustOperation is [NewOperation] for package-level values. It panics on a bad
// spec, which is a fault of the program that its first start shows.
func MustOperation[T, R any](spec Spec) Operation[T, R] {
	op, err := NewOperation[T, R](spec)
	if err != nil {
		panic(err)
	}
	return op
}

// Subject returns dv.rpc.<service>.<name>, and the zero Subject for the zero
// Operation.
func (op Operation[T, R]) Subject() subject.Subject {
	if op.contract == nil {
		return subject.Subject{}
	}
	return op.contract.subject
}

// String returns name and version, for messages: "maskin.get_server v1".
func (op Operation[T, R]) String() string {
	if op.contract == nil {
		return "no operation"
	}
	return op.contract.String()
}

func (c *contract) String() string { return c.name + " v" + c.version }

// marshalsToObject refuses the Go types that can never be a body, and maps, which
// may be the data of a message: a body is read by the names of its fields, and those
// of a map no schema can list. encode looks at what a type that marshals itself
// wrote.
func marshalsToObject(t reflect.Type) bool { return jsontype.ToObject(t, reflect.Struct) }

// maxKnownNames is what a strictjson.Names can hold. A larger struct is read
// without them: names that differ in case are then only refused when both come.
const maxKnownNames = 64

// fieldNames returns the names that encoding/json gives the fields of t.
func fieldNames(t reflect.Type) *strictjson.Names {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || jsontype.MarshalsItself(t) {
		return strictjson.NewNames()
	}
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		tag, tagged := f.Tag.Lookup("json")
		name, _, _ := strings.Cut(tag, ",")
		if !f.IsExported() || tag == "-" || f.Anonymous && name == "" {
			continue
		}
		if !tagged || name == "" {
			name = f.Name
		}
		names = append(names, name)
	}
	if len(names) > maxKnownNames {
		return strictjson.NewNames()
	}
	return strictjson.NewNames(names...)
}
