package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/outbox"
)

func outboxRewindCommands() table {
	return table{
		{
			path: "outbox rewind", summary: "have published again what consumers or a copy lost", needs: needsDatabase,
			about: `Everything since a time, or all that is retained, is published again with the same
ids and in order; streams drop what they still remember, inboxes absorb what was
handled. The newest anchor that is not later than --since decides, so rather too
much is sent than too little; without one as old, or when a parked key was released
since, all. --key rewinds one key and leaves the others alone. Discarded and parked messages stay where they are.`,
			examples: []string{
				`dvmsg outbox rewind --stream DV_MASKIN_EVT --since 2h --by operator:ola --reason "plattform restored, DV-7" --dry-run`,
				`dvmsg outbox rewind --stream DV_MASKIN_EVT --since 2026-03-04T05:00:00Z --by operator:ola --reason "plattform restored, DV-7" --wait`,
				`dvmsg outbox rewind --stream DV_MASKIN_EVT --key server-17 --all --by operator:ola --reason "row repaired, DV-8"`,
			},
			make: newOutboxRewind,
		},
		{
			path: "outbox anchors", summary: "list where a rewind can go back to, and the rewinds so far", needs: needsDatabase,
			about: `Each anchor is an earlier cursor of the stream: one a second for a minute, one a
minute for an hour, one an hour for two days, then one a day, as far back as published
rows are kept. Give its time to "outbox rewind --since".`,
			examples: []string{"dvmsg outbox anchors --stream DV_MASKIN_EVT"},
			make:     newOutboxAnchors,
		},
		{
			path: "outbox accept", summary: "let the relay use a stream that was deleted and made anew", needs: needsDatabase,
			about: `Such a stream holds nothing of what the old one acknowledged, so the relay waits.
Accepted, every row that is still in the outbox is published to it, in order.
"outbox status" says which stream waits; --all accepts those that wait now.`,
			examples: []string{
				`dvmsg outbox accept --stream DV_MASKIN_EVT --by operator:ola --reason "disk replaced, DV-9"`,
				`dvmsg outbox accept --all --by operator:ola --reason "JetStream lost, DV-500"`,
			},
			make: newOutboxAccept,
		},
	}
}

// registerStream registers the flag --stream where it is required.
func registerStream(fs *flag.FlagSet, name *string) {
	fs.StringVar(name, "stream", "", "the destination `STREAM`, such as DV_MASKIN_EVT; required")
}

func checkStream(c *call, name string) {
	if name == "" {
		c.fault("--stream is missing: say which; dvmsg outbox status lists them")
	}
}

type outboxRewind struct {
	schema  schema
	request outbox.RewindRequest
	since   string
	decision
	following
	dryRun bool
}

func newOutboxRewind(fs *flag.FlagSet) verb {
	v := &outboxRewind{}
	v.schema.register(fs)
	registerStream(fs, &v.request.Stream)
	fs.StringVar(&v.since, "since", "", "what was published since this `TIME`: an age (90m, 2h, 3d) or 2006-01-02T15:04:05Z")
	fs.BoolVar(&v.request.All, "all", false, "everything that is still in the outbox")
	fs.StringVar(&v.request.Key, "key", "", "only this ordering `KEY`; default: the whole stream")
	v.decision.register(fs)
	v.following.register(fs)
	registerDryRun(fs, &v.dryRun)
	return v
}

func (v *outboxRewind) check(c *call) {
	v.schema.check(c)
	checkStream(c, v.request.Stream)
	v.decision.check(c)
	since, err := parseSince(v.since, c.now())
	switch {
	case err != nil:
		c.fault("--since: %v", err)
	case v.request.All == (v.since != ""):
		c.fault("say how far to go back, with either --since TIME or --all")
	}
	v.request.Since, v.request.By, v.request.Reason = since, v.by, v.reason
}

// outboxRewindResult is the JSON of outbox rewind.
type outboxRewindResult struct {
	Schema     string            `json:"schema"`
	DryRun     bool              `json:"dry_run"`
	Plan       outbox.RewindPlan `json:"plan"`
	Rewind     *outbox.Rewind    `json:"rewind,omitempty"` // what was asked for; not of a dry run
	CarriedOut bool              `json:"carried_out"`      // with --wait: the cursor is set back, or the key is published again
	since      bool              // a time was given
}

func (v *outboxRewind) run(ctx context.Context, c *call) error {
	r := outboxRewindResult{Schema: v.schema.name, DryRun: v.dryRun, since: v.since != ""}
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) (err error) {
		if r.Plan, err = outbox.PlanRewind(ctx, pool, v.schema.name, v.request); err != nil || v.dryRun {
			return err
		}
		asked, err := outbox.RequestRewind(ctx, pool, v.schema.name, v.request)
		if err != nil {
			return err
		}
		r.Rewind = &asked
		r.CarriedOut, err = v.until(ctx, func() (bool, error) { return v.done(ctx, pool, r.Rewind) })
		return err
	})
	// What was asked for is reported even if it could not be waited for.
	if err == nil || r.Rewind != nil {
		err = errors.Join(c.print(r, r.text), err)
	}
	return err
}

// done tells whether the relay has carried a rewind out.
func (v *outboxRewind) done(ctx context.Context, pool *pgxpool.Pool, asked *outbox.Rewind) (bool, error) {
	if asked.Key != "" {
		return keyDone(ctx, pool, v.schema.name, asked.Stream, asked.Key)
	}
	all, err := outbox.ListRewinds(ctx, pool, v.schema.name, asked.Stream)
	for _, r := range all {
		if r.RequestedAt.Equal(asked.RequestedAt) {
			*asked = r
		}
	}
	return !asked.DoneAt.IsZero(), err
}

func (r outboxRewindResult) text(p *page) {
	what := r.Plan.Stream
	if r.Plan.Key != "" {
		what = fmt.Sprintf("key %q of %s", r.Plan.Key, what)
	}
	lead := "asked for a rewind of " + what + ", to "
	if r.DryRun {
		lead = "would rewind " + what + " to "
	}
	switch anchor := r.anchor(); {
	case !anchor.IsZero():
		p.line("%sthe anchor of %s", lead, p.precise(anchor))
	case r.since:
		p.line("%sthe oldest retained row: no usable anchor is that old", lead)
	default:
		p.line("%sthe oldest retained row", lead)
	}
	p.list([]labelled{
		{"publishes", r.messages()},
		{"rows", fmt.Sprintf("%d to %d", r.Plan.FirstSeq, r.Plan.LastSeq)},
		{"oldest", p.when(r.Plan.Oldest)},
		{"newest", p.when(r.Plan.Newest)},
	})
	switch {
	case r.DryRun:
	case r.Plan.Key != "":
		p.follow(r.CarriedOut, "the key is published again")
	default:
		p.follow(r.CarriedOut, "the cursor is set back, and what is UNPUBLISHED in dvmsg outbox status is sent again")
	}
}

// anchor is the one that was asked for, or would be.
func (r outboxRewindResult) anchor() time.Time {
	if r.Rewind != nil {
		return r.Rewind.Anchor
	}
	return r.Plan.Anchor
}

func (r outboxRewindResult) messages() string {
	text := fmt.Sprintf("%s of %s", count(int(r.Plan.Rows), "message"), count(int(r.Plan.Keys), "key"))
	if r.Plan.Capped {
		text = "more than " + text
	}
	return text
}

// precise gives a time as exactly as the database has it, to be given back to
// --since, and its age.
func (p *page) precise(t time.Time) string {
	return fmt.Sprintf("%s (%s ago)", t.UTC().Format(time.RFC3339Nano), age(max(0, p.now.Sub(t))))
}

type outboxAnchors struct {
	schema schema
	stream string
}

func newOutboxAnchors(fs *flag.FlagSet) verb {
	v := &outboxAnchors{}
	v.schema.register(fs)
	registerStream(fs, &v.stream)
	return v
}

func (v *outboxAnchors) check(c *call) {
	v.schema.check(c)
	checkStream(c, v.stream)
}

// outboxAnchorsResult is the JSON of outbox anchors.
type outboxAnchorsResult struct {
	Schema  string          `json:"schema"`
	Stream  string          `json:"stream"`
	Anchors []outbox.Anchor `json:"anchors"` // newest first
	Rewinds []outbox.Rewind `json:"rewinds"` // of the whole stream, the newest 100 first
}

func (v *outboxAnchors) run(ctx context.Context, c *call) error {
	r := outboxAnchorsResult{Schema: v.schema.name, Stream: v.stream}
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) (err error) {
		if r.Anchors, err = outbox.ListAnchors(ctx, pool, v.schema.name, v.stream); err == nil {
			r.Rewinds, err = outbox.ListRewinds(ctx, pool, v.schema.name, v.stream)
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.print(r, r.text)
}

func (r outboxAnchorsResult) text(p *page) {
	if len(r.Anchors) == 0 {
		p.line("%s has no anchor: a rewind begins at the oldest retained row", r.Stream)
	} else {
		rows := make([][]string, 0, len(r.Anchors))
		for _, a := range r.Anchors {
			rows = append(rows, []string{p.precise(a.At), strconv.FormatInt(a.AckedSequence, 10)})
		}
		p.table([]string{"ANCHOR", "STORED UP TO"}, rows)
	}
	if len(r.Rewinds) == 0 {
		return
	}
	p.gap()
	rows := make([][]string, 0, len(r.Rewinds))
	for _, w := range r.Rewinds {
		to := "the oldest retained row"
		if !w.Anchor.IsZero() {
			to = p.precise(w.Anchor)
		}
		done := "WAITS FOR THE RELAY"
		if !w.DoneAt.IsZero() {
			done = p.when(w.DoneAt)
		}
		rows = append(rows, []string{p.when(w.RequestedAt), to, done, w.By + ": " + w.Reason})
	}
	p.table([]string{"REWIND", "BACK TO", "DONE", "WHO AND WHY"}, rows)
}
