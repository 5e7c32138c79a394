package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
)

type dlqShow struct {
	owner owner
	id    letterID
	data  bool
}

func newDLQShow(fs *flag.FlagSet) verb {
	v := &dlqShow{}
	v.owner.register(fs)
	fs.BoolVar(&v.data, "data", false, "print the message itself too, and the values of foreign headers; they may hold what not everybody may see")
	return v
}

func (v *dlqShow) check(c *call) {
	v.owner.check(c)
	v.id = checkID(c)
}

// dlqShowResult is the JSON of dlq show.
type dlqShowResult struct {
	listed
	Actor string `json:"actor,omitempty"`
}

func (v *dlqShow) run(ctx context.Context, c *call) error {
	var r dlqShowResult
	err := c.withShelves(ctx, &v.owner, func(shelves []shelf) error {
		on, letter, err := v.id.find(ctx, shelves)
		r.listed = listed{on.service, letter}
		return err
	})
	if err != nil {
		return err
	}
	// The stored headers do not say who it was; the bytes do, where they are an
	// envelope at all.
	if e, err := envelope.Decode(r.Data); err == nil {
		r.Actor = string(e.Actor)
	}
	if !v.data {
		r.Data, r.OriginalHeader = nil, withheld(r.OriginalHeader)
	}
	return c.print(r, r.text)
}

func (r dlqShowResult) text(p *page) {
	p.list([]labelled{
		{"letter", r.ID},
		{"state", r.state(p)},
		{"failed", p.when(r.StoredAt)},
		{"class", string(r.Class)},
		{"cause", r.Error},
		{"attempts", r.attempts(p)},
		{"durable", r.Durable},
		{"fingerprint", r.Fingerprint},
	})
	p.gap()
	p.list(r.message(p))
	if len(r.OriginalHeader) > 0 || r.OriginalHeaderCut > 0 {
		p.gap()
		p.line("other headers of the message")
		for _, name := range slices.Sorted(maps.Keys(r.OriginalHeader)) {
			for _, value := range r.OriginalHeader[name] {
				p.line("  %s: %s", name, value)
			}
		}
		if r.OriginalHeaderCut > 0 {
			p.line("  … and %d more that found no room", r.OriginalHeaderCut)
		}
	}
	p.gap()
	p.history(r.Letter)
	p.gap()
	if r.Data != nil {
		p.data(r.Data)
		p.gap()
	}
	p.line("%s", r.next())
}

// state explains the state where its word is not enough.
func (r dlqShowResult) state(p *page) string {
	m := r.Mark
	switch {
	case m == nil:
		return string(r.State)
	case r.State == dlq.StateOpen && m.State == dlq.StateOpen:
		return fmt.Sprintf("open: restored by %s, %s", m.By, p.when(m.StoredAt))
	case r.State == dlq.StateOpen && m.State == dlq.StateDiscarded:
		return fmt.Sprintf("open: failed again after it was discarded by %s", m.By)
	case r.State == dlq.StateOpen:
		return fmt.Sprintf("open: failed again after replay %d", m.Round)
	case r.State == dlq.StateUnknown:
		return "unknown: the last mark cannot be read by this dvmsg; use the version that wrote it"
	case r.State == dlq.StateReplayed:
		return fmt.Sprintf("replayed: %s has not said yet that it handled replay %d, out since %s", r.Durable, m.Round, p.when(m.StoredAt))
	}
	return fmt.Sprintf("%s by %s, %s", r.State, m.By, p.when(m.StoredAt))
}

func (r dlqShowResult) attempts(p *page) string {
	text := fmt.Sprint(r.Attempts)
	if !r.FirstAt.IsZero() {
		text += ", first " + p.when(r.FirstAt)
	}
	if !r.LastAt.IsZero() {
		text += ", last " + p.when(r.LastAt)
	}
	return text
}

// message lists what is known of the original.
func (r dlqShowResult) message(p *page) []labelled {
	stored := ""
	if r.Stream != "" {
		stored = fmt.Sprintf("%s, message %d, %s", r.Stream, r.Sequence, orDash(p.when(r.OriginalStoredAt)))
	}
	typ := r.Type
	if r.Version != "" {
		typ += " v" + r.Version
	}
	size := fmt.Sprintf("%d bytes", r.Size)
	if r.DataOmitted {
		size += ", NOT in the letter: only where the original is stored"
	}
	return []labelled{
		{"message", r.OriginalID},
		{"type", strings.TrimSpace(typ)},
		{"resource", r.Resource},
		{"subject", r.Subject},
		{"stored", stored},
		{"size", size},
		{"source", r.Source},
		{"site", r.Site},
		{"actor", r.Actor},
		{"tenant", r.TenantID},
		{"correlation", r.CorrelationID},
		{"causation", r.CausationID},
		{"traceparent", r.Traceparent},
	}
}

// event is one line of a letter's history.
type event struct {
	at    time.Time
	cells []string
}

// history shows failures and decisions in the order in which the server stored
// them.
func (p *page) history(l dlq.Letter) {
	var events []event
	for _, c := range l.Copies {
		events = append(events, event{c.StoredAt, []string{
			p.when(c.StoredAt), "failed", fmt.Sprintf("%s, %s", c.Class, count(c.Attempts, "attempt")), c.Error,
		}})
	}
	for _, m := range l.Marks {
		events = append(events, event{m.StoredAt, []string{
			p.when(m.StoredAt), markWord(m), replayNumber(m), strings.Trim(strings.Join([]string{m.By, m.Reason, m.Note}, ": "), ": "),
		}})
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	rows := make([][]string, 0, len(events))
	for _, e := range events {
		rows = append(rows, e.cells)
	}
	p.table([]string{"HISTORY", "WHAT", "DETAIL", "WHO AND WHY"}, rows)
}

// markWord names a mark as what was done.
func markWord(m dlq.Mark) string {
	if m.State == dlq.StateOpen {
		return "restored"
	}
	return string(m.State)
}

func replayNumber(m dlq.Mark) string {
	switch {
	case m.Round == 0:
		return ""
	case m.NewData != "":
		return fmt.Sprintf("replay %d, with other data", m.Round)
	}
	return fmt.Sprintf("replay %d", m.Round)
}

// data prints the message: indented where it is JSON, else as bytes.
func (p *page) data(data []byte) {
	p.line("data")
	var indented bytes.Buffer
	text := hex.Dump(data)
	if utf8.Valid(data) && json.Indent(&indented, data, "", "  ") == nil {
		text = indented.String()
	}
	for line := range strings.Lines(text) {
		p.line("  %s", strings.TrimRight(line, "\n"))
	}
}

// next says what can be done about the letter.
func (r dlqShowResult) next() string {
	switch {
	case r.State == dlq.StateDiscarded:
		return fmt.Sprintf("next: nothing to do; to open it again: dvmsg dlq restore %s --by operator:NAME --reason WHY", r.ID)
	case r.State.Closed(), r.State == dlq.StateUnknown:
		return "next: nothing to do"
	case r.DataOmitted, r.Class == envelope.ClassSecurity:
		return fmt.Sprintf("next: it cannot be replayed; to close it: dvmsg dlq discard %s --by operator:NAME --reason WHY", r.ID)
	case r.State == dlq.StateReplayed:
		return fmt.Sprintf("next: wait for %s, or: dvmsg dlq replay %s --again --by operator:NAME --reason WHY", r.Durable, r.ID)
	}
	return fmt.Sprintf("next: dvmsg dlq replay %s --by operator:NAME --reason WHY", r.ID)
}
