package envelope

import (
	"encoding/json"
	"fmt"
	"strings"

	"codeberg.org/dataverket/messaging/internal/strictjson"
	"codeberg.org/dataverket/messaging/subject"
)

// Decode reads one envelope strictly, by the rules in the package documentation,
// and validates it. Data and the unknown fields alias data, which must not be
// changed afterwards.
//
// Every error wraps [ErrMalformed]: decoding the same bytes again never helps.
// Too many bytes wrap [ErrTooLarge] as well; bytes that are no acceptable JSON
// are reported with offset and reason; otherwise all faulty fields are reported
// at once, each as a [*FieldError]. No error holds any of the content.
func Decode(data []byte) (*Envelope, error) {
	if len(data) > MaxSize {
		return nil, malformed(tooLarge(len(data)))
	}
	d := decoder{data: data, env: new(Envelope)}
	object := strictjson.NewObject(data, fieldNames)
	for object.Next() {
		d.member(&object)
	}
	if err := object.Err(); err != nil {
		return nil, malformed(err)
	}
	d.fill()
	if d.reasons != nil {
		return nil, malformed(joinFields(d.reasons))
	}
	return d.env, nil
}

// malformed wraps what keeps bytes from being decoded.
func malformed(err error) error { return fmt.Errorf("%w: %w", ErrMalformed, err) }

// tooLarge says how large and what to do about it.
func tooLarge(size int) error {
	return fmt.Errorf("%w: %d bytes exceed the limit of %d: "+
		"put large data elsewhere and reference it with envelope.Artifact", ErrTooLarge, size, MaxSize)
}

// decoder collects what the members hold, as parts of the input.
type decoder struct {
	data    []byte
	env     *Envelope
	spans   [fieldCount]span
	escaped uint     // bit per text that holds escapes
	reasons []string // why a field is refused, by index; nil as long as none is
}

// span is where in the input a text lies, without its quotes. An envelope is far
// smaller than what an int32 holds.
type span struct{ from, to int32 }

// member takes one member of the object.
func (d *decoder) member(o *strictjson.Object) {
	i := o.Known()
	switch {
	case i < 0:
		d.unknown(o)
	case i == fieldData:
		d.check(i, checkDataKind(o.Kind()))
		d.env.Data = json.RawMessage(o.Raw())
	case o.Kind() != strictjson.KindString:
		d.check(i, "must be a string, is "+o.Kind().String()+"; leave the field out when it has no value")
	default:
		d.text(i, o)
	}
}

// text takes the value of a field that is text.
func (d *decoder) text(i int, o *strictjson.Object) {
	from, to := o.Span()
	if to-from == len(`""`) {
		d.check(i, "is empty; leave the field out when it has no value")
		return
	}
	d.spans[i] = span{int32(from + 1), int32(to - 1)}
	if o.Escaped() {
		d.escaped |= 1 << i
	}
}

// check notes why the i-th field is refused, if it is.
func (d *decoder) check(i int, reason string) {
	if reason == "" {
		return
	}
	if d.reasons == nil {
		d.reasons = make([]string, fieldCount)
	}
	d.reasons[i] = reason
}

// unknown keeps a field that this version does not know. A string's quotes are
// part of its bytes.
func (d *decoder) unknown(o *strictjson.Object) {
	if d.env.unknown == nil {
		d.env.unknown = make([]rawField, 0, 4)
	}
	d.env.unknown = append(d.env.unknown, rawField{o.Name(), o.Raw()})
}

// fill moves the texts into the envelope and checks them. They are unescaped into
// one string of which every field is a part: one allocation instead of one for
// each field, at the price that whoever keeps one id keeps the others too.
func (d *decoder) fill() {
	var all strings.Builder
	all.Grow(d.textSize())
	for i := range fields {
		s := d.spans[i]
		if s.to == 0 {
			d.absent(i)
			continue
		}
		raw := d.data[s.from:s.to]
		from := all.Len()
		if d.escaped>>i&1 == 1 {
			raw = strictjson.AppendUnescaped(nil, raw)
		}
		all.Write(raw)
		d.check(i, d.set(i, all.String()[from:]))
	}
}

// absent checks a field that has no text.
func (d *decoder) absent(i int) {
	refused := d.reasons != nil && d.reasons[i] != ""
	if fields[i].required && !refused && (i != fieldData || d.env.Data == nil) {
		d.check(i, reasonRequired)
	}
}

// set fills the i-th field, or returns the reason why it cannot.
func (d *decoder) set(i int, text string) string {
	if kept := d.env.text(i); kept != nil {
		*kept = text
		return d.env.textReason(i, text)
	}
	return d.setTyped(i, text)
}

// textSize bounds what fill writes, since unescaping never lengthens. It must not
// be exceeded: a builder that grows would leave the fields filled so far in
// memory of their own.
func (d *decoder) textSize() int {
	size := 0
	for _, s := range d.spans {
		size += int(s.to - s.from)
	}
	return size
}

// setTyped is set for the fields that have a type of their own.
func (d *decoder) setTyped(i int, text string) string {
	switch i {
	case fieldSource:
		source, err := subject.ParseService(text)
		if err != nil {
			return reasonSource()
		}
		d.env.Source = source
	case fieldTime:
		t, ok := parseTime(text)
		if !ok {
			return "must be RFC 3339 in UTC, with Z: 2026-01-31T23:59:59.999999Z"
		}
		d.env.Time = t
		return checkTime(t)
	case fieldVisibility:
		if text != wireInternal {
			d.env.Visibility = Visibility(text)
		}
		return checkVisibility(d.env.Visibility)
	}
	return ""
}
