package main

import (
	"context"
	"fmt"

	"github.com/nats-io/nats-server/v2/conf"
)

type topologyServerConfig struct {
	file          contractFile
	site, against string
}

// topologyServerConfigResult is the JSON of server-config.
type topologyServerConfigResult struct {
	Site     string    `json:"site"`
	Domain   string    `json:"domain"`
	Config   string    `json:"config,omitempty"`  // not with --check
	Checked  string    `json:"checked,omitempty"` // the file
	Findings []finding `json:"findings"`
}

func (v *topologyServerConfig) check(c *call) {
	v.file.check(c)
	switch _, known := v.file.set.Network.Site(v.site); {
	case v.site == "":
		c.fault("--site is missing; name a site of the file's network")
	case !known:
		c.fault("--site: the network of --file has no site %.40q", v.site)
	}
}

func (v *topologyServerConfig) run(_ context.Context, c *call) error {
	network := v.file.set.Network
	site, _ := network.Site(v.site)
	r := topologyServerConfigResult{Site: site.Name, Domain: site.Domain, Checked: v.against, Findings: []finding{}}
	if v.against == "" {
		var err error
		if r.Config, err = network.ServerConfig(v.site); err != nil {
			return err
		}
		return c.print(r, r.text)
	}
	tree, err := conf.ParseFile(v.against)
	if err != nil {
		return fmt.Errorf("read --check: %w; variables are taken from the environment, as nats-server does", err)
	}
	var rest error
	if r.Findings, rest = findingsOf(network.CheckServer(v.site, tree)); rest != nil {
		return rest
	}
	if err := c.print(r, r.text); err != nil {
		return err
	}
	if n := len(r.Findings); n > 0 {
		return &foundError{fmt.Sprintf("configuration of site %s: %s found", v.site, count(n, "fault"))}
	}
	return nil
}

func (r topologyServerConfigResult) text(p *page) {
	switch {
	case r.Checked == "":
		p.WriteString(r.Config)
	case len(r.Findings) == 0:
		p.line("configuration of site %s: as the network needs it", r.Site)
	}
	p.findings(r.Findings)
}
