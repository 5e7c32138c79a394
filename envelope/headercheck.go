package envelope

import (
	"errors"
	"slices"
	"strings"
)

// CheckHeader holds the headers of a stored message against the envelope, which
// is authoritative (requirement X4). It returns, joined, a [*MismatchError] for
// every own header that says something else, comes twice, or is spelled in
// another case, since readers would disagree about which one counts. Headers that
// are absent, and headers of others, are fine: foreign producers write fewer and
// others.
//
// On dead letters and replays, which carry Dv-Letter-Id, Nats-Msg-Id must begin
// with that id instead of being the envelope's.
func (e *Envelope) CheckHeader(h Header) error {
	var faults []*MismatchError
	for name, values := range h {
		if field, reason := e.headerMismatch(h, name, values); reason != "" {
			faults = append(faults, &MismatchError{field, reason})
		}
	}
	return joinMismatches(faults)
}

// joinMismatches joins each fault once, in an order that does not depend on the
// map: dead letters are grouped by the text of their error.
func joinMismatches(faults []*MismatchError) error {
	slices.SortFunc(faults, func(a, b *MismatchError) int {
		return strings.Compare(a.Error(), b.Error())
	})
	var all []error
	for i, f := range faults {
		if i == 0 || *f != *faults[i-1] {
			all = append(all, f)
		}
	}
	return errors.Join(all...)
}

// headerMismatch returns the own header that name stands for, and what is wrong
// with it, if anything.
func (e *Envelope) headerMismatch(h Header, name string, values []string) (own, reason string) {
	own = ownName(name)
	switch {
	case own == "" && sameFold(name, HeaderLegacyCorrelationID):
		return HeaderLegacyCorrelationID, legacyMismatch(values, e.CorrelationID)
	case own == "" || len(values) == 0:
		return "", ""
	case own != name:
		return own, "is spelled in another case: readers would disagree whether it counts"
	case len(values) > 1:
		return own, "comes more than once: readers would disagree which one counts"
	case own == HeaderMsgID && len(h[HeaderLetterID]) > 0:
		return own, letterMismatch(h.Get(HeaderLetterID), values[0])
	}
	for i := range projection {
		if p := &projection[i]; p.name == own && p.value(e) != values[0] {
			return own, reasonContradiction
		}
	}
	return "", ""
}

// reasonContradiction is said of a header that differs from the envelope.
const reasonContradiction = "says something else than the envelope"

// legacyMismatch checks the older name of the correlation header. It is no own
// name, so it may come in any case and more than once, but not with another
// value.
func legacyMismatch(values []string, correlation string) string {
	for _, v := range values {
		if v != correlation {
			return reasonContradiction
		}
	}
	return ""
}

// letterMismatch checks the deduplication id of a dead letter or a replay:
// "<letter id>/" and what counts the letters or the replays.
func letterMismatch(letter, id string) string {
	if rest, ok := strings.CutPrefix(id, letter+"/"); ok && rest != "" {
		return ""
	}
	return "does not begin with the letter id"
}
