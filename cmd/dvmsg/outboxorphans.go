package main

import (
	"context"
	"flag"
	"strconv"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
)

func outboxOrphansCommands() table {
	return table{{
		path: "outbox orphans", summary: "list the messages of a time that the database was restored away from", needs: needsDatabase | needsNATS,
		patience: 5 * time.Minute,
		about: `Reads only. The database was put back to an earlier moment; the streams still hold
what the service published after it, and others may have acted on it. --since is the
time of the backup or, rather, a little earlier. An orphan without a CAUSE comes from
a request, which somebody has to make again, or from a job; one with a cause from the
handling of that message, which "durable reset" repeats: it is then said once more,
under another id.`,
		examples: []string{
			"dvmsg outbox orphans --service maskin --since 2026-01-02T03:00:00Z",
			"dvmsg outbox orphans --service maskin --since 9h --json --limit 100000 > orphans.json",
		},
		make: newOutboxOrphans,
	}}
}

type outboxOrphans struct {
	schema         schema
	service, since string
	query          outbox.OrphanQuery
}

func newOutboxOrphans(fs *flag.FlagSet) verb {
	v := &outboxOrphans{}
	v.schema.register(fs)
	fs.StringVar(&v.service, "service", "", "the `SERVICE` whose outbox it is; required")
	fs.StringVar(&v.since, "since", "", "what was stored at or after this `TIME`, that of the backup: an age (90m, 2h, 3d) or 2006-01-02T15:04:05Z; required")
	fs.StringVar(&v.query.Stream, "stream", "", "only this `STREAM`; default: all that the service may publish to")
	fs.IntVar(&v.query.Max, "limit", defaultLimit, "list at most `N`, up to 100000; all are counted")
	return v
}

func (v *outboxOrphans) check(c *call) {
	v.schema.check(c)
	v.query.Service = checkService(c, v.service)
	if v.since == "" {
		c.fault("--since is missing: say the time of the backup; what was stored before it is not looked at")
	}
	v.query.Since = checkTime(c, "--since", v.since)
	const most = 100_000
	if v.query.Max < 1 || v.query.Max > most {
		c.fault("--limit: %d is out of range; use 1 to %d", v.query.Max, most)
	}
}

// checkService reads --service where it is required.
func checkService(c *call, name string) subject.Service {
	if name == "" {
		c.fault("--service is missing: say which")
		return 0
	}
	s, err := subject.ParseService(name)
	if err != nil {
		c.fault("--service: %s", strings.TrimPrefix(err.Error(), "subject: "))
	}
	return s
}

// outboxOrphansResult is the JSON of outbox orphans.
type outboxOrphansResult struct {
	Schema  string          `json:"schema"`
	Service subject.Service `json:"service"`
	Since   time.Time       `json:"since"`
	outbox.Orphans
}

func (v *outboxOrphans) run(ctx context.Context, c *call) error {
	pool, err := c.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	r := outboxOrphansResult{Schema: v.schema.name, Service: v.query.Service, Since: v.query.Since.UTC()}
	err = c.withNATS(ctx, func(conn *natsconn.Conn) (err error) {
		r.Orphans, err = outbox.FindOrphans(ctx, pool, conn.JetStream(), v.schema.name, v.query)
		return err
	})
	if err != nil {
		return err
	}
	r.Orphans.Orphans = append([]outbox.Orphan{}, r.Orphans.Orphans...) // [] and not null
	r.Streams = append([]outbox.OrphanCount{}, r.Streams...)
	return c.print(r, r.text)
}

func (r outboxOrphansResult) text(p *page) {
	if len(r.Streams) == 0 {
		p.line("no stream holds a message of %s that was stored since %s", r.Service, p.when(r.Since))
		return
	}
	rows := make([][]string, 0, len(r.Streams))
	orphans := 0
	for _, s := range r.Streams {
		rows = append(rows, []string{s.Stream, strconv.Itoa(s.Ours), strconv.Itoa(s.Orphans), strconv.Itoa(s.Unjudged)})
		orphans += s.Orphans
	}
	p.table([]string{"STREAM", "SINCE THEN", "ORPHANS", "NOBODY KNOWS"}, rows)
	p.gap()
	for _, s := range r.Streams {
		if s.Cut {
			p.line("warning: %s was read to message %d only; repeat it with a later --since", s.Stream, s.Read)
		}
	}
	if orphans == 0 {
		p.line("the outbox knows every message of %s that can be judged", r.Service)
		return
	}
	r.list(p)
	p.gap()
	p.line("%s: others may have acted on them, and %s does not know of them", count(orphans, "message"), r.Service)
	if r.Limited {
		p.line("there are more than are listed; --limit N lists up to 100000")
	}
	p.line("next: docs/RECOVERY.md, \"What the others saw\"")
}

func (r outboxOrphansResult) list(p *page) {
	rows := make([][]string, 0, len(r.Orphans.Orphans))
	for _, o := range r.Orphans.Orphans {
		cause := o.CausationID
		if cause == "" {
			cause = "request of " + o.Actor
		}
		rows = append(rows, []string{strconv.FormatUint(o.Sequence, 10), stamp(o.StoredAt), o.Subject, o.Resource, o.ID, cause})
	}
	p.table([]string{"MESSAGE", "STORED", "SUBJECT", "RESOURCE", "ID", "CAUSE"}, rows)
}
