package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

type dlqReplay struct {
	owner owner
	id    letterID
	decision
	again  bool
	dryRun bool
}

func newDLQReplay(fs *flag.FlagSet) verb {
	v := &dlqReplay{}
	v.owner.register(fs)
	v.decision.register(fs)
	fs.BoolVar(&v.again, "again", false, "also when the last replay is still outstanding")
	registerDryRun(fs, &v.dryRun)
	return v
}

// check holds the request to the rules of dlq.Request, so that all faults
// come at once and before the server is asked.
func (v *dlqReplay) check(c *call) {
	v.owner.check(c)
	v.id = checkID(c)
	v.decision.check(c)
}

// dlqReplayResult is the JSON of dlq replay.
type dlqReplayResult struct {
	DryRun   bool            `json:"dry_run"`
	Service  subject.Service `json:"service"`
	LetterID string          `json:"letter_id"`
	// State is what the letter is now.
	State   dlq.State `json:"state"`
	Durable string    `json:"durable"`
	Subject string    `json:"subject"`
	By      string    `json:"by"`
	Reason  string    `json:"reason"`
	// The rest is known once it was published.
	Round     int       `json:"round,omitempty"`
	MessageID string    `json:"message_id,omitempty"`
	Sequence  uint64    `json:"sequence,omitempty"`
	At        time.Time `json:"at,omitzero"`
	TookOver  bool      `json:"took_over,omitempty"`
	Found     bool      `json:"found,omitempty"`
}

func (v *dlqReplay) run(ctx context.Context, c *call) error {
	var r dlqReplayResult
	err := c.withShelves(ctx, &v.owner, func(shelves []shelf) error {
		on, letter, err := v.id.find(ctx, shelves)
		if err != nil {
			return err
		}
		r, err = v.rehearse(on, letter, c.now())
		if err == nil && !v.dryRun {
			err = v.replay(ctx, on, letter, &r)
		}
		return forReplayer(err)
	})
	// A replay that is out is reported even when marking it failed.
	if err == nil || r.MessageID != "" {
		err = errors.Join(c.print(r, r.text), err)
	}
	return err
}

// rehearse makes the checks that the replay will make on the letter as it is.
// Only a dry run judges the age of a claim here, by our own clock; the replay
// asks the server.
func (v *dlqReplay) rehearse(on shelf, l dlq.Letter, now time.Time) (dlqReplayResult, error) {
	to, err := subject.Replay(on.service, l.Durable)
	r := dlqReplayResult{
		DryRun: v.dryRun, Service: on.service, LetterID: l.ID, State: l.State, Durable: l.Durable,
		Subject: to.String(), By: v.by, Reason: v.reason,
	}
	switch m := l.Mark; {
	case err != nil:
		return r, fmt.Errorf("letter %s names no durable that a replay could go to: %w", l.ID, err)
	case l.Class == envelope.ClassSecurity:
		return r, &dlq.SecurityError{LetterID: l.ID, Reason: l.Error}
	case l.DataOmitted:
		return r, fmt.Errorf("letter %s: %w: its %d bytes are message %d of stream %s", l.ID, dlq.ErrNoData, l.Size, l.Sequence, l.Stream)
	case l.State.Closed():
		return r, &dlq.ResolvedError{LetterID: l.ID, State: l.State, By: m.By, At: m.StoredAt}
	case l.State == dlq.StateUnknown, l.State == dlq.StateReplayed && !v.again, l.State == dlq.StateClaimed && v.dryRun && now.Sub(m.StoredAt) < dlq.DefaultClaimLease:
		return r, &dlq.ConflictError{LetterID: l.ID, State: l.State, By: m.By, At: m.StoredAt}
	}
	return r, nil
}

func (v *dlqReplay) replay(ctx context.Context, on shelf, l dlq.Letter, r *dlqReplayResult) error {
	done, err := on.Replay(ctx, l.ID, dlq.Request{By: v.by, Reason: v.reason, Again: v.again})
	if done.MessageID == "" {
		return err
	}
	r.State, r.Durable, r.Subject = done.State, done.Durable, done.Subject
	r.Round, r.MessageID, r.Sequence, r.At = done.Round, done.MessageID, done.Sequence, done.At
	r.TookOver, r.Found = done.TookOver, done.Found
	return err
}

// forReplayer adds what an operator can do about the refusals.
func forReplayer(err error) error {
	conflict, ok := errors.AsType[*dlq.ConflictError](err)
	switch {
	case !ok:
		return err
	case conflict.State == dlq.StateReplayed:
		return fmt.Errorf("%w; its outcome is outstanding: wait, or repeat it with --again", err)
	case conflict.State == dlq.StateClaimed:
		return fmt.Errorf("%w; another replay is under way: look again in a minute, after which an abandoned one is taken over", err)
	}
	return err
}

func (r dlqReplayResult) text(p *page) {
	if r.DryRun {
		p.line("would replay letter %s (%s) to %s on %s", r.LetterID, r.State, r.Durable, r.Subject)
		return
	}
	p.line("replay %d of letter %s is out: %s will receive it on %s (message %d)", r.Round, r.LetterID, r.Durable, r.Subject, r.Sequence)
	if r.TookOver {
		p.line("the unfinished replay of somebody else was taken over")
	}
	p.line("next: dvmsg dlq show %s", r.LetterID)
}
