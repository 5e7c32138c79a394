package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"codeberg.org/dataverket/messaging/contract"
)

type contractsList struct{ list contract.List }

// contractsListResult is the JSON of contracts list.
type contractsListResult struct {
	Service   string           `json:"service"`
	Lock      bool             `json:"lock"`
	Contracts []listedContract `json:"contracts"`
}

// listedContract is a contract without its schema.
type listedContract struct {
	Type       string             `json:"type"`
	Version    int                `json:"version"`
	Kind       contract.Kind      `json:"kind"`
	Direction  contract.Direction `json:"direction"`
	Subject    string             `json:"subject"`
	Visibility string             `json:"visibility"`
	Retired    bool               `json:"retired"`
	DataSchema string             `json:"dataschema"`
}

func (v *contractsList) check(c *call) { v.list = c.readContracts("FILE", c.arg(0)) }

func (v *contractsList) run(_ context.Context, c *call) error {
	r := contractsListResult{Service: v.list.Service, Lock: v.list.Lock, Contracts: []listedContract{}}
	for _, m := range v.list.Contracts {
		r.Contracts = append(r.Contracts, listedContract{
			m.Type, m.Version, m.Kind, m.Direction, m.Subject, m.Visibility, m.Retired, m.DataSchema(),
		})
	}
	return c.print(r, r.text)
}

func (r contractsListResult) text(p *page) {
	if len(r.Contracts) == 0 {
		p.line("service %s: no messages", r.Service)
		return
	}
	rows := make([][]string, 0, len(r.Contracts))
	for _, m := range r.Contracts {
		note := m.Visibility
		if m.Retired {
			note += ", retired"
		}
		rows = append(rows, []string{m.Type, fmt.Sprintf("v%d", m.Version), string(m.Kind), string(m.Direction), m.Subject, note})
	}
	p.table([]string{"TYPE", "VERSION", "KIND", strings.ToUpper(r.Service), "SUBJECT", "VISIBILITY"}, rows)
}

type contractsLint struct {
	paths []string
	lists []contract.List
}

// contractsLintResult is the JSON of contracts lint.
type contractsLintResult struct {
	OK       bool          `json:"ok"`
	Findings []lintFinding `json:"findings"`
}

type lintFinding struct {
	File string `json:"file"`
	contract.Finding
}

func (v *contractsLint) check(c *call) {
	v.paths = c.args
	if len(v.paths) == 0 {
		v.paths = []string{lockName}
	}
	for _, path := range v.paths {
		v.lists = append(v.lists, c.readContracts("FILE", path))
	}
}

func (v *contractsLint) run(_ context.Context, c *call) error {
	r := contractsLintResult{Findings: []lintFinding{}}
	messages := 0
	for i, l := range v.lists {
		messages += len(l.Contracts)
		for _, f := range l.Lint() {
			r.Findings = append(r.Findings, lintFinding{v.paths[i], f})
		}
	}
	r.Findings = append(r.Findings, v.contradictions()...)
	r.OK = len(r.Findings) == 0
	err := c.print(r, func(p *page) {
		for _, f := range r.Findings {
			p.line("%s: %s", f.File, f.Finding)
		}
		if r.OK {
			p.line("%s in %s: every name follows the rules", count(messages, "message"), count(len(v.lists), "file"))
		}
	})
	if err == nil && !r.OK {
		err = &foundError{count(len(r.Findings), "finding")}
	}
	return err
}

// contradictions finds versions whose data two files describe so differently that
// one of them cannot read it. The owner's file is right, else the first.
func (v *contractsLint) contradictions() (found []lintFinding) {
	type place struct {
		path string
		contract.Contract
	}
	var owners, others []place
	for i, l := range v.lists {
		for _, m := range l.Contracts {
			if strings.HasPrefix(m.Type, l.Service+".") {
				owners = append(owners, place{v.paths[i], m})
			} else {
				others = append(others, place{v.paths[i], m})
			}
		}
	}
	known := map[string]place{}
	for _, m := range append(owners, others...) {
		first, again := known[m.String()]
		if !again {
			known[m.String()] = m
			continue
		}
		one, other := contract.List{Contracts: []contract.Contract{first.Contract}}, contract.List{Contracts: []contract.Contract{m.Contract}}
		for _, c := range contract.BreakingOf(contract.Compare(one, other)) {
			found = append(found, lintFinding{m.path, contract.Finding{Contract: m.String(), Field: "schema", Reason: fmt.Sprintf(
				"is another than in %s: %s (%s): one of the two declares the message by itself; import its service's declaration", first.path, c.Path, c.Rule)}})
		}
	}
	return found
}

type contractsAsyncAPI struct {
	list  contract.List
	about contract.AsyncAPIOptions
}

func (v *contractsAsyncAPI) check(c *call) { v.list = c.readContracts("FILE", c.arg(0)) }

func (v *contractsAsyncAPI) run(_ context.Context, c *call) error {
	document, err := v.list.AsyncAPI(v.about)
	if err != nil {
		return err
	}
	return c.print(json.RawMessage(document), func(p *page) { p.Write(document) })
}

type contractsSchema struct {
	list    contract.List
	version int
}

func (v *contractsSchema) check(c *call) {
	if len(c.args) == 0 {
		return // reported already
	}
	v.list = c.readContracts("FILE", c.arg(1))
	if v.version < 0 {
		c.fault("--version: %d is no version", v.version)
	}
}

func (v *contractsSchema) run(_ context.Context, c *call) error {
	m, err := v.find(c.arg(0))
	if err != nil {
		return err
	}
	document, err := m.SchemaDocument()
	if err != nil {
		return err
	}
	return c.print(json.RawMessage(document), func(p *page) { p.Write(document) })
}

// find returns the version that is asked for, or the newest that is in use.
func (v *contractsSchema) find(name string) (found contract.Contract, err error) {
	known := ""
	for _, m := range v.list.Contracts {
		if m.Type != name {
			continue
		}
		known += fmt.Sprintf(" v%d", m.Version)
		if v.version == m.Version || v.version == 0 && !m.Retired && m.Version > found.Version {
			found = m
		}
	}
	switch {
	case found.Schema != nil:
		return found, nil
	case known == "":
		return found, fmt.Errorf("the file has no message of type %q; see: dvmsg contracts list", name)
	case v.version == 0:
		return found, fmt.Errorf("every version of %q is retired: choose one with --version:%s", name, known)
	}
	return found, fmt.Errorf("the file has no version %d of %q, but%s", v.version, name, known)
}
