package envelope

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// dataError reports that data does not marshal. The causes of encoding/json may
// quote what they met, and so may those of a type that writes itself; the text
// leaves that out, errors.As still finds the cause.
type dataError struct {
	text  string
	cause error
}

// Error returns the text that quotes nothing.
func (e *dataError) Error() string { return e.text }

// Unwrap returns the cause, whose text may quote the data.
func (e *dataError) Unwrap() error { return e.cause }

// dataReason explains why data does not decode, without what the causes of
// encoding/json quote ("number 4711").
func dataReason(err error) string {
	what := fmt.Sprintf("refused by %T", err)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		kind, _, _ := strings.Cut(e.Value, " ")
		what = fmt.Sprintf("field %q cannot take a %s as %s (byte %d)", e.Field, kind, e.Type, e.Offset)
	}
	return "the data does not fit: " + what + "; its producer breaks the contract of this version: mend it, and replay with corrected data"
}

// marshalFault explains why a payload does not marshal.
func marshalFault(err error) error {
	return &dataError{fmt.Sprintf("envelope: data: does not marshal: refused by %T", err), err}
}

// maxClip bounds foreign names in errors.
const maxClip = 64

// clip shortens a name that may be foreign for an error text, and replaces what
// would break a log line.
func clip(name string) string {
	cut := len(name) > maxClip
	if cut {
		name = name[:maxClip]
	}
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, name)
	if cut {
		name += "..."
	}
	return name
}
