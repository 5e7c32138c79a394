package topology

import (
	"fmt"
	"time"

	"codeberg.org/dataverket/messaging/subject"
)

// Set is everything that one service declares: who it is, the streams that it
// owns, publishes to or reads, and its own durables. It is a value; Validate
// needs no server (requirement T6).
type Set struct {
	// Service is who we are. Ensure creates the streams of this service and
	// the durables with its prefix, and nothing else.
	Service subject.Service

	// Streams are our own streams and those of other services that we publish
	// commands to or read events from. A service with consumers lists its
	// DeadLetters and DeadLetterOps too.
	Streams []Stream

	// Consumers are our durables, on any of Streams.
	Consumers []Consumer

	// Site is where the set is, by its name in Network. Default: "", which a
	// platform of one site leaves.
	Site string

	// Network is the platform's sites; [Network.At] fills both. Default: none.
	Network Network
}

// StreamFor returns the declared stream that holds s. The error is an
// *UndeclaredError. In a valid Set there is at most one.
func (set Set) StreamFor(s subject.Subject) (Stream, error) {
	for i := range set.Streams { // a Stream is large, and this is asked of each message
		for _, f := range set.Streams[i].Subjects {
			if f.Matches(s) {
				return set.Streams[i], nil
			}
		}
	}
	return Stream{}, &UndeclaredError{Subject: s}
}

// assumedSize is what a stored message is assumed to need when a rate is held
// against MaxBytes: a typical envelope with its headers.
const assumedSize = 700

// Warnings returns what is allowed and likely to hurt: own streams that their
// declared rate fills before their age empties them, so that producers wait for
// most of the time. At 700 bytes a message, 10 GiB hold 7 days of 25 messages a
// second. It is empty for a Set without declared rates.
func (set Set) Warnings() []string {
	var warnings []string
	for _, s := range set.Streams {
		if s.owner() == set.Service {
			warnings = append(warnings, s.warnings()...)
		}
	}
	return warnings
}

func (s Stream) warnings() []string {
	bytesPerSecond := s.Rate * assumedSize
	needed := bytesPerSecond * s.MaxAge.Seconds()
	if s.MaxAge == 0 || needed <= float64(s.MaxBytes) {
		return nil
	}
	full := time.Duration(float64(s.MaxBytes) / bytesPerSecond * float64(time.Second)).Round(time.Minute)
	return []string{fmt.Sprintf(
		"stream %s is full after %s at %g messages of %d bytes a second, but keeps them for %s; then producers wait: raise MaxBytes to %d or lower MaxAge",
		s.Name, full, s.Rate, assumedSize, s.MaxAge, int64(needed))}
}

// own returns the streams that Ensure may create, foreign the others.
func (set Set) own() (own, foreign []Stream) {
	for _, s := range set.Streams {
		if s.owner() == set.Service {
			own = append(own, s)
		} else {
			foreign = append(foreign, s)
		}
	}
	return own, foreign
}
