package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/outbox"
)

type parkedRelease struct {
	schema schema
	id     messageID
	stream string
	all    bool
	decision
	following
	dryRun bool
}

func newParkedRelease(fs *flag.FlagSet) verb {
	v := &parkedRelease{}
	v.schema.register(fs)
	fs.StringVar(&v.stream, "stream", "", "with --all: the `STREAM`, such as DV_MASKIN_EVT")
	fs.BoolVar(&v.all, "all", false, "release every key of --stream that is held")
	v.decision.register(fs)
	v.following.register(fs)
	registerDryRun(fs, &v.dryRun)
	return v
}

func (v *parkedRelease) check(c *call) {
	v.schema.check(c)
	v.id = checkMessageID(c)
	v.decision.check(c)
	switch {
	case v.id != "" && (v.all || v.stream != ""):
		c.fault("ID: not with --stream or --all; name one key, or release all of a stream")
	case v.id == "" && (!v.all || v.stream == ""):
		c.fault("ID is missing: name the head of one key, or release all of a stream with --stream and --all")
	}
}

// parkedReleaseResult is the JSON of outbox parked release.
type parkedReleaseResult struct {
	Schema     string `json:"schema"`
	DryRun     bool   `json:"dry_run"`
	Stream     string `json:"stream"`
	Key        string `json:"key,omitempty"` // without --all
	ID         string `json:"id,omitempty"`  // of its head
	Keys       int64  `json:"keys"`          // how many are released
	By         string `json:"by"`
	Reason     string `json:"reason"`
	CarriedOut bool   `json:"carried_out"` // with --wait: what was held is published
}

func (v *parkedRelease) run(ctx context.Context, c *call) error {
	r := parkedReleaseResult{Schema: v.schema.name, DryRun: v.dryRun, Stream: v.stream, By: v.by, Reason: v.reason}
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) error {
		release := v.releaseOne
		if v.all {
			release = v.releaseAll
		}
		return release(ctx, pool, &r)
	})
	// What is released is reported even if it could not be waited for.
	if err == nil || r.Keys > 0 {
		err = errors.Join(c.print(r, r.text), err)
	}
	return err
}

func (v *parkedRelease) releaseOne(ctx context.Context, pool *pgxpool.Pool, r *parkedReleaseResult) error {
	k, err := v.id.find(ctx, pool, v.schema.name)
	if err != nil {
		return err
	}
	if k.State == outbox.ParkedReleased {
		return &outbox.ParkedError{Parked: k}
	}
	r.Stream, r.Key, r.ID = k.Stream, k.Key, k.ID
	if v.dryRun {
		r.Keys = 1
		return nil
	}
	if k, err = outbox.ReleaseParked(ctx, pool, v.schema.name, k.Stream, k.Key, v.by, v.reason); err != nil {
		return err
	}
	r.Keys, r.ID = 1, k.ID
	r.CarriedOut, err = v.until(ctx, func() (bool, error) { return keyDone(ctx, pool, v.schema.name, k.Stream, k.Key) })
	return err
}

func (v *parkedRelease) releaseAll(ctx context.Context, pool *pgxpool.Pool, r *parkedReleaseResult) (err error) {
	if v.dryRun {
		r.Keys, err = v.held(ctx, pool)
		if err == nil && r.Keys == 0 {
			err = fmt.Errorf("%s: %w", v.stream, outbox.ErrNotParked)
		}
		return err
	}
	if r.Keys, err = outbox.ReleaseAllParked(ctx, pool, v.schema.name, v.stream, v.by, v.reason); err != nil {
		return err
	}
	r.CarriedOut, err = v.until(ctx, func() (bool, error) {
		released, err := outbox.ListParked(ctx, pool, v.schema.name, outbox.ParkedFilter{Stream: v.stream, State: outbox.ParkedReleased, Limit: 1})
		if err != nil || len(released) > 0 {
			return false, err
		}
		n, err := v.held(ctx, pool)
		if err == nil && n > 0 {
			err = fmt.Errorf("parked again, or anew: %s of %s; see: dvmsg outbox parked list --stream %s", keys(n), v.stream, v.stream)
		}
		return err == nil, err
	})
	return err
}

// mostKeys bounds what held counts.
const mostKeys = 10_000

// held counts the keys of the stream that wait for an operator.
func (v *parkedRelease) held(ctx context.Context, pool *pgxpool.Pool) (int64, error) {
	held, err := outbox.ListParked(ctx, pool, v.schema.name, outbox.ParkedFilter{Stream: v.stream, State: outbox.ParkedHeld, Limit: mostKeys})
	return int64(len(held)), err
}

// keys names n counted keys.
func keys(n int64) string {
	text := count(int(n), "key")
	if n >= mostKeys {
		text += " or more"
	}
	return text
}

func (r parkedReleaseResult) text(p *page) {
	what := fmt.Sprintf("key %q of %s at message %s", r.Key, r.Stream, r.ID)
	switch {
	case r.ID == "" && r.DryRun:
		what = fmt.Sprintf("%s of %s", keys(r.Keys), r.Stream)
	case r.ID == "":
		what = fmt.Sprintf("%s of %s", count(int(r.Keys), "key"), r.Stream)
	}
	if r.DryRun {
		p.line("would release %s", what)
		return
	}
	p.line("released %s", what)
	p.follow(r.CarriedOut, "what was held is published")
}

// follow says how to see what becomes of a decision.
func (p *page) follow(carriedOut bool, result string) {
	if carriedOut {
		p.line("carried out: %s", result)
		return
	}
	p.line("the relay that leads carries it out within seconds; next: dvmsg outbox status")
}

type parkedDiscard struct {
	schema schema
	id     messageID
	decision
	following
	dryRun bool
}

func newParkedDiscard(fs *flag.FlagSet) verb {
	v := &parkedDiscard{}
	v.schema.register(fs)
	v.decision.register(fs)
	v.following.register(fs)
	registerDryRun(fs, &v.dryRun)
	return v
}

func (v *parkedDiscard) check(c *call) {
	v.schema.check(c)
	v.id = checkMessageID(c)
	v.decision.check(c)
}

// parkedDiscardResult is the JSON of outbox parked discard.
type parkedDiscardResult struct {
	Schema string `json:"schema"`
	DryRun bool   `json:"dry_run"`
	outbox.Discarded
	CarriedOut bool `json:"carried_out"` // with --wait: what was behind it is published
}

func (v *parkedDiscard) run(ctx context.Context, c *call) error {
	r := parkedDiscardResult{Schema: v.schema.name, DryRun: v.dryRun}
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) (err error) {
		if v.dryRun {
			r.Discarded, err = v.rehearse(ctx, pool)
			return err
		}
		if r.Discarded, err = outbox.DiscardParked(ctx, pool, v.schema.name, string(v.id), v.by, v.reason); err != nil {
			return err
		}
		r.CarriedOut, err = v.until(ctx, func() (bool, error) { return keyDone(ctx, pool, v.schema.name, r.Stream, r.Key) })
		return err
	})
	// What is discarded is reported even if it could not be waited for.
	if err == nil || r.ID != "" {
		err = errors.Join(c.print(r, r.text), err)
	}
	return err
}

// rehearse makes the checks of the real run.
func (v *parkedDiscard) rehearse(ctx context.Context, pool *pgxpool.Pool) (outbox.Discarded, error) {
	k, err := v.id.find(ctx, pool, v.schema.name)
	if err == nil && k.State == outbox.ParkedReleased {
		err = &outbox.ParkedError{Parked: k}
	}
	if err != nil {
		return outbox.Discarded{}, err
	}
	return outbox.Discarded{
		Stream: k.Stream, Key: k.Key, ID: k.ID, Seq: k.Seq, Subject: k.Subject, Cause: k.Cause, By: v.by, Reason: v.reason,
	}, nil
}

func (r parkedDiscardResult) text(p *page) {
	verb := "discarded"
	if r.DryRun {
		verb = "would discard for good"
	}
	p.line("%s message %s (%s) of key %q of %s: %s", verb, r.ID, r.Subject, r.Key, r.Stream, r.Cause)
	if !r.DryRun {
		p.follow(r.CarriedOut, "what was behind it is published")
	}
}
