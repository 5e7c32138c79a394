package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

func inboxReviveCommands() table {
	return table{{
		path: "inbox revive", summary: "have messages handled again whose dead letter is lost", needs: needsDatabase | needsNATS,
		patience: 5 * time.Minute,
		about: `After the loss of JetStream, or of the database. A message that became a dead letter
has no effect any more when it comes again: only the replay of its letter has. This
compares what the inboxes hold for dead with the letters, and lets those be handled
again whose letter is lost, or is resolved although its effect is not there. It
delivers nothing: a stream that is made anew does, or "durable reset". Decisions to
discard a letter are lost with it. A dry run lists them. The log of who revived what
goes to the standard error output.`,
		examples: []string{
			`dvmsg inbox revive --service plattform --by operator:ola --reason "JetStream lost, DV-500" --dry-run`,
			`dvmsg inbox revive --service plattform --by operator:ola --reason "JetStream lost, DV-500" --since 7d`,
		},
		make: newInboxRevive,
	}}
}

type inboxRevive struct {
	schema         schema
	service, since string
	who            subject.Service
	from           time.Time
	decision
	dryRun bool
}

func newInboxRevive(fs *flag.FlagSet) verb {
	v := &inboxRevive{}
	v.schema.register(fs)
	fs.StringVar(&v.service, "service", "", "the consuming `SERVICE` whose database it is; required")
	fs.StringVar(&v.since, "since", "30d", "only what became a dead letter at or after this `TIME`: an age (90m, 2h, 3d) or 2006-01-02T15:04:05Z; older letters may have been purged")
	v.decision.register(fs)
	registerDryRun(fs, &v.dryRun)
	return v
}

func (v *inboxRevive) check(c *call) {
	v.schema.check(c)
	v.who = checkService(c, v.service)
	v.from = checkTime(c, "--since", v.since)
	v.decision.check(c)
}

// letterLost is the state of a letter that is nowhere.
const letterLost = "lost"

// revivable is a dead message, and why no replay brings it back.
type revivable struct {
	inbox.Dead
	Letter string `json:"letter"` // lost or resolved
}

// inboxReviveResult is the JSON of inbox revive.
type inboxReviveResult struct {
	Schema  string          `json:"schema"`
	DryRun  bool            `json:"dry_run"`
	Service subject.Service `json:"service"`
	Dead    int             `json:"dead"` // messages that the inboxes hold for dead
	// NoStreams says that the service has no dead-letter streams on this server, so
	// that all letters count as lost.
	NoStreams bool        `json:"no_streams"`
	Messages  []revivable `json:"messages"` // those whose letter does not speak for them
	Revived   int         `json:"revived"`
	By        string      `json:"by"`
	Reason    string      `json:"reason"`
}

func (v *inboxRevive) run(ctx context.Context, c *call) error {
	r := inboxReviveResult{Schema: v.schema.name, DryRun: v.dryRun, Service: v.who, Messages: []revivable{}, By: v.by, Reason: v.reason}
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) error {
		dead, err := inbox.ListDead(ctx, pool, v.schema.name, v.from)
		if err != nil {
			return err
		}
		r.Dead = len(dead)
		err = c.withNATS(ctx, func(conn *natsconn.Conn) error { return r.judge(ctx, conn, dead) })
		if err != nil || v.dryRun {
			return err
		}
		dead = dead[:0]
		for _, m := range r.Messages {
			dead = append(dead, m.Dead)
		}
		r.Revived, err = inbox.Revive(ctx, pool, v.schema.name, dead, inbox.ReviveRequest{
			By: v.by, Reason: v.reason, Logger: slog.New(slog.NewTextHandler(c.stderr, nil)),
		})
		return err
	})
	if err != nil && r.Revived == 0 {
		return err
	}
	return errors.Join(c.print(r, r.text), err)
}

// judge compares the dead messages with the letters. A letter that waits for an
// operator, or that one gave up, speaks for its message.
func (r *inboxReviveResult) judge(ctx context.Context, conn *natsconn.Conn, dead []inbox.Dead) error {
	states := map[string]dlq.State{}
	queue, err := dlq.Open(ctx, conn.JetStream(), r.Service, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	switch {
	case err != nil && hasNone(err):
		r.NoStreams = true
	case err != nil:
		return err
	default:
		for l, err := range queue.List(ctx, dlq.Filter{State: dlq.StateAny}) {
			if _, malformed := errors.AsType[*dlq.MalformedError](err); err != nil && !malformed {
				return fmt.Errorf("list the letters of %s: %w", r.Service, err)
			} else if !malformed {
				states[l.ID] = l.State
			}
		}
	}
	for _, d := range dead {
		switch state, there := states[d.LetterID]; {
		case !there:
			r.Messages = append(r.Messages, revivable{d, letterLost})
		case state == dlq.StateResolved:
			r.Messages = append(r.Messages, revivable{d, string(state)})
		}
	}
	return nil
}

func (r inboxReviveResult) text(p *page) {
	if r.NoStreams {
		p.line("%s has no dead-letter streams on this server: all of its letters count as lost", r.Service)
	}
	if len(r.Messages) == 0 {
		p.line("%s; the letter of each is there, nothing to revive", count(r.Dead, "dead message"))
		return
	}
	rows := make([][]string, 0, min(len(r.Messages), defaultLimit))
	for _, m := range r.Messages[:cap(rows)] {
		rows = append(rows, []string{m.ID, m.Source, m.Consumer, p.when(m.At), m.Letter})
	}
	p.table([]string{"MESSAGE", "SOURCE", "INBOX", "DEAD SINCE", "LETTER"}, rows)
	if more := len(r.Messages) - len(rows); more > 0 {
		p.line("and %d more; --json lists them all", more)
	}
	p.gap()
	if r.DryRun {
		p.line("would revive %s of %d dead ones: the next copy of each is handled", count(len(r.Messages), "message"), r.Dead)
		return
	}
	p.line("revived %s, by %s: %s", count(r.Revived, "message"), r.By, r.Reason)
	p.line("next: they have to come again: dvmsg durable reset, unless their streams are made anew")
}
