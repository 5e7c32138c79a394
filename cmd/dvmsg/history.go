package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/history"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

func historyCommands() table {
	return table{
		{
			path: "history list", params: []string{"[SUBJECT]"}, summary: "list what a stream holds of a subject or a resource", needs: needsNATS,
			about: `SUBJECT is a subject or a pattern of one service's events or commands, or of the
task events; --service stands for all events of a service. The oldest first. It
reads once, what is stored now, and leaves no consumer behind. What a bound leaves
out is said, with the --from to go on with. The payload is printed only with
--data: it is what the platform's users wrote.`,
			examples: []string{
				"dvmsg history list --service maskin --resource server-1 --since 24h",
				"dvmsg history list 'dv.maskin.evt.server.*' --correlation 0197a0b2-... --json",
				"dvmsg history list dv.maskin.cmd.provision --from 4711 --limit 10 --data",
			},
			make: newHistoryList,
		},
	}
}

// defaultHistory is how many messages are listed.
const defaultHistory = 100

type historyList struct {
	service, since, until string
	query                 history.Query
	data                  bool
}

func newHistoryList(fs *flag.FlagSet) verb {
	v := &historyList{}
	q := &v.query
	fs.StringVar(&v.service, "service", "", "all events of this `SERVICE`, instead of SUBJECT")
	fs.StringVar(&q.Stream, "stream", "", "read this `STREAM`, such as a copy from another site; default: the one of the subject")
	fs.StringVar(&q.Resource, "resource", "", "only messages about this `RESOURCE`, the envelope's subject")
	fs.StringVar(&q.CorrelationID, "correlation", "", "only messages of the workflow with this correlation `ID`")
	fs.StringVar(&q.TenantID, "tenant", "", "only messages of this `TENANT`")
	fs.Uint64Var(&q.From, "from", 0, "begin with message `N` of the stream")
	fs.StringVar(&v.since, "since", "", "begin at this `TIME`: an age (90m, 2h, 3d) or 2006-01-02T15:04:05Z")
	fs.StringVar(&v.until, "until", "", "end before this `TIME`")
	fs.IntVar(&q.Max, "limit", defaultHistory, "at most so many messages, the oldest `N`")
	fs.IntVar(&q.MaxRead, "max-read", history.DefaultMaxRead, "read at most `N` messages to find them")
	fs.BoolVar(&v.data, "data", false, "print the data too; it may hold what not everybody may see")
	return v
}

func (v *historyList) check(c *call) {
	q := &v.query
	switch text := c.arg(0); {
	case (text == "") == (v.service == ""):
		c.fault("say which messages: SUBJECT, such as dv.maskin.evt.server.provisioned, or --service, one of them")
	case text != "":
		f, err := subject.ParseFilter(text)
		if err != nil {
			c.fault("SUBJECT: %v", err)
		}
		q.Filter = f
	default:
		s, err := subject.ParseService(v.service)
		if err != nil {
			c.fault("--service: %v", err)
		}
		q.Filter = subject.EventsOf(s)
	}
	q.Since, q.Until = checkTime(c, "--since", v.since), checkTime(c, "--until", v.until)
	if !q.Until.IsZero() && !q.Since.Before(q.Until) {
		c.fault("--until is not after --since: nothing can lie between them")
	}
	if q.From > 0 && v.since != "" {
		c.fault("--from: not with --since: there is one beginning")
	}
	checkLimit(c, q.Max)
	if q.MaxRead < 1 {
		c.fault("--max-read: %d is no number of messages; use 1 or more", q.MaxRead)
	}
	// What was read in time is worth more than an error.
	if q.Timeout = forEver; c.timeout > 0 {
		q.Timeout = c.timeout - c.timeout/10
	}
}

// forEver is long enough for --timeout 0.
const forEver = 365 * day

// stored is one message, in JSON.
type stored struct {
	Sequence      uint64          `json:"sequence"`
	StoredAt      time.Time       `json:"stored_at"`
	Subject       string          `json:"subject"`
	ID            string          `json:"id"`
	Type          string          `json:"type"`
	Version       int             `json:"version"`
	Source        subject.Service `json:"source"`
	Resource      string          `json:"resource"`
	Time          time.Time       `json:"time"`
	Actor         envelope.Actor  `json:"actor,omitempty"`
	TenantID      string          `json:"tenant_id,omitempty"`
	CorrelationID string          `json:"correlation_id"`
	CausationID   string          `json:"causation_id,omitempty"`
	Size          int             `json:"size"`
	Data          json.RawMessage `json:"data,omitempty"`
}

func storedOf(m history.Message) stored {
	e := m.Envelope
	return stored{
		Sequence: m.Sequence, StoredAt: m.StoredAt, Subject: m.Subject.String(), ID: e.ID, Type: e.Type,
		Version: e.SchemaVersion(), Source: e.Source, Resource: e.Subject, Time: e.Time, Actor: e.Actor, TenantID: e.TenantID,
		CorrelationID: e.CorrelationID, CausationID: e.CausationID, Size: len(m.Bytes), Data: e.Data,
	}
}

// strange is a stored message that no handler would see.
type strange struct {
	Sequence uint64 `json:"sequence"`
	Error    string `json:"error"`
}

// more says that a bound ended the read.
type more struct {
	Limit string `json:"limit"`
	From  uint64 `json:"from"`
}

// historyListResult is the JSON of history list.
type historyListResult struct {
	Messages   []stored  `json:"messages"` // in the order of the stream
	Unreadable []strange `json:"unreadable"`
	More       *more     `json:"more,omitempty"`
}

func (v *historyList) run(ctx context.Context, c *call) error {
	r := historyListResult{Messages: []stored{}, Unreadable: []strange{}}
	err := c.withNATS(ctx, func(conn *natsconn.Conn) error {
		for m, err := range history.Read(ctx, conn.JetStream(), v.query) {
			if err := r.add(m, err, v.data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.print(r, r.text)
}

// add takes what a read yields; what ends it is returned.
func (r *historyListResult) add(m history.Message, err error, data bool) error {
	if odd, ok := errors.AsType[*history.MessageError](err); ok {
		r.Unreadable = append(r.Unreadable, strange{odd.Sequence, odd.Err.Error()})
		return nil
	}
	if ended, ok := errors.AsType[*history.LimitError](err); ok {
		r.More = &more{limitFlag(ended.Limit), ended.Next}
		return nil
	}
	if err != nil {
		return err
	}
	s := storedOf(m)
	if !data {
		s.Data = nil
	}
	r.Messages = append(r.Messages, s)
	return nil
}

// limitFlag names the flag of a bound.
func limitFlag(limit string) string {
	return map[string]string{"Max": "--limit", "MaxRead": "--max-read", "Timeout": "--timeout"}[limit]
}

func (r historyListResult) text(p *page) {
	if len(r.Messages) == 0 {
		p.line("no message matches")
	} else {
		p.messages(r.Messages)
	}
	for _, u := range r.Unreadable {
		p.line("warning: no handler sees message %d: %s", u.Sequence, u.Error)
	}
	if m := r.More; m != nil {
		p.line("%s ended it: there may be more; go on with --from %d", m.Limit, m.From)
	}
}

// messages lists messages, those with data one after another.
func (p *page) messages(all []stored) {
	if all[0].Data != nil {
		for _, m := range all {
			p.line("message %d  %s  %s v%d  %s  %s", m.Sequence, stamp(m.StoredAt), m.Type, m.Version, m.Resource, m.ID)
			p.data(m.Data)
			p.gap()
		}
		return
	}
	rows := make([][]string, 0, len(all))
	for _, m := range all {
		rows = append(rows, []string{
			uint64Text(m.Sequence), age(max(0, p.now.Sub(m.StoredAt))), stamp(m.StoredAt), m.Type, m.Resource,
			m.ID, string(m.Actor), m.CorrelationID,
		})
	}
	p.table([]string{"MESSAGE", "AGE", "STORED AT", "TYPE", "RESOURCE", "ID", "ACTOR", "CORRELATION"}, rows)
}
