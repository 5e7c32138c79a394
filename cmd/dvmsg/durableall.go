package main

import (
	"context"
	"errors"

	"codeberg.org/dataverket/messaging/history"
	"codeberg.org/dataverket/messaging/natsconn"
)

// durableRefusal is a durable that was not reset.
type durableRefusal struct {
	history.Durable
	Error string `json:"error"`
}

// durableResetAllResult is the JSON of durable reset with --file.
type durableResetAllResult struct {
	DryRun bool `json:"dry_run"`
	// Resets are the durables that get messages again.
	Resets []history.Reset `json:"resets"`
	// Untouched have handled nothing from there on.
	Untouched []history.Durable `json:"untouched"`
	// Refused are those that cannot go back, or not so far.
	Refused []durableRefusal `json:"refused"`
}

// runAll resets every durable of the contract file. One that is refused keeps nobody
// from the others.
func (v *durableReset) runAll(ctx context.Context, c *call) error {
	r := durableResetAllResult{DryRun: v.request.DryRun, Resets: []history.Reset{}, Untouched: []history.Durable{}, Refused: []durableRefusal{}}
	var refused error
	err := c.withNATS(ctx, func(conn *natsconn.Conn) error {
		for _, d := range v.set {
			reset, err := history.ResetDurable(ctx, conn.JetStream(), d, v.request)
			switch {
			case err == nil:
				r.Resets = append(r.Resets, reset)
			case errors.Is(err, history.ErrNothing):
				r.Untouched = append(r.Untouched, d)
			default:
				r.Refused = append(r.Refused, durableRefusal{d, err.Error()})
				refused = errors.Join(refused, err)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		return nil
	})
	if err != nil && len(r.Resets) == 0 {
		return err
	}
	return errors.Join(c.print(r, r.text), refused, err)
}

func (r durableResetAllResult) text(p *page) {
	for _, reset := range r.Resets {
		durableResetResult{DryRun: r.DryRun, Reset: reset}.line(p)
	}
	for _, d := range r.Untouched {
		p.line("%s has handled nothing of %s from there on", d.Name, d.Stream)
	}
	for _, d := range r.Refused {
		p.line("NOT RESET: %s of %s: %s", d.Name, d.Stream, d.Error)
	}
	if len(r.Resets)+len(r.Untouched)+len(r.Refused) == 0 {
		p.line("the contract file has no durables")
	}
	if len(r.Resets) > 0 {
		p.line("their inboxes leave out what they have handled; a handler without an inbox does it again")
	}
}
