package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/inbox"
)

func inboxParkedCommands() table {
	return table{
		{
			path: "inbox parked list", summary: "list the messages that wait for a distant attempt", needs: needsDatabase,
			about: `A message whose handler asked for a long delay waits in the consumer's database
instead of the stream's consumer. Those that are due next come first. One that
stays due says that no replica of its durable runs, or that all are busy.`,
			examples: []string{
				"dvmsg inbox parked list --database postgres://plattform@db:5432/plattform",
				"dvmsg inbox parked list --durable plattform__from_maskin --json",
			},
			make: newInboxParkedList,
		},
		{
			path: "inbox parked show", params: []string{"ID"}, summary: "show all about one message that waits", needs: needsDatabase,
			about: `ID is the message's id, as "inbox parked list" prints it; the message may wait for
several consumers. The payload is printed only with --data.`,
			examples: []string{
				"dvmsg inbox parked show 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01",
				"dvmsg inbox parked show 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01 --data --json | jq -r '.messages[0].data' | base64 -d",
			},
			make: newInboxParkedShow,
		},
		{
			path: "inbox parked release", params: []string{"[ID]"}, summary: "have messages that wait handled now", needs: needsDatabase,
			about: `ID is the message's id; without it, --durable and --all release all messages of a
durable. A replica of the durable takes them within seconds, and logs who wanted
that and why. What is due or being handled is left alone.`,
			examples: []string{
				`dvmsg inbox parked release 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01 --by operator:ola --reason "limit raised, DV-412"`,
				`dvmsg inbox parked release --durable plattform__from_maskin --all --by operator:ola --reason "limit raised, DV-412" --dry-run`,
			},
			make: newInboxParkedRelease,
		},
	}
}

// registerParkedFilter adds the flags that select parked messages.
func registerParkedFilter(fs *flag.FlagSet, filter *inbox.ParkedFilter) {
	fs.StringVar(&filter.Durable, "durable", "", "only messages of this `DURABLE`, such as plattform__from_maskin")
	fs.StringVar(&filter.Consumer, "consumer", "", "only messages of the inbox of this `NAME`")
}

type inboxParkedList struct {
	schema schema
	filter inbox.ParkedFilter
}

func newInboxParkedList(fs *flag.FlagSet) verb {
	v := &inboxParkedList{}
	v.schema.register(fs)
	registerParkedFilter(fs, &v.filter)
	fs.StringVar(&v.filter.Key, "key", "", "only this ordering `KEY`")
	fs.IntVar(&v.filter.Limit, "limit", defaultLimit, "at most so many, the first `N`, up to 10000")
	return v
}

func (v *inboxParkedList) check(c *call) {
	v.schema.check(c)
	checkLimit(c, v.filter.Limit)
}

// inboxParkedListResult is the JSON of inbox parked list.
type inboxParkedListResult struct {
	Schema  string         `json:"schema"`
	Parked  []inbox.Parked `json:"parked"`  // due next first
	Limited bool           `json:"limited"` // as many as --limit allows: there may be more
}

func (v *inboxParkedList) run(ctx context.Context, c *call) error {
	r := inboxParkedListResult{Schema: v.schema.name, Parked: []inbox.Parked{}}
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) error {
		found, err := inbox.ListParked(ctx, pool, v.schema.name, v.filter)
		r.Parked = append(r.Parked, found...)
		return err
	})
	if err != nil {
		return err
	}
	r.Limited = len(r.Parked) == v.filter.Limit
	return c.print(r, r.text)
}

func (r inboxParkedListResult) text(p *page) {
	if len(r.Parked) == 0 {
		p.line("nothing is parked that matches")
		return
	}
	rows := make([][]string, 0, len(r.Parked))
	for _, m := range r.Parked {
		rows = append(rows, []string{m.ID, string(m.State), p.when(m.DueAt), m.Durable, m.Key, strconv.Itoa(m.Attempts), shorten(clean(m.Error), causeWidth)})
	}
	p.table([]string{"ID", "STATE", "DUE", "DURABLE", "KEY", "ATTEMPTS", "LAST ERROR"}, rows)
	p.gap()
	p.line("%s; next: dvmsg inbox parked show %s", count(len(r.Parked), "message"), r.Parked[0].ID)
	if r.Limited {
		p.line("there may be more; --limit N lists up to 10000")
	}
}

type inboxParkedShow struct {
	schema schema
	filter inbox.ParkedFilter
	data   bool
}

func newInboxParkedShow(fs *flag.FlagSet) verb {
	v := &inboxParkedShow{}
	v.schema.register(fs)
	registerParkedFilter(fs, &v.filter)
	fs.BoolVar(&v.data, "data", false, "print the message itself too; it may hold what not everybody may see")
	return v
}

func (v *inboxParkedShow) check(c *call) {
	v.schema.check(c)
	v.filter.ID = string(checkMessageID(c))
}

// parkedMessage is a parked message with what the list leaves out.
type parkedMessage struct {
	inbox.Parked
	Headers []string `json:"headers"` // as they came, "Name: value"
	Data    []byte   `json:"data,omitempty"`
}

// inboxParkedShowResult is the JSON of inbox parked show.
type inboxParkedShowResult struct {
	Messages []parkedMessage `json:"messages"` // one, unless several consumers parked it
}

func (v *inboxParkedShow) run(ctx context.Context, c *call) error {
	var r inboxParkedShowResult
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) error {
		found, err := inbox.ListParked(ctx, pool, v.schema.name, v.filter)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("%s: %w; see: dvmsg inbox parked list", v.filter.ID, inbox.ErrNotParked)
		}
		for i := 0; i < len(found) && err == nil; i++ {
			m := parkedMessage{Parked: found[i]}
			if m.Headers, m.Data, err = inbox.ParkedMessage(ctx, pool, v.schema.name, m.Parked); !v.data {
				m.Data = nil
			}
			r.Messages = append(r.Messages, m)
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.print(r, r.text)
}

func (r inboxParkedShowResult) text(p *page) {
	for i, m := range r.Messages {
		if i > 0 {
			p.gap()
		}
		m.text(p)
	}
}

func (m parkedMessage) text(p *page) {
	p.list([]labelled{
		{"message", m.ID},
		{"source", m.Source},
		{"replay of", m.LetterID},
		{"state", string(m.State)},
		{"due", p.when(m.DueAt)},
		{"parked", p.when(m.ParkedAt)},
		{"attempts", strconv.Itoa(m.Attempts)},
		{"error", m.Error},
		{"released", m.released()},
	})
	p.gap()
	p.list([]labelled{
		{"inbox", m.Consumer},
		{"durable", m.Durable},
		{"key", m.Key},
		{"stored", fmt.Sprintf("%s, sequence %d", m.Stream, m.Sequence)},
		{"subject", m.Subject},
		{"size", fmt.Sprintf("%d bytes", m.Size)},
	})
	p.gap()
	p.line("headers of the message")
	for _, line := range m.Headers {
		p.line("  %s", line)
	}
	p.gap()
	if m.Data != nil {
		p.data(m.Data)
		p.gap()
	}
	if m.State == inbox.ParkedWaiting {
		p.line("next: dvmsg inbox parked release %s --by operator:NAME --reason WHY", m.ID)
		return
	}
	p.line("next: a replica of the durable takes it, or has it")
}

func (m parkedMessage) released() string {
	if m.ReleasedBy == "" {
		return ""
	}
	return fmt.Sprintf("by %s: %s", m.ReleasedBy, m.Reason)
}

type inboxParkedRelease struct {
	schema schema
	filter inbox.ParkedFilter
	all    bool
	decision
	dryRun bool
}

func newInboxParkedRelease(fs *flag.FlagSet) verb {
	v := &inboxParkedRelease{}
	v.schema.register(fs)
	registerParkedFilter(fs, &v.filter)
	fs.BoolVar(&v.all, "all", false, "release every message of --durable that waits")
	v.decision.register(fs)
	registerDryRun(fs, &v.dryRun)
	return v
}

func (v *inboxParkedRelease) check(c *call) {
	v.schema.check(c)
	v.filter.ID = string(checkMessageID(c))
	v.decision.check(c)
	switch {
	case v.filter.ID != "" && v.all:
		c.fault("ID: not with --all; name one message, or release all of a durable")
	case v.filter.ID == "" && (!v.all || v.filter.Durable == ""):
		c.fault("ID is missing: name one message, or release all of a durable with --durable and --all")
	}
}

// inboxParkedReleaseResult is the JSON of inbox parked release.
type inboxParkedReleaseResult struct {
	Schema   string `json:"schema"`
	DryRun   bool   `json:"dry_run"`
	ID       string `json:"id,omitempty"`      // without --all
	Durable  string `json:"durable,omitempty"` // with --all
	Messages int64  `json:"messages"`          // how many are released
	By       string `json:"by"`
	Reason   string `json:"reason"`
}

func (v *inboxParkedRelease) run(ctx context.Context, c *call) error {
	r := inboxParkedReleaseResult{Schema: v.schema.name, DryRun: v.dryRun, ID: v.filter.ID, Durable: v.filter.Durable, By: v.by, Reason: v.reason}
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) (err error) {
		do := inbox.ReleaseParked
		if v.dryRun {
			do = inbox.PlanRelease
		}
		r.Messages, err = do(ctx, pool, v.schema.name, v.filter, v.by, v.reason)
		return err
	})
	if err != nil {
		return err
	}
	return c.print(r, r.text)
}

func (r inboxParkedReleaseResult) text(p *page) {
	what := count(int(r.Messages), "message")
	if r.DryRun {
		p.line("would make %s due", what)
		return
	}
	p.line("%s due now, by %s: %s", what, r.By, r.Reason)
	p.line("next: a replica of the durable takes them within seconds; see: dvmsg inbox parked list")
}
