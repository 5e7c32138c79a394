package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/sites"
)

type sitesVerify struct {
	at     siteFlags
	since  time.Duration
	repair bool
}

// sitesVerifyResult is the JSON of sites verify.
type sitesVerifyResult struct {
	Site   string           `json:"site"`
	Repair bool             `json:"repair"`
	Flows  []siteComparison `json:"flows"`
}

// siteComparison is one flow that ends at the site.
type siteComparison struct {
	flowName
	Since       time.Time `json:"since"`        // what was compared
	Missing     uint64    `json:"missing"`      // the origin has them, this site has not
	OriginLacks uint64    `json:"origin_lacks"` // the other way round
	Resent      uint64    `json:"resent"`
	Gone        uint64    `json:"gone"`     // missing, and not at the origin any more
	Complete    bool      `json:"complete"` // all could be compared
	Error       string    `json:"error,omitempty"`
	flow        string
}

func (v *sitesVerify) check(c *call) {
	v.at.check(c)
	if v.since < 10*time.Minute || v.since > 168*time.Hour {
		c.fault("--since: %s is out of range; use 10m to 168h", v.since)
	}
}

func (v *sitesVerify) run(ctx context.Context, c *call) error {
	r := sitesVerifyResult{Repair: v.repair, Flows: []siteComparison{}}
	err := v.at.connected(ctx, c, func(conn *natsconn.Conn, site string) error {
		r.Site = site
		found, err := sites.Verify(ctx, conn, v.at.file.set.Network, site, sites.Config{Horizon: v.since}, v.repair)
		for _, f := range found {
			r.Flows = append(r.Flows, siteComparison{
				flowName: flowName{f.Flow.From, f.Flow.To, f.Flow.Cargo, f.Flow.Service}, Since: f.From.UTC(),
				Missing: f.Missing, OriginLacks: f.OriginLacks, Resent: f.Resent, Gone: f.Gone,
				Complete: f.Err == "" && !f.More, Error: f.Err, flow: f.Flow.String(),
			})
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := c.print(r, r.text); err != nil {
		return err
	}
	missing, failed := uint64(0), 0
	for _, f := range r.Flows {
		missing += f.Missing
		if f.Error != "" {
			failed++
		}
	}
	switch {
	case failed > 0:
		return &foundError{fmt.Sprintf("site %s: %s not compared", r.Site, isOrAre(failed, "flow"))}
	case missing > 0 && v.repair:
		return &foundError{fmt.Sprintf("site %s: %d messages were missing; verify again to see that they came", r.Site, missing)}
	case missing > 0:
		return &foundError{fmt.Sprintf("site %s: %d messages are missing; --repair has them sent again", r.Site, missing)}
	}
	return nil
}

func (r sitesVerifyResult) text(p *page) {
	if len(r.Flows) == 0 {
		p.line("site %s: no flow of another site ends here", r.Site)
		return
	}
	rows := make([][]string, 0, len(r.Flows))
	for _, f := range r.Flows {
		number := func(n uint64) string { return strconv.FormatUint(n, 10) }
		rows = append(rows, []string{f.flow, number(f.Missing), number(f.Resent), number(f.OriginLacks)})
	}
	p.table([]string{"FLOW", "MISSING", "RESENT", "ORIGIN LACKS"}, rows)
	for _, f := range r.Flows {
		if f.Error != "" {
			p.gap()
			p.line("%s: %s", f.flow, f.Error)
		}
	}
}
