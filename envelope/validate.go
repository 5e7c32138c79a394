package envelope

import (
	"errors"
	"time"

	"codeberg.org/dataverket/messaging/internal/strictjson"
	"codeberg.org/dataverket/messaging/subject"
)

// reasonRequired is the reason of a field that is missing.
const reasonRequired = "is required"

// dataDepth is how many containers data stands in: the envelope itself.
const dataDepth = 1

// Validate checks every field and reports all faults at once, each as a
// [*FieldError] that names the field and the rule and never the value. It does
// not check the encoded size, which [Envelope.Encode] does.
func (e *Envelope) Validate() error {
	var reasons [fieldCount]string
	if e.validate(&reasons) {
		return nil
	}
	return joinFields(reasons[:])
}

// validate fills in why fields are refused, and returns whether none is.
func (e *Envelope) validate(reasons *[fieldCount]string) bool {
	valid := true
	for i := range fields {
		reasons[i] = e.reason(i)
		valid = valid && reasons[i] == ""
	}
	return valid
}

// reason returns why the i-th field is refused, or "".
func (e *Envelope) reason(i int) string {
	if text := e.text(i); text != nil {
		return e.textReason(i, *text)
	}
	return e.typedReason(i)
}

// joinFields joins the reasons, each of the field with its index, to one error.
func joinFields(reasons []string) error {
	var faults []error
	for i, reason := range reasons {
		if reason != "" {
			faults = append(faults, &FieldError{fields[i].name, reason})
		}
	}
	return errors.Join(faults...)
}

// textReason returns why the text of the i-th field is refused, or "".
func (e *Envelope) textReason(i int, text string) string {
	if i == fieldSchema && text != "" {
		_, reason := parseSchema(text, e.Type)
		return reason
	}
	return fields[i].reason(text)
}

// typedReason is textReason for the fields that have a type of their own.
func (e *Envelope) typedReason(i int) string {
	switch i {
	case fieldSource:
		return checkSource(e.Source)
	case fieldTime:
		return checkTime(e.Time)
	case fieldVisibility:
		return checkVisibility(e.Visibility)
	}
	if len(e.Data) == 0 {
		return reasonRequired
	}
	return checkData(e.Data)
}

// checkData returns why data is no payload, or "".
func checkData(data []byte) string {
	kind, err := strictjson.Check(data, dataDepth)
	if err != nil {
		return "is not acceptable JSON: " + err.Error()
	}
	return checkDataKind(kind)
}

// checkDataKind refuses everything but an object: an array cannot grow a field,
// and a string is how binary data is smuggled in (requirement E2).
func checkDataKind(kind strictjson.Kind) string {
	if kind == strictjson.KindObject {
		return ""
	}
	return "must be a JSON object, is " + kind.String() +
		": put large or binary data elsewhere and reference it with envelope.Artifact"
}

// checkSource returns why s is no source, or "".
func checkSource(s subject.Service) string {
	if !s.Valid() {
		return reasonSource()
	}
	return ""
}

// checkTime returns why t cannot be written, or "".
func checkTime(t time.Time) string {
	if t.IsZero() {
		return reasonRequired
	}
	if year := t.UTC().Year(); year < 0 || year > 9999 {
		return "is outside the years 0000 to 9999"
	}
	return ""
}

// checkVisibility returns why v is no visibility, or "".
func checkVisibility(v Visibility) string {
	if v != Internal && v != External {
		return `must be "internal" or "external"`
	}
	return ""
}
