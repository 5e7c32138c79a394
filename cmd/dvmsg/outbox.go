package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"

	"codeberg.org/dataverket/messaging/outbox"
)

func outboxCommands() table {
	return table{{
		path: "outbox status", summary: "say who publishes and what waits to be published", needs: needsDatabase,
		about: `Reads the database only; neither relay nor broker is asked. Unpublished rows that
grow old while a relay leads mean that the broker does not take them: look at the
service's log and at "dvmsg topology verify". HELD are messages of parked keys: see
"dvmsg outbox parked list". RETAINED are published ones; BACK TO is how far a rewind
can go.`,
		examples: []string{"dvmsg outbox status --database postgres://maskin@db:5432/maskin"},
		make: func(fs *flag.FlagSet) verb {
			v := &outboxStatus{}
			v.schema.register(fs)
			return v
		},
	}}
}

type outboxStatus struct{ schema schema }

// outboxResult is the JSON of outbox status.
type outboxResult struct {
	Schema string `json:"schema"`
	outbox.Status
}

func (v *outboxStatus) check(c *call) { v.schema.check(c) }

func (v *outboxStatus) run(ctx context.Context, c *call) error {
	pool, err := c.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	status, err := outbox.ReadStatus(ctx, pool, v.schema.name)
	if err != nil {
		return err
	}
	status.Streams = append([]outbox.StreamStatus{}, status.Streams...) // [] and not null
	r := outboxResult{v.schema.name, status}
	return c.print(r, r.text)
}

func (r outboxResult) text(p *page) {
	p.list([]labelled{
		{"schema", r.Schema},
		{"relay", r.relay(p)},
		{"rows", r.rows()},
	})
	p.gap()
	if len(r.Streams) == 0 {
		p.line("no stream yet: nothing was ever published or waits")
		return
	}
	rows := make([][]string, 0, len(r.Streams))
	for _, s := range r.Streams {
		rows = append(rows, []string{s.Stream, unpublished(s), oldest(s), strconv.FormatInt(s.AckedSequence, 10), p.when(s.Moved), backlog(s)})
	}
	p.table([]string{"STREAM", "UNPUBLISHED", "OLDEST", "STORED UP TO", "LAST MOVED", "STATE"}, rows)
	p.gap()
	rows = rows[:0]
	for _, s := range r.Streams {
		rows = append(rows, []string{
			s.Stream, parkedKeys(s), held(s), strconv.FormatInt(s.Discarded, 10), retained(s), p.when(s.OldestAnchor), rewinds(p, s),
		})
	}
	p.table([]string{"STREAM", "PARKED", "HELD", "DISCARDED", "RETAINED", "BACK TO", "REWINDS"}, rows)
}

func (r outboxResult) relay(p *page) string {
	switch {
	case r.Leader == "":
		return "none ever ran: nothing is published"
	case !r.Led:
		return fmt.Sprintf("NONE LEADS: nothing is published; %s (term %d) led until %s", r.Leader, r.Term, p.when(r.LeaseExpires))
	}
	return fmt.Sprintf("%s leads (term %d) until %s", r.Leader, r.Term, p.when(r.LeaseExpires))
}

func (r outboxResult) rows() string {
	if r.RowsEstimate < 0 {
		return "unknown before the first ANALYZE"
	}
	return fmt.Sprintf("about %d, published ones included", r.RowsEstimate)
}

func unpublished(s outbox.StreamStatus) string { return atLeast(s.Unpublished, s.Capped) }

// held is how many messages of parked keys wait behind the cursor.
func held(s outbox.StreamStatus) string { return atLeast(s.Held, s.HeldCapped) }

// atLeast gives a number that may not be all.
func atLeast(n int64, capped bool) string {
	text := strconv.FormatInt(n, 10)
	if capped {
		text = "more than " + text
	}
	return text
}

func parkedKeys(s outbox.StreamStatus) string {
	if s.Parked == 0 {
		return "0"
	}
	return fmt.Sprintf("%s, for %s", count(int(s.Parked), "key"), age(s.OldestParkedAge))
}

func retained(s outbox.StreamStatus) string {
	if s.RetainedEstimate < 0 {
		return "unknown"
	}
	return "about " + strconv.FormatInt(s.RetainedEstimate, 10)
}

func rewinds(p *page, s outbox.StreamStatus) string {
	if s.Rewinds == 0 {
		return "0"
	}
	return fmt.Sprintf("%d, last %s", s.Rewinds, p.when(s.RewoundAt))
}

func oldest(s outbox.StreamStatus) string {
	if s.Unpublished == 0 {
		return ""
	}
	return age(s.OldestAge)
}

func backlog(s outbox.StreamStatus) string {
	switch {
	case s.Recreated:
		return "STREAM MADE ANEW: see dvmsg outbox accept"
	case s.RewindRequests > 0:
		return "to be rewound"
	case s.Walking:
		return "draining a backlog"
	case s.Unpublished > 0:
		return "waiting"
	}
	return "up to date"
}
