package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/subject"
)

type dlqPurge struct {
	decision
	owner     owner
	resolved  bool
	olderThan string
	age       time.Duration
	dryRun    bool
}

func newDLQPurge(fs *flag.FlagSet) verb {
	v := &dlqPurge{}
	v.owner.register(fs)
	v.decision.register(fs)
	fs.BoolVar(&v.resolved, "resolved", false, "remove resolved and discarded letters; required, since nothing else can be removed")
	fs.StringVar(&v.olderThan, "older-than", "30d", "only what was closed longer ago than this `AGE`, such as 720h or 30d")
	registerDryRun(fs, &v.dryRun)
	return v
}

func (v *dlqPurge) check(c *call) {
	v.owner.check(c)
	v.decision.check(c)
	if !v.resolved {
		c.fault("--resolved is missing: only resolved and discarded letters can be removed, so say that you mean them")
	}
	var ok bool
	if v.age, ok = parseAge(v.olderThan); !ok {
		c.fault("--older-than: %q is no age such as 720h or 30d", v.olderThan)
	}
}

// purged is what was removed of one service.
type purged struct {
	Service subject.Service `json:"service"`
	dlq.Purged
}

// dlqPurgeResult is the JSON of dlq purge.
type dlqPurgeResult struct {
	DryRun    bool     `json:"dry_run"`
	By        string   `json:"by"`
	Reason    string   `json:"reason"`
	OlderThan string   `json:"older_than"`
	Services  []purged `json:"services"`
}

func (v *dlqPurge) run(ctx context.Context, c *call) error {
	r := dlqPurgeResult{DryRun: v.dryRun, By: v.by, Reason: v.reason, OlderThan: v.age.String(), Services: []purged{}}
	err := c.withShelves(ctx, &v.owner, func(shelves []shelf) error {
		for _, s := range shelves {
			p, err := s.Purge(ctx, dlq.PurgeRequest{OlderThan: v.age, By: v.by, Reason: v.reason, DryRun: v.dryRun})
			r.Services = append(r.Services, purged{s.service, p})
			v.log(c, s, p)
			if err != nil {
				return err
			}
		}
		return nil
	})
	// What is removed is reported even if it could not be finished.
	if len(r.Services) > 0 {
		err = errors.Join(c.print(r, r.text), err)
	}
	return err
}

// log says who removed what and why. The letters' own marks said who decided about
// them, and are gone: this line is all that is left, also of what --json prints.
func (v *dlqPurge) log(c *call, s shelf, p dlq.Purged) {
	if !v.dryRun && p.Letters > 0 {
		fmt.Fprintf(c.stderr, "%s %s removed %s of %s that were closed for %s or longer: %s\n",
			stamp(c.now()), clean(v.by), count(p.Letters, "letter"), s.service, v.age, clean(v.reason))
	}
}

func (r dlqPurgeResult) text(p *page) {
	verb := "removed"
	if r.DryRun {
		verb = "would remove"
	}
	for _, s := range r.Services {
		p.line("%s: %s %s that were closed for %s or longer (%s beside their marks)",
			s.Service, verb, count(s.Letters, "letter"), r.OlderThan, count(s.Messages, "stored message"))
		if s.Kept > 0 {
			p.line("%s: %s left alone, since somebody acted on them meanwhile", s.Service, count(s.Kept, "letter"))
		}
	}
}
