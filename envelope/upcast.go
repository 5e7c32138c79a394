package envelope

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	"codeberg.org/dataverket/messaging/internal/panics"
)

// Upcaster carries data of an older schema version forward, so that a handler of
// the newer version receives what was sent before it existed (requirement E3).
// Make one with [Upcast] and give it to [Event] or [Command]. It is an immutable
// value.
type Upcaster[T any] struct {
	from  Declaration                // what it begins at
	carry func(*Envelope) (T, error) // nil: made without a function
}

// Upcast returns the way from data of the type from to data of a newer version of
// the same type:
//
//	var ServerProvisioned = envelope.MustEvent[ServerProvisionedV2](envelope.EventSpec{
//		Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 2,
//	}, envelope.Upcast(ServerProvisionedFirst, func(old ServerProvisionedV1) (ServerProvisionedV2, error) {
//		return ServerProvisionedV2{Hostname: old.Name}, nil
//	}))
//
// What from carries forward itself comes along: with steps from 1 to 2 and from 2
// to 3, version 3 reads version 1 by both. Each older version has one way.
//
// convert is called for every decoding, also when a delivery is repeated, so it
// computes and does nothing else: it has no context, and it must be safe for
// concurrent use. Its error, or its panic, is final for the message, which becomes
// a dead letter of class decode; what no later version can express is such an
// error. Its text is kept with the letter as that of a handler: put no secret in.
func Upcast[Old, New any](from Type[Old], convert func(Old) (New, error)) Upcaster[New] {
	u := Upcaster[New]{from: from.Declaration()}
	if convert == nil {
		return u
	}
	u.carry = func(e *Envelope) (New, error) {
		var none New
		old, err := from.Decode(e)
		if err != nil {
			return none, err
		}
		converted, err := shielded(convert, old)
		if err != nil {
			return none, malformed(&DecodeError{
				Fault: FaultUpcast, Type: e.Type, Version: e.SchemaVersion(),
				Reason: fmt.Sprintf("cannot be carried forward from version %d: %v", from.version, err), Err: err,
			})
		}
		return converted, nil
	}
	return u
}

// shielded calls convert and turns a panic into an error.
func shielded[Old, New any](convert func(Old) (New, error), old Old) (converted New, err error) {
	defer func() {
		if v := recover(); v != nil {
			var none New
			converted, err = none, panicFault(v)
		}
	}()
	return convert(old)
}

// panicFault describes a recovered value: where it came from, and its text if that
// is the runtime's own. Another value may hold anything, also the data. It must be
// called by the deferred function that recovered.
func panicFault(v any) error {
	text := fmt.Sprintf("a %T", v)
	if own, ok := v.(runtime.Error); ok {
		text = own.Error()
	}
	if at := panics.Location(); at != "" {
		text += " at " + at
	}
	return fmt.Errorf("the upcaster panicked with %s", text)
}

// upcasts holds the ways to T from its older versions.
type upcasts[T any] struct {
	ways map[int]func(*Envelope) (T, error)
	from []Declaration // what the upcasters begin at, the lowest version first
}

// newUpcasts checks the upcasters of the type that is called name and has the
// version, and returns every fault. It returns nil for none.
func newUpcasts[T any](name string, version int, all []Upcaster[T]) (*upcasts[T], []error) {
	if len(all) == 0 {
		return nil, nil
	}
	o := &upcasts[T]{ways: map[int]func(*Envelope) (T, error){}}
	var faults []error
	for _, u := range all {
		if reason := o.check(name, version, u); reason != "" {
			faults = append(faults, &FieldError{"Upcast", reason})
			continue
		}
		for _, v := range u.from.versions() {
			o.ways[v] = u.carry
		}
		o.from = append(o.from, u.from)
	}
	slices.SortFunc(o.from, func(a, b Declaration) int { return a.Version - b.Version })
	return o, faults
}

// versions returns the version of a declaration and those that it carries forward.
func (d Declaration) versions() []int {
	all := []int{d.Version}
	for _, older := range d.Older {
		all = append(all, older.versions()...)
	}
	return all
}

// check returns what is wrong with an upcaster, or "".
func (o *upcasts[T]) check(name string, version int, u Upcaster[T]) string {
	switch {
	case u.from.Name == "":
		return "is empty: make it with envelope.Upcast from a Type"
	case u.from.Name != name:
		return fmt.Sprintf("begins at %s, which is another type than %s: versions of one type are carried forward", u.from.Name, name)
	case u.from.Version >= version:
		return fmt.Sprintf("begins at version %d of %s, which is not older than version %d", u.from.Version, name, version)
	case u.carry == nil:
		return fmt.Sprintf("from version %d of %s has no function", u.from.Version, name)
	}
	for _, v := range u.from.versions() {
		if o.ways[v] != nil {
			return fmt.Sprintf("carries version %d of %s forward, and so does another: each version has one way", v, name)
		}
	}
	return ""
}

// Older returns the older versions that Decode carries forward, the lowest first;
// nil for none.
func (t Type[T]) Older() []int {
	if t.older == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(t.older.ways))
}
