package sites

import (
	"errors"
	"fmt"
)

// ErrAlreadyRun is returned by a second Run.
var ErrAlreadyRun = errors.New("sites: Run was called before; make a new Watcher")

// ErrConnectionClosed is returned by Run when the connection was closed for good
// under it.
var ErrConnectionClosed = errors.New("sites: the connection to the broker is closed; drain it after Run has returned")

// NoAnswerError is a question to another site that nobody answered: the link is
// down, or no [Watcher] of the stream's owner runs there.
type NoAnswerError struct {
	Site   string // who was asked
	Stream string // about what
	Err    error  // nats.ErrNoResponders, nats.ErrDisconnected, or that time was up
}

// Error names the site, the stream and the remedy.
func (e *NoAnswerError) Error() string {
	return fmt.Sprintf("sites: no answer from %s about %s: %v; the link is down, or no watcher of the stream's owner runs there", e.Site, e.Stream, e.Err)
}

// Unwrap returns the cause.
func (e *NoAnswerError) Unwrap() error { return e.Err }

// VersionError is a question or an answer in a version that the other end does
// not know.
type VersionError struct {
	Site  string // whose services need the newer version of this library
	Asked int    // the version that one end speaks
	Known int    // the newest one that Site speaks
}

// Error names the site that has to be upgraded.
func (e *VersionError) Error() string {
	return fmt.Sprintf("sites: site %s knows version %d of what sites ask each other, the other one speaks %d; deploy the newer library at %s", e.Site, e.Known, e.Asked, e.Site)
}

// Refusal is why a site did not do what it was asked. The texts are on the wire.
type Refusal string

// The refusals.
const (
	// RefusedVersion: in a version that the site does not know. Its answer has the
	// version that it knows, so that callers get a *VersionError.
	RefusedVersion Refusal = "version"
	// RefusedVerb: the site cannot answer this kind of question yet.
	RefusedVerb Refusal = "verb"
	// RefusedMalformed: the question breaks a rule of its form.
	RefusedMalformed Refusal = "malformed"
	// RefusedFlow: by the declaration that the site runs, no such flow begins
	// there.
	RefusedFlow Refusal = "flow"
	// RefusedStream: the stream that the flow begins in does not exist.
	RefusedStream Refusal = "stream"
	// RefusedBusy: the site is reading what it needs for the answer; ask again.
	RefusedBusy Refusal = "busy"
	// RefusedFailed: the site tried and could not.
	RefusedFailed Refusal = "failed"
)

// RefusedError is a question that another site answered with a refusal.
type RefusedError struct {
	Site   string // who refused
	Stream string // about what
	Why    Refusal
	Reason string // in the words of that site, at most 200 bytes
}

// Error names the site, the stream and what to do about the refusal.
func (e *RefusedError) Error() string {
	remedy := "see the log there"
	switch e.Why {
	case RefusedFlow:
		remedy = "deploy the same network at both sites"
	case RefusedStream:
		remedy = "start the stream's owner there, which creates it"
	case RefusedVerb, RefusedVersion:
		remedy = "deploy the newer library at " + e.Site
	case RefusedMalformed:
		remedy = "deploy the same version of this library at both sites"
	}
	return fmt.Sprintf("sites: %s refused a question about %s (%s): %s; %s", e.Site, e.Stream, e.Why, e.Reason, remedy)
}

// MalformedError is an answer that is none, from whoever listens on the subjects
// of the questions.
type MalformedError struct {
	Site   string // who was asked
	Stream string // about what
	Reason string // which rule is broken, without what broke it
}

// Error names the site and the rule.
func (e *MalformedError) Error() string {
	return fmt.Sprintf("sites: the answer of %s about %s is none: %s; find out who answers on dvsites.%s.> there", e.Site, e.Stream, e.Reason, e.Site)
}
