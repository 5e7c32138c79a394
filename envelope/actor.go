package envelope

import (
	"errors"
	"strings"
)

// Actor is the identity that initiated an action, written "<kind>:<id>", such as
// "user:42" or "service:maskin" (requirement E5). The empty Actor means none.
// At most 160 bytes.
type Actor string

// ActorKind is what kind of identity an [Actor] is: a closed set.
type ActorKind string

// The kinds of actors.
const (
	// ActorUser is a person of a tenant.
	ActorUser ActorKind = "user"
	// ActorService is a program, of the platform or of a tenant.
	ActorService ActorKind = "service"
	// ActorOperator is a person who runs the platform.
	ActorOperator ActorKind = "operator"
	// ActorSystem is the platform itself: timers, reconciliation, clean-up.
	ActorSystem ActorKind = "system"
)

// maxActor bounds an actor in bytes.
const maxActor = 160

// NewActor joins kind and id. The id is made of letters, digits and ._:@/+=- and
// starts with a letter or digit. All faults are reported at once, each as a
// [*FieldError].
func NewActor(kind ActorKind, id string) (Actor, error) {
	actor := Actor(string(kind) + ":" + id)
	var faults []error
	if !kind.valid() {
		faults = append(faults, &FieldError{"actor kind", actorKindRemedy})
	}
	if reason := checkIDBytes(id); reason != "" {
		faults = append(faults, &FieldError{"actor id", reason})
	}
	if len(actor) > maxActor {
		faults = append(faults, &FieldError{"actor", reasonActorLength})
	}
	if len(faults) > 0 {
		return "", errors.Join(faults...)
	}
	return actor, nil
}

// reasonActorLength is said of an actor that is too long.
const reasonActorLength = "is longer than 160 bytes"

// actorKindRemedy is said wherever a kind is refused.
const actorKindRemedy = "must be user, service, operator or system"

// valid reports whether k is one of the kinds.
func (k ActorKind) valid() bool {
	return k == ActorUser || k == ActorService || k == ActorOperator || k == ActorSystem
}

// Kind returns what stands before the first colon, or "" when there is none.
func (a Actor) Kind() ActorKind {
	kind, _, ok := strings.Cut(string(a), ":")
	if !ok {
		return ""
	}
	return ActorKind(kind)
}

// ID returns what stands behind the first colon, or "" when there is none. It
// may hold further colons.
func (a Actor) ID() string {
	_, id, _ := strings.Cut(string(a), ":")
	return id
}

// checkActor returns why text is no actor, or "".
func checkActor(text string) string {
	if len(text) > maxActor {
		return reasonActorLength
	}
	kind, id, ok := strings.Cut(text, ":")
	if !ok {
		return "must be <kind>:<id>"
	}
	if !ActorKind(kind).valid() {
		return "kind " + actorKindRemedy
	}
	if reason := checkIDBytes(id); reason != "" {
		return "id " + reason
	}
	return ""
}
