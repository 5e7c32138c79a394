package main

import (
	"context"
	"flag"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/outbox"
)

type outboxAccept struct {
	schema schema
	stream string
	all    bool
	decision
	dryRun bool
}

func newOutboxAccept(fs *flag.FlagSet) verb {
	v := &outboxAccept{}
	v.schema.register(fs)
	fs.StringVar(&v.stream, "stream", "", "the destination `STREAM`, such as DV_MASKIN_EVT")
	fs.BoolVar(&v.all, "all", false, "every stream that waits, instead of --stream")
	v.decision.register(fs)
	registerDryRun(fs, &v.dryRun)
	return v
}

func (v *outboxAccept) check(c *call) {
	v.schema.check(c)
	switch {
	case v.all && v.stream != "":
		c.fault("--stream: not with --all; name one stream, or accept all that wait")
	case !v.all:
		checkStream(c, v.stream)
	}
	v.decision.check(c)
}

// outboxAcceptResult is the JSON of outbox accept.
type outboxAcceptResult struct {
	Schema  string   `json:"schema"`
	DryRun  bool     `json:"dry_run"`
	Stream  string   `json:"stream,omitempty"`  // without --all
	Streams []string `json:"streams,omitempty"` // with --all
	By      string   `json:"by"`
	Reason  string   `json:"reason"`
}

func (v *outboxAccept) run(ctx context.Context, c *call) error {
	r := outboxAcceptResult{Schema: v.schema.name, DryRun: v.dryRun, Stream: v.stream, By: v.by, Reason: v.reason}
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) error {
		waiting, err := v.waiting(ctx, pool)
		if err != nil {
			return err
		}
		for _, stream := range waiting {
			if !v.dryRun {
				err = outbox.AcceptStream(ctx, pool, v.schema.name, stream, v.by, v.reason)
			}
			if err != nil {
				return err
			}
			if v.all {
				r.Streams = append(r.Streams, stream)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.print(r, r.text)
}

// waiting returns the streams that are to be accepted and wait for it; it makes the
// checks of a dry run.
func (v *outboxAccept) waiting(ctx context.Context, pool *pgxpool.Pool) ([]string, error) {
	status, err := outbox.ReadStatus(ctx, pool, v.schema.name)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, s := range status.Streams {
		if s.Recreated {
			all = append(all, s.Stream)
		}
	}
	switch {
	case v.all && len(all) == 0:
		return nil, outbox.ErrNothingToAccept
	case v.all:
		return all, nil
	case !slices.Contains(all, v.stream):
		return nil, fmt.Errorf("%s: %w", v.stream, outbox.ErrNothingToAccept)
	}
	return []string{v.stream}, nil
}

func (r outboxAcceptResult) text(p *page) {
	streams := r.Streams
	if r.Stream != "" {
		streams = []string{r.Stream}
	}
	for _, stream := range streams {
		if r.DryRun {
			p.line("would accept the new %s: every row that is still in the outbox would be published to it", stream)
		} else {
			p.line("accepted the new %s: every row that is still in the outbox is published to it", stream)
		}
	}
	if !r.DryRun {
		p.follow(false, "")
	}
}
