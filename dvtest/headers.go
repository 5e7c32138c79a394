package dvtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"codeberg.org/dataverket/messaging/envelope"
)

// RequireHeaders fails the test unless header, an envelope.Header or a
// nats.Header, has each wanted one exactly once, with this value and spelled
// exactly so. A wanted "" means that the header must be absent. Headers that are
// not wanted are ignored. The failure lists every difference.
func RequireHeaders[H ~map[string][]string](tb testing.TB, header H, want map[string]string) {
	tb.Helper()
	if faults := headerFaults(header, want); len(faults) > 0 {
		failHeaders(tb, header, faults)
	}
}

// RequireHeadersOf fails the test unless header says everything that the library
// writes about the envelope e, and nothing that contradicts it: each header of the
// projection is there once, those of absent fields are absent, and a trace-id
// stands beside a traceparent that it belongs to (requirements X1, X3, X4). Other
// headers are ignored. On a dead letter or a replay, Nats-Msg-Id begins with the
// letter's id instead.
func RequireHeadersOf[H ~map[string][]string](tb testing.TB, header H, e *envelope.Envelope) {
	tb.Helper()
	if e == nil {
		tb.Fatalf("dvtest: RequireHeadersOf: the envelope is nil")
	}
	have := envelope.Header(header)
	faults := headerFaults(have, projectionOf(have, e))
	faults = append(faults, contradictions(have, e, faults)...)
	if len(faults) > 0 {
		failHeaders(tb, header, faults)
	}
}

// contradictions lists what CheckHeader finds beyond the faults that were found
// already, with their values: own names in another case, doubled foreign
// spellings, a Nats-Msg-Id that does not belong to its letter.
func contradictions(have envelope.Header, e *envelope.Envelope, known []string) (more []string) {
	joined, ok := e.CheckHeader(have).(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	for _, err := range joined.Unwrap() {
		m, ok := errors.AsType[*envelope.MismatchError](err)
		said := ok && slices.ContainsFunc(known, func(f string) bool { return strings.HasPrefix(f, m.Field+" ") })
		if ok && !said {
			more = append(more, m.Field+" "+m.Reason)
		}
	}
	return more
}

// projectionOf returns the headers that e is to have, "" for those that must be
// absent.
func projectionOf(have envelope.Header, e *envelope.Envelope) map[string]string {
	trace := have.Get(envelope.HeaderTraceparent)
	h := envelope.Message{Envelope: e, Traceparent: trace}.Header()
	want := map[string]string{
		envelope.HeaderCausationID: "", envelope.HeaderTenantID: "",
		envelope.HeaderTraceparent: "", envelope.HeaderTraceID: "",
	}
	for name := range h {
		want[name] = h.Get(name)
	}
	if have.Get(envelope.HeaderLetterID) != "" {
		delete(want, envelope.HeaderMsgID) // CheckHeader holds it against the letter
	}
	return want
}

// headerFaults lists how have differs from want, by name.
func headerFaults(have map[string][]string, want map[string]string) (faults []string) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if fault := headerFault(have, name, want[name]); fault != "" {
			faults = append(faults, name+" "+fault)
		}
	}
	return faults
}

func headerFault(have map[string][]string, name, want string) string {
	values := have[name]
	switch {
	case want == "" && len(values) > 0:
		return fmt.Sprintf("is %q, must be absent", values)
	case want == "" && otherCase(have, name) != "":
		return "must be absent" + otherCase(have, name)
	case want == "":
		return ""
	case len(values) == 0:
		return fmt.Sprintf("is missing, want %q%s", want, otherCase(have, name))
	case len(values) > 1:
		return fmt.Sprintf("comes %d times, as %q, want once %q", len(values), values, want)
	case values[0] != want:
		return fmt.Sprintf("is %q, want %q", values[0], want)
	}
	return ""
}

// otherCase finds the header that was probably meant. NATS compares names byte by
// byte, net/http changes their case.
func otherCase(have map[string][]string, name string) string {
	for other := range have {
		if strings.EqualFold(other, name) {
			return fmt.Sprintf("; %q is there, but NATS tells cases apart", other)
		}
	}
	return ""
}

func failHeaders[H ~map[string][]string](tb testing.TB, header H, faults []string) {
	tb.Helper()
	tb.Fatalf("dvtest: headers differ:\n  - %s\nthere are: %s",
		strings.Join(faults, "\n  - "), strings.Join(slices.Sorted(maps.Keys(header)), ", "))
}
