package dlq

import (
	"strconv"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
)

// replaySuffix ends the name of the durable that reads the replays of another.
const replaySuffix = "__replay"

// original is the message that became a letter: where it was first stored and
// what it travelled with, also when the delivery that failed was a replay.
type original struct {
	subject  string
	stream   string
	sequence uint64
	storedAt time.Time
	id       string
	durable  string
	// header holds what the original had, server headers and ours left out;
	// cut is how many values an earlier letter had no room for.
	header envelope.Header
	cut    int
	// replay is the number of the replay that failed, 0 for none.
	replay int
}

// originalOf finds the original of f. Subject, stream and sequence come from
// the message itself, never from the consumer's configuration (a letter must
// find its way back), and for a replay from the headers that it carries.
func originalOf(f *envelope.Failure) original {
	o := original{
		subject: f.Subject, stream: f.Stream, sequence: f.Sequence, storedAt: f.StoredAt,
		id: f.Header.Get(envelope.HeaderMsgID), durable: f.Durable, header: foreign(f.Header),
	}
	if isLetterID(f.LetterID) {
		o.restore(f.Header)
	}
	if f.Envelope != nil {
		o.keepForged(f.Envelope.ID)
		o.id = f.Envelope.ID
	}
	o.id = oneLine(o.id, maxRepeated)
	return o
}

// keepForged keeps a message id that contradicts the envelope's: the one server
// header that is evidence. It is kept as text and never sent again.
func (o *original) keepForged(envelopeID string) {
	if o.id != "" && o.id != envelopeID {
		o.header[envelope.HeaderMsgID] = []string{o.id}
	}
}

// restore takes from the headers of a replay what the letter told it.
func (o *original) restore(h envelope.Header) {
	o.durable = strings.TrimSuffix(o.durable, replaySuffix)
	o.id = h.Get(HeaderOriginalID)
	r := reader{header: h}
	o.replay, o.cut = r.count(HeaderRound), r.count(HeaderOriginalHeaderCut)
	if text := h.Get(envelope.HeaderOriginalSubject); text != "" {
		o.subject = text
	}
	if text := h.Get(envelope.HeaderOriginalStream); text != "" {
		o.stream, o.sequence = text, uint64(r.count(envelope.HeaderOriginalSequence))
	}
	o.storedAt = r.time(HeaderOriginalStoredAt)
	for name := range o.header {
		if isReserved(name) {
			delete(o.header, name)
		}
	}
	for name, values := range unpack(h) {
		o.header[name] = append(o.header[name], values...)
	}
}

// foreign returns a copy of h without the server's headers.
func foreign(h envelope.Header) envelope.Header {
	kept := make(envelope.Header, len(h))
	for name, values := range h {
		if !isServer(name) {
			kept[name] = values[:len(values):len(values)]
		}
	}
	return kept
}

// ids returns the ids that the letter may have, the usual one first. The second
// is taken when another message already has the first, so that a forged or
// repeated envelope id can never swallow a letter.
func (o original) ids(f *envelope.Failure) []string {
	if isLetterID(f.LetterID) {
		return []string{f.LetterID}
	}
	position := idByPositionOf(o.durable, o.stream, o.storedAt, o.sequence)
	// An envelope that was caught contradicting its headers must not take the
	// letter of the message it pretends to be.
	if f.Envelope == nil || f.Class == envelope.ClassSecurity {
		return []string{position}
	}
	return []string{idByEnvelopeOf(o.durable, o.stream, f.Envelope.ID), position}
}

// form is how much of the original a letter holds.
type form uint8

const (
	// whole: bytes and headers, the usual form.
	whole form = iota
	// bare: without the original's other headers.
	bare
	// hollow: without the bytes too. They stay where the original is stored. It
	// is for the message that a foreign producer made so large that no letter
	// around it fits: without this form it would stop its consumer for good.
	hollow
)

// letter is a letter about to be stored.
type letter struct {
	id       string
	round    int
	failure  *envelope.Failure
	original original
}

// header returns the letter's headers in the given form.
func (l letter) header(as form) envelope.Header {
	h := repeatedHeader(l.failure, l.original)
	set(h, envelope.HeaderLetterID, l.id)
	set(h, HeaderRound, strconv.Itoa(l.round))
	l.setOriginal(h)
	l.setFailure(h)
	packed, cut := pack(h, l.original.header)
	if as != whole {
		packed, cut = nil, cut+len(packed)
	}
	if len(packed) > 0 {
		h[HeaderOriginalHeader] = packed
	}
	setCount(h, HeaderOriginalHeaderCut, cut+l.original.cut)
	if as == hollow {
		set(h, HeaderDataOmitted, strconv.Itoa(len(l.failure.Data)))
	}
	return h
}

// setOriginal says where the original is.
func (l letter) setOriginal(h envelope.Header) {
	o := l.original
	set(h, envelope.HeaderOriginalSubject, oneLine(o.subject, maxErrorRead))
	set(h, envelope.HeaderOriginalStream, oneLine(o.stream, maxRepeated))
	if o.sequence > 0 {
		set(h, envelope.HeaderOriginalSequence, strconv.FormatUint(o.sequence, 10))
	}
	setTime(h, HeaderOriginalStoredAt, o.storedAt)
	set(h, HeaderOriginalID, o.id)
	if e := l.failure.Envelope; e != nil {
		set(h, HeaderResource, oneLine(e.Subject, maxRepeated))
	}
}

// setFailure says what happened to it.
func (l letter) setFailure(h envelope.Header) {
	f := l.failure
	text := errorText(f.Err)
	set(h, HeaderDurable, oneLine(l.original.durable, maxRepeated))
	set(h, HeaderClass, oneLine(string(f.Class), maxRepeated))
	set(h, HeaderError, oneLine(text, maxError))
	setCount(h, HeaderAttempts, f.Attempts)
	setTime(h, HeaderFirstAt, f.FirstAt)
	setTime(h, HeaderLastAt, f.LastAt)
	set(h, HeaderFingerprint, fingerprint(f.Class, l.original.durable, h.Get(envelope.HeaderType), text))
}

// repeatedHeader returns the headers that the letter has under the names of the
// original: what the envelope says, and from the original's headers what the
// envelope does not know. Of an original that did not decode all of them are
// taken from its headers, as far as they are of a size that honest ones have.
func repeatedHeader(f *envelope.Failure, o original) envelope.Header {
	var projected envelope.Header
	if f.Envelope != nil {
		projected = envelope.Message{Envelope: f.Envelope}.Header()
	}
	h := make(envelope.Header, len(repeated)+len(reserved))
	for _, name := range repeated {
		text := o.header.Get(name)
		if f.Envelope != nil && !travels(name) {
			text = projected.Get(name)
		}
		if len(text) <= maxRepeated {
			set(h, name, oneLine(text, maxRepeated))
		}
	}
	return h
}

// travels reports whether the envelope knows nothing about a repeated header.
func travels(name string) bool {
	return name == envelope.HeaderTraceparent || name == envelope.HeaderTraceID || name == envelope.HeaderSite
}
