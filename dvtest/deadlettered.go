package dvtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

// letterSearch looks for one dead letter of a service.
type letterSearch struct {
	conn    *natsconn.Conn
	service subject.Service
	filter  dlq.Filter
	queue   *dlq.Queue
	hits    []dlq.Letter
	letter  dlq.Letter
	err     error // of the last look
	found   bool
}

// RequireDeadLettered waits until exactly one dead letter of service passes filter,
// and returns it with the original's bytes. service is the one whose durable gave
// up. The zero filter is any letter that is not closed; Type, CorrelationID and
// Durable usually say which one a test means.
//
// It fails at once when several pass, and after [Within] (default [DefaultWait])
// when none does, and then lists every letter there is: id, class, type, cause,
// and what the filter has against it. Data is never printed.
func RequireDeadLettered(tb testing.TB, conn *natsconn.Conn, service subject.Service, filter dlq.Filter, within ...Patience) dlq.Letter {
	tb.Helper()
	if conn == nil {
		tb.Fatalf("dvtest: RequireDeadLettered: the connection is nil")
	}
	s := &letterSearch{conn: conn, service: service, filter: filter}
	limit := Within(DefaultWait)
	for _, w := range within {
		limit = w
	}
	limit.await(tb, s.look)
	if !s.found {
		tb.Fatalf("dvtest: %s", s.failure(tb))
	}
	return s.letter
}

// look lists the letters once and reports whether waiting has an end.
func (s *letterSearch) look(ctx context.Context) (done bool) {
	s.hits, s.err = s.list(ctx, s.filter)
	if _, wrong := errors.AsType[*dlq.FieldError](s.err); wrong {
		return true // the call itself is wrong
	}
	if s.err != nil || len(s.hits) != 1 {
		return len(s.hits) > 1
	}
	s.letter, s.err = s.queue.Show(ctx, s.hits[0].ID)
	s.found = s.err == nil
	return s.found
}

// list returns the letters that pass f. What is stored there but is no letter is
// nobody's hit, and not a reason to see none.
func (s *letterSearch) list(ctx context.Context, f dlq.Filter) (letters []dlq.Letter, err error) {
	if s.queue == nil {
		// The service under test may create its streams only now.
		quiet := dlq.Config{Logger: slog.New(slog.DiscardHandler)}
		if s.queue, err = dlq.Open(ctx, s.conn.JetStream(), s.service, quiet); err != nil {
			return nil, err
		}
	}
	for letter, err := range s.queue.List(ctx, f) {
		if _, malformed := errors.AsType[*dlq.MalformedError](err); malformed {
			continue
		}
		if err != nil {
			return nil, err
		}
		letters = append(letters, letter)
	}
	return letters, nil
}

// failure says what the last look saw.
func (s *letterSearch) failure(tb testing.TB) string {
	tb.Helper()
	wanted := fmt.Sprintf("dead letter of %s%s", s.service, describe(s.filter))
	if len(s.hits) > 1 {
		return fmt.Sprintf("%d times, want once: %s\n%snarrow it with Type, CorrelationID or Durable", len(s.hits), wanted, s.show(s.hits))
	}
	if s.err != nil {
		return fmt.Sprintf("cannot look for %s: %v", wanted, s.err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), lookGrace)
	defer cancel()
	all, err := s.list(ctx, dlq.Filter{State: dlq.StateAny})
	if err != nil {
		return fmt.Sprintf("there is no %s, and what there is cannot be listed: %v", wanted, err)
	}
	if len(all) == 0 {
		return fmt.Sprintf("there is no %s, nor any other: did the handler return envelope.Permanent, "+
			"or is the message still being retried?", wanted)
	}
	return fmt.Sprintf("there is no %s\n%s", wanted, s.show(all))
}

// show lists letters by what finds and explains them.
func (s *letterSearch) show(letters []dlq.Letter) string {
	var text strings.Builder
	fmt.Fprintf(&text, "there are (%d):\n", len(letters))
	for _, l := range letters[:min(len(letters), listed)] {
		fmt.Fprintf(&text, "  %s %s %s %s durable %s: %s\n", l.ID, l.State, l.Class, orNone(l.Type), l.Durable, l.Error)
		if against := against(s.filter, l); len(against) > 0 {
			fmt.Fprintf(&text, "    but %s\n", strings.Join(against, "; "))
		}
	}
	if more := len(letters) - listed; more > 0 {
		fmt.Fprintf(&text, "  … and %d more\n", more)
	}
	return text.String()
}

// orNone is for a message of which nothing decoded.
func orNone(text string) string {
	if text == "" {
		return "(no type)"
	}
	return text
}

// asked is one field of a filter and what a letter says there.
type asked struct{ name, want, have string }

// fieldsOf returns the fields of f that are compared as a whole, but the state.
func fieldsOf(f dlq.Filter, l dlq.Letter) []asked {
	return []asked{
		{"type", f.Type, l.Type},
		{"durable", f.Durable, l.Durable},
		{"class", string(f.Class), string(l.Class)},
		{"correlation", f.CorrelationID, l.CorrelationID},
		{"tenant", f.TenantID, l.TenantID},
		{"fingerprint", f.Fingerprint, l.Fingerprint},
		{"resource", f.Resource, l.Resource},
	}
}

// describe says what f asks for.
func describe(f dlq.Filter) string {
	text := ""
	for _, a := range fieldsOf(f, dlq.Letter{}) {
		if a.want != "" {
			text += fmt.Sprintf(", %s %q", a.name, a.want)
		}
	}
	if f.State != "" {
		text += fmt.Sprintf(", state %q", f.State)
	}
	return text
}

// against says why f does not let l through.
func against(f dlq.Filter, l dlq.Letter) (reasons []string) {
	for _, a := range fieldsOf(f, l) {
		if a.want != "" && a.want != a.have {
			reasons = append(reasons, fmt.Sprintf("%s is %q, want %q", a.name, a.have, a.want))
		}
	}
	switch {
	case f.State == "" && l.State.Closed():
		reasons = append(reasons, "it is closed; ask for it with Filter.State")
	case f.State != "" && f.State != dlq.StateAny && f.State != l.State:
		reasons = append(reasons, fmt.Sprintf("state is %q, want %q", l.State, f.State))
	}
	if l.StoredAt.Before(f.Since) || !f.Until.IsZero() && !l.StoredAt.Before(f.Until) {
		reasons = append(reasons, "it was stored outside of Since and Until")
	}
	return reasons
}
