package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/outbox"
)

func outboxParkedCommands() table {
	return table{
		{
			path: "outbox parked list", summary: "list the keys that are held back, and why", needs: needsDatabase,
			about: `A key is parked when no stream would ever take one of its messages: that message,
its head, and all behind it are held, the other keys go on. Oldest first. With
--state discarded it lists the messages that were given up instead.`,
			examples: []string{
				"dvmsg outbox parked list --database postgres://maskin@db:5432/maskin",
				"dvmsg outbox parked list --stream DV_MASKIN_EVT --state held --json",
			},
			make: newParkedList,
		},
		{
			path: "outbox parked show", params: []string{"ID"}, summary: "show all about one parked key, with its history", needs: needsDatabase,
			about: `ID is the id of the head, as "outbox parked list" prints it. The payload is
printed only with --data: it is what the platform's users wrote. In JSON it is
base64, byte by byte as it would be published.`,
			examples: []string{
				"dvmsg outbox parked show 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01",
				"dvmsg outbox parked show 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01 --data --json | jq -r .data | base64 -d",
			},
			make: newParkedShow,
		},
		{
			path: "outbox parked release", params: []string{"[ID]"}, summary: "let a parked key go on, once its cause is mended", needs: needsDatabase,
			about: `ID is the id of the head; without it, --stream and --all release every key of a
stream. The relay that leads publishes what is held in order, the head first. If
the head still cannot be stored, the key is parked again.`,
			examples: []string{
				`dvmsg outbox parked release 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01 --by operator:ola --reason "limit raised, DV-412"`,
				`dvmsg outbox parked release --stream DV_MASKIN_EVT --all --by operator:ola --reason "limit raised, DV-412" --wait`,
			},
			make: newParkedRelease,
		},
		{
			path: "outbox parked discard", params: []string{"ID"}, summary: "give up the head of a parked key, for good", needs: needsDatabase,
			about: `The message is never published, also after a rewind; what is behind it goes on.
There is no way back: its row stays until retention removes it. ID is its whole
id, so that nobody discards another message than the one that was looked at.`,
			examples: []string{
				`dvmsg outbox parked discard 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01 --by operator:ola --reason "nobody needs it, DV-412"`,
				`dvmsg outbox parked discard 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01 --by operator:ola --reason "nobody needs it, DV-412" --dry-run`,
			},
			make: newParkedDiscard,
		},
	}
}

// messageID is the argument ID: the id of a message, whole.
type messageID string

// checkMessageID adds a fault where the argument cannot be an id; a missing one
// is reported elsewhere.
func checkMessageID(c *call) messageID {
	text := c.arg(0)
	var id pgtype.UUID
	if text != "" && (len(text) != 36 || id.Scan(text) != nil) {
		c.fault("ID: %q is no message id, which is a whole UUID as dvmsg outbox parked list prints it", text)
	}
	return messageID(text)
}

// find returns the parked key whose head is the message.
func (id messageID) find(ctx context.Context, pool *pgxpool.Pool, schema string) (outbox.Parked, error) {
	found, err := outbox.ListParked(ctx, pool, schema, outbox.ParkedFilter{ID: string(id), Limit: 1})
	if err != nil {
		return outbox.Parked{}, err
	}
	if len(found) == 0 {
		return outbox.Parked{}, fmt.Errorf("%s: %w. See: dvmsg outbox parked list", id, outbox.ErrHeadChanged)
	}
	return found[0], nil
}

// stateDiscarded lists what was given up instead of what is parked.
const stateDiscarded = "discarded"

type parkedList struct {
	schema schema
	filter outbox.ParkedFilter
	state  string
}

func newParkedList(fs *flag.FlagSet) verb {
	v := &parkedList{}
	v.schema.register(fs)
	fs.StringVar(&v.filter.Stream, "stream", "", "only keys of this `STREAM`, such as DV_MASKIN_EVT")
	fs.StringVar(&v.filter.Key, "key", "", "only this ordering `KEY`")
	fs.StringVar(&v.state, "state", "", "only this `STATE`: held, released, discarded; default: held and released")
	fs.IntVar(&v.filter.Limit, "limit", defaultLimit, "at most so many, the first `N`, up to 10000")
	return v
}

func (v *parkedList) check(c *call) {
	v.schema.check(c)
	oneOf(c, "--state", v.state, []string{string(outbox.ParkedHeld), string(outbox.ParkedReleased), stateDiscarded})
	checkLimit(c, v.filter.Limit)
	if v.state == stateDiscarded && v.filter.Key != "" {
		c.fault("--key: not with --state discarded, which lists single messages")
	}
}

// parkedListResult is the JSON of outbox parked list.
type parkedListResult struct {
	Schema    string             `json:"schema"`
	Parked    []outbox.Parked    `json:"parked"`    // oldest first
	Discarded []outbox.Discarded `json:"discarded"` // newest first; only with --state discarded
	Limited   bool               `json:"limited"`   // as many as --limit allows: there may be more
	state     string
}

func (v *parkedList) run(ctx context.Context, c *call) error {
	r := parkedListResult{Schema: v.schema.name, Parked: []outbox.Parked{}, Discarded: []outbox.Discarded{}, state: v.state}
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) (err error) {
		if v.state == stateDiscarded {
			r.Discarded, err = outbox.ListDiscarded(ctx, pool, v.schema.name, v.filter.Stream, v.filter.Limit)
			return err
		}
		v.filter.State = outbox.ParkedState(v.state)
		r.Parked, err = outbox.ListParked(ctx, pool, v.schema.name, v.filter)
		return err
	})
	if err != nil {
		return err
	}
	r.Limited = max(len(r.Parked), len(r.Discarded)) == v.filter.Limit
	return c.print(r, r.text)
}

func (r parkedListResult) text(p *page) {
	switch {
	case r.state == stateDiscarded:
		r.discarded(p)
	case len(r.Parked) == 0:
		p.line("nothing is parked that matches")
	default:
		r.parked(p)
	}
	if r.Limited {
		p.line("there may be more; --limit N lists up to 10000")
	}
}

func (r parkedListResult) parked(p *page) {
	rows := make([][]string, 0, len(r.Parked))
	for _, k := range r.Parked {
		rows = append(rows, []string{k.ID, p.when(k.ParkedAt), stateOf(k), k.Stream, k.Key, k.Subject, shorten(clean(k.Cause), causeWidth)})
	}
	p.table([]string{"ID OF THE HEAD", "PARKED", "STATE", "STREAM", "KEY", "SUBJECT", "CAUSE"}, rows)
	p.gap()
	p.line("%s; next: dvmsg outbox parked show %s", count(len(r.Parked), "key"), r.Parked[0].ID)
}

func (r parkedListResult) discarded(p *page) {
	if len(r.Discarded) == 0 {
		p.line("nothing was discarded that is still retained")
		return
	}
	rows := make([][]string, 0, len(r.Discarded))
	for _, d := range r.Discarded {
		rows = append(rows, []string{d.ID, p.when(d.DiscardedAt), d.Stream, d.Key, d.Subject, shorten(clean(d.Cause), causeWidth), d.By + ": " + d.Reason})
	}
	p.table([]string{"ID", "DISCARDED", "STREAM", "KEY", "SUBJECT", "CAUSE", "WHO AND WHY"}, rows)
}

// stateOf names the state, and who released the key.
func stateOf(k outbox.Parked) string {
	if k.State == outbox.ParkedReleased {
		return "released by " + k.ReleasedBy
	}
	return string(k.State)
}

type parkedShow struct {
	schema schema
	id     messageID
	data   bool
}

func newParkedShow(fs *flag.FlagSet) verb {
	v := &parkedShow{}
	v.schema.register(fs)
	fs.BoolVar(&v.data, "data", false, "print the message itself too; it may hold what not everybody may see")
	return v
}

func (v *parkedShow) check(c *call) {
	v.schema.check(c)
	v.id = checkMessageID(c)
}

// parkedShowResult is the JSON of outbox parked show.
type parkedShowResult struct {
	outbox.ParkedDetails
	Data []byte `json:"data,omitempty"`
}

func (v *parkedShow) run(ctx context.Context, c *call) error {
	var r parkedShowResult
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) error {
		k, err := v.id.find(ctx, pool, v.schema.name)
		if err != nil {
			return err
		}
		if r.ParkedDetails, err = outbox.ShowParked(ctx, pool, v.schema.name, k.Stream, k.Key); err != nil {
			return err
		}
		if v.data {
			r.Data, err = outbox.ParkedEnvelope(ctx, pool, v.schema.name, r.Parked)
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.print(r, r.text)
}

func (r parkedShowResult) text(p *page) {
	p.list([]labelled{
		{"key", r.Key},
		{"stream", r.Stream},
		{"state", r.state(p)},
		{"parked", p.when(r.ParkedAt)},
		{"cause", r.Cause},
		{"held", waiting(r.ParkedDetails)},
	})
	p.gap()
	p.list([]labelled{
		{"message", r.ID},
		{"row", strconv.FormatInt(r.Seq, 10)},
		{"subject", r.Subject},
		{"enqueued", r.enqueued(p)},
		{"size", r.size()},
	})
	if len(r.Headers) > 0 {
		p.gap()
		p.line("headers of the message")
		for _, line := range r.Headers {
			p.line("  %s", line)
		}
	}
	if len(r.Decisions) > 0 {
		p.gap()
		p.decisions(r.Decisions)
	}
	p.gap()
	if r.Data != nil {
		p.data(r.Data)
		p.gap()
	}
	r.next(p)
}

func (r parkedShowResult) state(p *page) string {
	if r.State != outbox.ParkedReleased {
		return string(r.State)
	}
	return fmt.Sprintf("released by %s, %s: %s", r.ReleasedBy, p.when(r.ReleasedAt), r.Reason)
}

func (r parkedShowResult) enqueued(p *page) string {
	if r.Missing {
		return "its row is not in outbox_events any more"
	}
	return p.when(r.CreatedAt)
}

func (r parkedShowResult) size() string {
	if r.Missing {
		return ""
	}
	return fmt.Sprintf("%d bytes", r.Size)
}

// waiting counts what is held.
func waiting(d outbox.ParkedDetails) string {
	text := count(int(d.Held), "message")
	if d.Capped {
		return "more than " + text
	}
	return text
}

// decisions shows what operators decided about a key.
func (p *page) decisions(all []outbox.Decision) {
	rows := make([][]string, 0, len(all))
	for _, d := range all {
		rows = append(rows, []string{p.when(d.At), d.Act, d.ID, shorten(clean(d.Cause), causeWidth), d.By + ": " + d.Reason})
	}
	p.table([]string{"HISTORY", "WHAT", "MESSAGE", "CAUSE", "WHO AND WHY"}, rows)
}

// next says what can be done about the key.
func (r parkedShowResult) next(p *page) {
	if r.State == outbox.ParkedReleased {
		p.line("next: wait for the relay; see: dvmsg outbox status")
		return
	}
	p.line("next: mend the cause, then: dvmsg outbox parked release %s --by operator:NAME --reason WHY", r.ID)
	p.line("or give it up for good: dvmsg outbox parked discard %s --by operator:NAME --reason WHY", r.ID)
}

// lookEvery is the pause between two looks of a command that waits.
const lookEvery = 100 * time.Millisecond

// following is the flag --wait.
type following struct{ wait bool }

func (f *following) register(fs *flag.FlagSet) {
	fs.BoolVar(&f.wait, "wait", false, "wait until the relay has carried it out, at most --timeout")
}

// until waits until done says so. It reports whether it was done, which without
// the flag it does not look for.
func (f *following) until(ctx context.Context, done func() (bool, error)) (bool, error) {
	if !f.wait {
		return false, nil
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		ok, err := done()
		if ctx.Err() == nil && (ok || err != nil) {
			return ok, err
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("it is recorded, and the relay that leads will carry it out, but has not yet; see: dvmsg outbox status")
		case <-look.C:
		}
	}
}

// keyDone tells whether the relay is done with a key that was released. One that
// is held again is an error.
func keyDone(ctx context.Context, pool *pgxpool.Pool, schema, stream, key string) (bool, error) {
	found, err := outbox.ListParked(ctx, pool, schema, outbox.ParkedFilter{Stream: stream, Key: key, Limit: 1})
	if err != nil || len(found) == 0 {
		return err == nil, err
	}
	if found[0].State == outbox.ParkedHeld {
		return false, fmt.Errorf("key %q of %s is parked again: %s; see: dvmsg outbox parked show %s",
			key, stream, strings.TrimSpace(found[0].Cause), found[0].ID)
	}
	return false, nil
}
