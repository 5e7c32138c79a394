package dvtest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// enqueuedRow is one row of the outbox.
type enqueuedRow struct {
	id, stream, subject, key, header string
	envelope                         *envelope.Envelope // nil when it does not decode
	fault                            error              // why
	data                             any                // of the type that is looked for
}

// read returns the whole outbox in the order of enqueueing. A test's outbox is
// small, and a failure has to say what else there is.
func (s *search) read(tb testing.TB, q Querier) []*enqueuedRow {
	tb.Helper()
	if q == nil {
		s.faults = append(s.faults, "the Querier is nil; pass the pool, or the test's own transaction")
	}
	if len(s.faults) > 0 {
		tb.Fatalf("dvtest: %s", strings.Join(s.faults, "\ndvtest: "))
	}
	sql := `select id::text, stream, subject, ordering_key, headers, envelope from ` +
		s.place.quoted(tb) + `.outbox_events order by seq`
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	found, err := q.Query(ctx, sql)
	if err != nil {
		tb.Fatalf("dvtest: read the outbox: %v", s.place.explain(err))
	}
	rows, err := pgx.CollectRows(found, scanEnqueued)
	if err != nil {
		tb.Fatalf("dvtest: read the outbox: %v", s.place.explain(err))
	}
	return rows
}

func scanEnqueued(row pgx.CollectableRow) (*enqueuedRow, error) {
	var r enqueuedRow
	var raw []byte
	if err := row.Scan(&r.id, &r.stream, &r.subject, &r.key, &r.header, &raw); err != nil {
		return nil, err
	}
	r.envelope, r.fault = envelope.Decode(raw)
	return &r, nil
}

// hits returns the rows that are looked for.
func (s *search) hits(rows []*enqueuedRow) (hits []*enqueuedRow) {
	for _, r := range rows {
		if differs, ok := s.misses(r); ok && len(differs) == 0 {
			hits = append(hits, r)
		}
	}
	return hits
}

// report says why there is no hit: the nearest miss, then what there is.
func (s *search) report(rows []*enqueuedRow) string {
	if len(rows) == 0 {
		return fmt.Sprintf("%s.outbox_events is empty: Enqueue was not called, its transaction was rolled back, "+
			"or it is still open and is not what this looks through", s.place)
	}
	near, differs := s.nearest(rows)
	if near == nil {
		return "nothing of this type is enqueued\n" + list("enqueued", rows)
	}
	return fmt.Sprintf("the nearest is message %s, but:\n  - %s\n%s", near.id, strings.Join(differs, "\n  - "), list("enqueued", rows))
}

// nearest returns the row of the wanted type that differs least, the earliest of
// several.
func (s *search) nearest(rows []*enqueuedRow) (near *enqueuedRow, differs []string) {
	for _, r := range rows {
		if d, ok := s.misses(r); ok && (near == nil || len(d) < len(differs)) {
			near, differs = r, d
		}
	}
	return near, differs
}

// listed is how many messages a failure shows; more would hide the reason.
const listed = 20

// list shows messages by what finds them, never by what they say.
func list(title string, rows []*enqueuedRow) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%d):\n", title, len(rows))
	for _, r := range rows[:min(len(rows), listed)] {
		fmt.Fprintf(&text, "  %s\n", r)
	}
	if more := len(rows) - listed; more > 0 {
		fmt.Fprintf(&text, "  … and %d more\n", more)
	}
	return text.String()
}

// String shows one row without its data.
func (r *enqueuedRow) String() string {
	if r.envelope == nil {
		return fmt.Sprintf("%s on %s: %v", r.id, r.subject, r.fault)
	}
	e := r.envelope
	text := fmt.Sprintf("%s %s v%d resource %q", r.id, e.Type, e.SchemaVersion(), e.Subject)
	if r.key != e.Subject {
		text += fmt.Sprintf(" key %q", r.key)
	}
	if e.TenantID != "" {
		text += fmt.Sprintf(" tenant %q", e.TenantID)
	}
	return text
}
