package dvtest_test

import (
	"maps"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

func newMessage(t *testing.T) envelope.Message {
	t.Helper()
	origin := envelope.NewOrigin("user:kari", "tenant-1")
	origin.Traceparent = traceparent
	m, err := envelope.New(envelope.WithOrigin(t.Context(), origin), subject.Maskin, provisioned("server-1"))
	require.NoError(t, err)
	return m
}

func TestHeadersThatAreThereHold(t *testing.T) {
	t.Parallel()
	m := newMessage(t)
	want := map[string]string{
		envelope.HeaderMsgID: m.Envelope.ID, envelope.HeaderTenantID: "tenant-1", envelope.HeaderCausationID: "",
	}
	dvtest.RequireHeaders(t, m.Header(), want)
	dvtest.RequireHeaders(t, nats.Header(m.Header()), want)
	dvtest.RequireHeaders(t, envelope.Header(nil), nil)
}

func TestEveryDifferenceOfHeadersIsListed(t *testing.T) {
	t.Parallel()
	have := nats.Header{"a": {"1"}, "B": {"2"}, "c": {"3", "3"}, "e": {"5"}, "F": {"6"}, "other": {"x"}}
	said := failure(t, func(tb testing.TB) {
		dvtest.RequireHeaders(tb, have, map[string]string{"a": "9", "b": "2", "c": "3", "d": "4", "e": "", "f": ""})
	})
	require.Equal(t, `dvtest: headers differ:
  - a is "1", want "9"
  - b is missing, want "2"; "B" is there, but NATS tells cases apart
  - c comes 2 times, as ["3" "3"], want once "3"
  - d is missing, want "4"
  - e is ["5"], must be absent
  - f must be absent; "F" is there, but NATS tells cases apart
there are: B, F, a, c, e, other`, said)
}

func TestProjectionOfAnEnvelopeHolds(t *testing.T) {
	t.Parallel()
	m := newMessage(t)
	dvtest.RequireHeadersOf(t, m.Header(), m.Envelope)
	dvtest.RequireHeadersOf(t, nats.Header(m.Header()), m.Envelope)

	more := m.Header()
	more["foreign"], more[envelope.HeaderSite] = []string{"x", "y"}, []string{"dc1"}
	dvtest.RequireHeadersOf(t, more, m.Envelope)

	letter := m.Header()
	letter[envelope.HeaderLetterID], letter[envelope.HeaderMsgID] = []string{"l1"}, []string{"l1/d0"}
	dvtest.RequireHeadersOf(t, letter, m.Envelope)
}

func TestEachFaultOfAProjectionIsFound(t *testing.T) {
	t.Parallel()
	m := newMessage(t)
	for want, change := range map[string]func(envelope.Header){
		`Nats-Msg-Id is missing, want "` + m.Envelope.ID: func(h envelope.Header) { delete(h, envelope.HeaderMsgID) },
		`X-Event-Version is "2", want "1"`:               func(h envelope.Header) { h[envelope.HeaderEventVersion] = []string{"2"} },
		`X-Causation-Id is ["c"], must be absent`:        func(h envelope.Header) { h[envelope.HeaderCausationID] = []string{"c"} },
		`tenant-id comes 2 times`: func(h envelope.Header) {
			h[envelope.HeaderTenantID] = []string{"tenant-1", "tenant-2"}
		},
		`tenant-id is spelled in another case`:  func(h envelope.Header) { h["Tenant-Id"] = []string{"tenant-1"} },
		`trace-id is missing, want "4bf92f3577`: func(h envelope.Header) { delete(h, envelope.HeaderTraceID) },
		`traceparent is ["00-x"], must be absent`: func(h envelope.Header) {
			h[envelope.HeaderTraceparent] = []string{"00-x"}
		},
		`Nats-Msg-Id does not begin with the letter id`: func(h envelope.Header) { h[envelope.HeaderLetterID] = []string{"l1"} },
		`correlation-id says something else`:            func(h envelope.Header) { h["Correlation-ID"] = []string{"x"} },
	} {
		h := maps.Clone(m.Header())
		change(h)
		requireSays(t, failure(t, func(tb testing.TB) { dvtest.RequireHeadersOf(tb, h, m.Envelope) }), want)
	}
	requireSays(t, failure(t, func(tb testing.TB) { dvtest.RequireHeadersOf(tb, nats.Header{}, nil) }), "the envelope is nil")
}
