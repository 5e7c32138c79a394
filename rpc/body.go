package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"codeberg.org/dataverket/messaging/internal/strictjson"
)

// bodyError says what is wrong with a body. The causes of encoding/json quote what
// they met, so the text leaves them out; errors.As still finds them.
type bodyError struct {
	text  string
	cause error
}

// Error returns the text that quotes nothing.
func (e *bodyError) Error() string { return e.text }

// Unwrap returns the cause, whose text may quote the body.
func (e *bodyError) Unwrap() error { return e.cause }

// encode returns the JSON object of the body that body points to. Behind a pointer,
// methods of pointer receivers are found, too.
func encode(body any) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, &bodyError{fmt.Sprintf("does not marshal: refused by %T", err), err}
	}
	// json.Marshal writes no space before the brace, and looked at the rest.
	if data[0] != '{' {
		return nil, &bodyError{"is no JSON object; pass a value, not a nil pointer", nil}
	}
	return data, nil
}

// decode reads a body by the strict rules of package strictjson: fields that the
// Go type does not have are ignored, everything that two readers could take for
// two things is refused.
func decode(data []byte, names *strictjson.Names, into any) error {
	o := strictjson.NewObject(data, names)
	for o.Next() {
		continue // the scan itself is what is wanted
	}
	if err := o.Err(); err != nil {
		return &bodyError{"is not acceptable JSON: " + err.Error(), err}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return &bodyError{misfit(err), err}
	}
	return nil
}

// misfit explains why a JSON object does not fit the Go type.
func misfit(err error) string {
	e, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return fmt.Sprintf("does not fit its Go type: refused by %T", err)
	}
	kind, _, _ := strings.Cut(e.Value, " ")
	return fmt.Sprintf("does not fit its Go type: field %q cannot take a %s as %s (byte %d)", e.Field, kind, e.Type, e.Offset)
}
