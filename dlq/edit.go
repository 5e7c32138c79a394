package dlq

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/strictjson"
)

// Edit makes other data for a message that is replayed (requirement Q3). Make
// one with [Transform] or [ReplaceData]. An Edit is an immutable value, safe for
// concurrent use as far as its function is.
//
// Only the envelope's data changes: every other byte of the message stays, its id
// included, so that the inbox applies it once, as the message that died. The
// result must be an envelope again. The letter keeps its own bytes; the marks
// keep who, why and the hashes of old and new data. If the edited replay fails,
// the letter's next copy has the edited data, and the earlier copy the original.
type Edit struct {
	// change returns the new data of e.
	change func(e *envelope.Envelope) (json.RawMessage, error)
	// single says that the data is that of one letter.
	single bool
}

// Edited says what an edit does to the data of one letter.
type Edited struct {
	// Old and New are the SHA-256 of the data before and after, in hex.
	Old string `json:"old_data_sha256,omitempty"`
	New string `json:"new_data_sha256"`
	// Changes are the differences. They are data: show them to nobody who may not
	// see the letter's. Only a dry run fills it.
	Changes []Change `json:"changes,omitempty"`
}

// hashes returns both; nil is no edit.
func (e *Edited) hashes() (old, edited string) {
	if e == nil {
		return "", ""
	}
	return e.Old, e.New
}

// Transform returns the edit that decodes the data as t, gives it to change and
// encodes what change returns. What T does not know is kept: fields of the data
// that T has no field for, also inside nested objects, and inside the elements of
// a list whose length stays the same.
//
// A letter of another type or version, data that does not fit T, and an error of
// change are an [*EditError] for that letter; nothing is replayed. Data that does
// not fit T, as in a letter of class decode, is decoded by a type of the same
// name and version over map[string]any. A change that changes nothing is no
// edit: the letter's own bytes are replayed.
func Transform[T any](t envelope.Type[T], change func(old T) (T, error)) *Edit {
	return &Edit{change: func(e *envelope.Envelope) (json.RawMessage, error) {
		if change == nil {
			return nil, errors.New("no function to change it with")
		}
		if v := e.SchemaVersion(); v != t.Version() && e.Type == t.Name() {
			// Data of an older version would decode by an upcaster, and what is written
			// back would be the newer one's under the older one's name.
			return nil, fmt.Errorf("is version %d, and %s would write another: edit it with the Type of its own version", v, t)
		}
		old, err := t.Decode(e)
		if err != nil {
			return nil, err
		}
		before, err := json.Marshal(old) // first: change may write into what old refers to
		if err != nil {
			return nil, err
		}
		changed, err := change(old)
		if err != nil {
			return nil, err
		}
		after, err := json.Marshal(changed)
		if err != nil {
			return nil, err
		}
		data := merge(e.Data, before, after)
		return data, reads(t, e, data, after)
	}}
}

// reads returns an error unless a consumer that decodes data as t sees what the
// change returned. A type with an UnmarshalJSON of its own may read fields that
// it does not write.
func reads[T any](t envelope.Type[T], e *envelope.Envelope, data, want json.RawMessage) error {
	changed := *e
	changed.Data = data
	seen, err := t.Decode(&changed)
	if err != nil {
		return err
	}
	have, err := json.Marshal(seen)
	if err == nil && !sameJSON(have, want) {
		err = fmt.Errorf("%s does not decode from the changed data as it was changed: use ReplaceData", t)
	}
	return err
}

// ReplaceData returns the edit that puts data, a JSON object, in the place of the
// old data of one letter. It is checked to be what an envelope may hold and nothing
// more, since no type is known. It is copied.
func ReplaceData(data []byte) *Edit {
	data = bytes.Clone(data)
	return &Edit{single: true, change: func(*envelope.Envelope) (json.RawMessage, error) { return data, nil }}
}

// apply returns the message with its new data, and what changed; nil when nothing
// did.
func (e *Edit) apply(message []byte) ([]byte, *Edited, error) {
	if e.change == nil {
		return nil, nil, errors.New("is empty: make it with Transform or ReplaceData")
	}
	old, err := envelope.Decode(message)
	if err != nil {
		return nil, nil, fmt.Errorf("only the data of an envelope can be edited: have its producer publish an honest message: %w", err)
	}
	data, err := e.change(old)
	if err != nil {
		return nil, nil, err
	}
	data = bytes.TrimSpace(data)
	if len(data) == 0 || data[0] != '{' {
		return nil, nil, errors.New("the new data is no JSON object")
	}
	edited, err := splice(message, data)
	if err == nil {
		_, err = envelope.Decode(edited)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("with the new data it is no envelope: %w", err)
	}
	was := bytes.TrimSpace(old.Data)
	if sameJSON(was, data) {
		return message, nil, nil
	}
	return edited, &Edited{Old: hashOf(was), New: hashOf(data), Changes: changes(was, data)}, nil
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// splice returns the message with data in the place of its data, every other
// byte as it was: encoding the envelope anew would write another author's times
// and order of fields in our own way.
func splice(message, data []byte) ([]byte, error) {
	object := strictjson.NewObject(message, strictjson.NewNames("data"))
	from, to := 0, 0
	for object.Next() {
		if object.Known() == 0 {
			from, to = object.Span()
		}
	}
	if err := object.Err(); err != nil {
		return nil, err
	}
	edited := make([]byte, 0, len(message)-(to-from)+len(data))
	edited = append(edited, message[:from]...)
	edited = append(edited, data...)
	return append(edited, message[to:]...), nil
}
