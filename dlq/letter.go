package dlq

import (
	"encoding/hex"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
)

// Letter is one dead letter: a message that one durable could not handle, and
// what is known about it. Letters are values; those that List yields have no
// Data, no Marks and no Copies. The JSON form is that of dvmsg --json.
type Letter struct {
	// ID stays the same over all replays of the letter.
	ID string `json:"id"`
	// State is derived from the newest copy and the last mark.
	State State `json:"state"`
	// Round is how many replays came before the last failure.
	Round int `json:"round"`

	// Durable is the consumer that gave up, and that a replay is for.
	Durable string `json:"durable"`
	// Class, Error and Attempts say why and after how many starts. Error is one
	// line of at most 1 KiB.
	Class    envelope.Class `json:"class"`
	Error    string         `json:"error,omitempty"`
	Attempts int            `json:"attempts"`
	// FirstAt and LastAt are the first and the last attempt, by the consumer's
	// clock.
	FirstAt time.Time `json:"first_at,omitzero"`
	LastAt  time.Time `json:"last_at,omitzero"`
	// Fingerprint is equal on letters that failed alike: 64 hex digits over
	// class, durable, type and the error without its variable parts.
	Fingerprint string `json:"fingerprint,omitempty"`

	// Subject, Stream and Sequence are where the original was stored, and when.
	Subject          string    `json:"subject"`
	Stream           string    `json:"stream,omitempty"`
	Sequence         uint64    `json:"sequence,omitempty"`
	OriginalStoredAt time.Time `json:"original_stored_at,omitzero"`
	// OriginalID is the message id of the original: its envelope's, or its
	// header's where no envelope decoded.
	OriginalID string `json:"original_id,omitempty"`

	// What the envelope said. Where it did not decode these come from the
	// original's headers and are claims of whoever published it.
	Type          string `json:"type,omitempty"`
	Version       string `json:"version,omitempty"`
	Source        string `json:"source,omitempty"`
	CorrelationID string `json:"correlation_id,omitempty"`
	CausationID   string `json:"causation_id,omitempty"`
	TenantID      string `json:"tenant_id,omitempty"`
	Traceparent   string `json:"traceparent,omitempty"`
	Site          string `json:"site,omitempty"`
	// Resource is the envelope's subject: what the message is about. It is known
	// only where the envelope decoded.
	Resource string `json:"resource,omitempty"`

	// OriginalHeader holds the original's other headers: foreign ones, and own
	// ones that contradicted the envelope. OriginalHeaderCut is how many values
	// found no room.
	OriginalHeader    envelope.Header `json:"original_header,omitempty"`
	OriginalHeaderCut int             `json:"original_header_cut,omitempty"`

	// LetterSequence and StoredAt are where and when the newest copy of the
	// letter was stored in the dead-letter stream.
	LetterSequence uint64    `json:"letter_sequence"`
	StoredAt       time.Time `json:"stored_at"`
	// Size is that of the original's bytes. DataOmitted says that they found no
	// room in the letter; then they are only where the original was stored.
	Size        int  `json:"size"`
	DataOmitted bool `json:"data_omitted,omitempty"`
	// Data holds the original's bytes, unchanged. Only [Queue.Show] fills it; in
	// JSON it is base64, since nothing says that the bytes are text.
	Data []byte `json:"data,omitempty"`

	// Mark is the last mark, nil when nobody acted on the letter yet.
	Mark *Mark `json:"mark,omitempty"`
	// Marks holds all marks, oldest first. Only [Queue.Show] fills it.
	Marks []Mark `json:"marks,omitempty"`
	// Copies holds one entry for each stored failure of the letter, oldest
	// first. Only [Queue.Show] fills it.
	Copies []Copy `json:"copies,omitempty"`

	// header is what the newest copy was stored with; a replay is made from it.
	header envelope.Header
}

// Copy is one stored failure in the history of a letter.
type Copy struct {
	// Sequence and StoredAt are where and when it was stored.
	Sequence uint64    `json:"sequence"`
	StoredAt time.Time `json:"stored_at"`
	// Round is how many replays came before it.
	Round    int            `json:"round"`
	Class    envelope.Class `json:"class"`
	Error    string         `json:"error,omitempty"`
	Attempts int            `json:"attempts"`
	LastAt   time.Time      `json:"last_at,omitzero"`
}

// LogValue returns what finds the letter again, without anything that a payload
// may have leaked into: no data, no error text, no foreign header.
func (l Letter) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("id", l.ID),
		slog.String("state", string(l.State)),
		slog.Int("round", l.Round),
		slog.String("durable", l.Durable),
		slog.String("class", string(l.Class)),
		slog.String("fingerprint", l.Fingerprint),
		slog.Int("attempts", l.Attempts),
		slog.String("type", l.Type),
		slog.String("original_id", l.OriginalID),
		slog.String("correlation_id", l.CorrelationID),
		slog.Int("size", l.Size),
	)
}

// copy returns l as an entry of its own history.
func (l Letter) copy() Copy {
	return Copy{
		Sequence: l.LetterSequence, StoredAt: l.StoredAt, Round: l.Round,
		Class: l.Class, Error: l.Error, Attempts: l.Attempts, LastAt: l.LastAt,
	}
}

// place returns which copy l is.
func (l *Letter) place() place { return place{stored{l.LetterSequence, l.StoredAt}, l.Round} }

// batch returns the batch that the last mark belongs to.
func (l *Letter) batch() string {
	if l.Mark == nil {
		return ""
	}
	return l.Mark.Batch
}

// settle sets what follows from the last mark.
func (l *Letter) settle(last *Mark) {
	l.Mark = last
	l.State = derive(l.place(), last)
}

// idPrefix and idDigits are the form of a letter id; package subject checks it
// where an id becomes a subject.
const (
	idPrefix = "l"
	idDigits = 40
)

// Parts of what a letter id is the digest of.
const (
	idDomain     = "dv.letter.v1"
	idByEnvelope = "envelope"
	idByPosition = "position"
)

// letterID returns the id over parts.
func letterID(parts ...string) string {
	sum := digest(parts...)
	return idPrefix + hex.EncodeToString(sum[:])[:idDigits]
}

// idByEnvelopeOf returns the id of the letter that durable makes of a message of
// stream: the same however often the message is stored, redelivered or
// republished.
func idByEnvelopeOf(durable, stream, envelopeID string) string {
	return letterID(idDomain, durable, stream, idByEnvelope, envelopeID)
}

// idByPositionOf returns the id for a message whose envelope cannot be relied
// on. The time is part of it because a stream that lost its tail gives the same
// sequence out again.
func idByPositionOf(durable, stream string, storedAt time.Time, sequence uint64) string {
	nanos := int64(0)
	if !storedAt.IsZero() {
		nanos = storedAt.UnixNano()
	}
	return letterID(idDomain, durable, stream, idByPosition,
		strconv.FormatInt(nanos, 10), strconv.FormatUint(sequence, 10))
}

// isLetterID reports whether text has the form of a letter id.
func isLetterID(text string) bool {
	if len(text) != len(idPrefix)+idDigits || text[:len(idPrefix)] != idPrefix {
		return false
	}
	for _, c := range []byte(text[len(idPrefix):]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// parseLetter reads the headers of a letter. What cannot be read stays zero, so
// that one damaged header does not hide the rest; the error joins the faults.
func parseLetter(h envelope.Header) (Letter, error) {
	r := reader{header: h}
	l := Letter{
		ID:                r.text(envelope.HeaderLetterID),
		Round:             r.count(HeaderRound),
		Durable:           r.text(HeaderDurable),
		Class:             envelope.Class(r.text(HeaderClass)),
		Error:             r.text(HeaderError),
		Attempts:          r.count(HeaderAttempts),
		FirstAt:           r.time(HeaderFirstAt),
		LastAt:            r.time(HeaderLastAt),
		Fingerprint:       r.text(HeaderFingerprint),
		Subject:           r.text(envelope.HeaderOriginalSubject),
		Stream:            r.text(envelope.HeaderOriginalStream),
		Sequence:          uint64(r.count(envelope.HeaderOriginalSequence)),
		OriginalStoredAt:  r.time(HeaderOriginalStoredAt),
		OriginalID:        r.text(HeaderOriginalID),
		Type:              r.text(envelope.HeaderType),
		Version:           r.text(envelope.HeaderEventVersion),
		Source:            r.text(envelope.HeaderSource),
		CorrelationID:     r.text(envelope.HeaderCorrelationID),
		CausationID:       r.text(envelope.HeaderCausationID),
		TenantID:          r.text(envelope.HeaderTenantID),
		Traceparent:       r.text(envelope.HeaderTraceparent),
		Site:              r.text(envelope.HeaderSite),
		Resource:          r.text(HeaderResource),
		OriginalHeader:    unpack(h),
		OriginalHeaderCut: r.count(HeaderOriginalHeaderCut),
		Size:              r.count(HeaderDataOmitted),
		DataOmitted:       h.Get(HeaderDataOmitted) != "",
		header:            h,
	}
	if l.Fingerprint == "" {
		// Of another author; without one it would be in no group.
		l.Fingerprint = fingerprint(l.Class, l.Durable, l.Type, l.Error)
	}
	if !isLetterID(l.ID) {
		r.fault(envelope.HeaderLetterID, "is no letter id")
	}
	return l, errors.Join(r.faults...)
}

// reader reads header values and collects what is wrong with them.
type reader struct {
	header envelope.Header
	faults []error
}

func (r *reader) fault(name, reason string) {
	r.faults = append(r.faults, &FieldError{name, reason})
}

func (r *reader) text(name string) string { return r.header.Get(name) }

// count reads a number; absent is zero.
func (r *reader) count(name string) int {
	text := r.header.Get(name)
	if text == "" {
		return 0
	}
	n, ok := count(text)
	if !ok {
		r.fault(name, "is no number")
		return 0
	}
	return n
}

// time reads a time; absent is the zero time.
func (r *reader) time(name string) time.Time {
	text := r.header.Get(name)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		r.fault(name, "is no time of RFC 3339")
		return time.Time{}
	}
	return t.UTC()
}
