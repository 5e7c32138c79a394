package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"time"

	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

const sitesAbout = `The network is in every service's contract file (--file). --nats names the servers of
the site that is looked at; their JetStream domain tells which one that is, and
--site demands one.`

func sitesCommands() table {
	return table{{
		path: "sites status", summary: "say how far the copies at a site are behind", needs: needsNATS,
		about: `Reads only. Asks both sites about every flow that ends at this one: whether the link
works, how many messages lack here, when the other site was heard of last, how full
the copy is. While the link is down BEHIND is unknown: the server's own number for it
says 0. Exit code 3 when a flow is silent or stuck.

` + sitesAbout,
		examples: []string{"dvmsg sites status --file maskin.json --nats nats://nats.trd1:4222"},
		make: func(fs *flag.FlagSet) verb {
			v := &sitesStatus{}
			v.at.register(fs)
			return v
		},
	}, {
		path: "sites verify", summary: "find what the copies at a site lack, and have it sent again", needs: needsNATS,
		about: `Compares the two ends of every flow that ends at this site, id by id where they
differ. What is on its way is waited for. Exit code 3 when something is missing, or a
flow could not be compared. With --repair what is missing is sent again from the
origin's stream; the watchers do that by themselves every 30 s.

` + sitesAbout,
		examples: []string{
			"dvmsg sites verify --file maskin.json --nats nats://nats.trd1:4222",
			"dvmsg sites verify --since 72h --repair --file maskin.json --nats nats://nats.trd1:4222",
		},
		make: func(fs *flag.FlagSet) verb {
			v := &sitesVerify{}
			v.at.register(fs)
			fs.DurationVar(&v.since, "since", sites.DefaultHorizon, "how far back to compare, a `DURATION` of 10m to 168h; the origin goes back as far as its watchers do")
			fs.BoolVar(&v.repair, "repair", false, "have what is missing sent again; without it nothing changes")
			return v
		},
	}}
}

// siteFlags say which site is looked at.
type siteFlags struct {
	file contractFile
	site string
}

func (f *siteFlags) register(fs *flag.FlagSet) {
	f.file.register(fs)
	fs.StringVar(&f.site, "site", "", "the `NAME` of the site that --nats must be of")
}

func (f *siteFlags) check(c *call) {
	f.file.check(c)
	n := f.file.set.Network
	switch _, known := n.Site(f.site); {
	case len(c.faults) > 0:
	case len(n.Sites) == 0:
		c.fault("--file %s: has no network: there is one site, and nothing flows", f.file.file)
	case f.site != "" && !known:
		c.fault("--site: the network of --file has no site %.40q", f.site)
	}
}

// connected connects to the site and calls do with its name.
func (f *siteFlags) connected(ctx context.Context, c *call, do func(*natsconn.Conn, string) error) error {
	return c.withNATS(ctx, func(conn *natsconn.Conn) error {
		site, err := sites.SiteOf(ctx, conn, f.file.set.Network, f.site)
		if err != nil {
			return err
		}
		return do(conn, site)
	})
}

type sitesStatus struct{ at siteFlags }

// sitesStatusResult is the JSON of sites status.
type sitesStatusResult struct {
	Site  string     `json:"site"`
	Flows []siteFlow `json:"flows"`
}

// flowName is what names a flow.
type flowName struct {
	From    string          `json:"from"`
	To      string          `json:"to"`
	Cargo   topology.Cargo  `json:"cargo"`
	Service subject.Service `json:"service"`
}

// siteFlow is one flow that ends at the site.
type siteFlow struct {
	flowName
	Stream    string      `json:"stream"` // at this site
	Source    string      `json:"source"` // at the origin
	State     sites.State `json:"state"`
	Reachable bool        `json:"reachable"` // the origin answered
	Behind    *uint64     `json:"behind"`    // null: nobody knows
	Heard     *time.Time  `json:"heard"`     // of the origin's stream; null: never
	Complete  bool        `json:"complete"`  // all that the origin held is here
	Full      float64     `json:"full"`      // 0 to 1
	Error     string      `json:"error,omitempty"`
}

func (v *sitesStatus) check(c *call) { v.at.check(c) }

func (v *sitesStatus) run(ctx context.Context, c *call) error {
	r := sitesStatusResult{Flows: []siteFlow{}}
	err := v.at.connected(ctx, c, func(conn *natsconn.Conn, site string) error {
		flows, err := sites.Look(ctx, conn, v.at.file.set.Network, site, sites.Config{})
		r.Site = site
		for _, f := range flows {
			r.Flows = append(r.Flows, siteFlowOf(f))
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := c.print(r, r.text); err != nil {
		return err
	}
	bad := 0
	for _, f := range r.Flows {
		if f.State != sites.StateMoving && f.State != sites.StateBehind {
			bad++
		}
	}
	if bad > 0 {
		return &foundError{fmt.Sprintf("site %s: %s not moving", r.Site, isOrAre(bad, "flow"))}
	}
	return nil
}

// isOrAre names n things and begins what they do.
func isOrAre(n int, thing string) string {
	if n == 1 {
		return count(n, thing) + " is"
	}
	return count(n, thing) + " are"
}

func siteFlowOf(f sites.Flow) siteFlow {
	s := siteFlow{
		flowName: flowName{f.From, f.To, f.Cargo, f.Service}, Stream: f.Stream, Source: f.Source,
		State: f.State, Reachable: f.Reachable, Complete: !f.CaughtUp.IsZero(), Full: f.Full, Error: f.Err,
	}
	if f.Reachable || f.State == sites.StateMoving || f.State == sites.StateBehind {
		s.Behind = &f.Behind
	}
	if !f.Heard.IsZero() {
		heard := f.Heard.UTC()
		s.Heard = &heard
	}
	return s
}

func (r sitesStatusResult) text(p *page) {
	if len(r.Flows) == 0 {
		p.line("site %s: no flow of another site ends here", r.Site)
		return
	}
	rows := make([][]string, 0, len(r.Flows))
	for _, f := range r.Flows {
		behind, heard := "unknown", "never"
		if f.Behind != nil {
			behind = strconv.FormatUint(*f.Behind, 10)
		}
		if f.Heard != nil {
			heard = age(max(p.now.Sub(*f.Heard), 0)) + " ago"
		}
		rows = append(rows, []string{f.Stream, f.From, string(f.State), behind, heard, fmt.Sprintf("%.0f %%", f.Full*100)})
	}
	p.table([]string{"STREAM AT " + r.Site, "FROM", "STATE", "BEHIND", "HEARD OF", "FULL"}, rows)
	for _, f := range r.Flows {
		if f.Error != "" {
			p.gap()
			p.line("%s: %s", f.Stream, f.Error)
		}
	}
}
