package cloudevents

import (
	"errors"
	"fmt"
)

// Sentinels, for errors.Is.
var (
	// ErrMalformed is wrapped by every error of [Decode]: these bytes will never
	// decode, however often they come.
	ErrMalformed = errors.New("cloudevents: malformed")
	// ErrTooLarge is wrapped when an event exceeds a limit: [MaxSize] or 128
	// attributes in both directions, 64 KiB of headers when read, 8 KiB when
	// written.
	ErrTooLarge = errors.New("cloudevents: too large")
)

// AttributeError says which attribute breaks which rule. Several come joined.
type AttributeError struct {
	// Name is the attribute's name, "data" for the data and "content-type" for
	// that header.
	Name string
	// Reason says what is wrong and what to do. It never holds the value.
	Reason string
}

// Error returns "cloudevents: <name>: <reason>", a long name cut short.
func (e *AttributeError) Error() string {
	return fmt.Sprintf("cloudevents: %s: %s", clip(e.Name), e.Reason)
}

// malformed wraps what keeps bytes from being decoded.
func malformed(err error) error { return fmt.Errorf("%w: %w", ErrMalformed, err) }

// maxClip bounds foreign names in texts.
const maxClip = 64

// clip shortens a name that may be foreign, and quotes it where it would break a
// log line.
func clip(name string) string {
	if len(name) > maxClip {
		name = name[:maxClip] + "..."
	}
	if visible(name) {
		return name
	}
	return fmt.Sprintf("%+q", name)
}
