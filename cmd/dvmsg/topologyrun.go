package main

import (
	"context"
	"errors"
	"fmt"

	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

type topologyDiff struct{ file contractFile }

// topologyResult is the JSON of diff and apply.
type topologyResult struct {
	Service  subject.Service `json:"service"`
	DryRun   bool            `json:"dry_run"`
	Changes  []change        `json:"changes"`  // what would be done, or was
	Findings []finding       `json:"findings"` // what apply cannot mend
	Warnings []string        `json:"warnings"`
}

func newTopologyResult(set topology.Set) topologyResult {
	return topologyResult{Service: set.Service, Changes: []change{}, Findings: []finding{}, Warnings: warningsOf(set)}
}

func warningsOf(set topology.Set) []string {
	return append([]string{}, set.Warnings()...)
}

func (v *topologyDiff) check(c *call) { v.file.check(c) }

func (v *topologyDiff) run(ctx context.Context, c *call) error {
	r := newTopologyResult(v.file.set)
	r.DryRun = true
	var rest error
	err := c.withNATS(ctx, func(conn *natsconn.Conn) error {
		list, err := topology.Plan(ctx, conn.JetStream(), v.file.set)
		r.Changes = changesOf(list)
		r.Findings, rest = findingsOf(err)
		return rest
	})
	if err != nil {
		return err
	}
	if err := c.print(r, r.text); err != nil {
		return err
	}
	if n := len(r.Changes) + len(r.Findings); n > 0 {
		return summary(v.file.set, n)
	}
	return nil
}

func (r topologyResult) text(p *page) {
	if len(r.Changes)+len(r.Findings) == 0 {
		p.line("topology of %s: as declared, nothing to do", r.Service)
	}
	if len(r.Changes) > 0 {
		p.changes(r.Changes)
	}
	p.findings(r.Findings)
	for _, w := range r.Warnings {
		p.line("warning: %s", w)
	}
}

type topologyVerify struct{ file contractFile }

// topologyVerifyResult is the JSON of verify.
type topologyVerifyResult struct {
	Service  subject.Service `json:"service"`
	OK       bool            `json:"ok"`
	Findings []finding       `json:"findings"`
	Warnings []string        `json:"warnings"`
}

func (v *topologyVerify) check(c *call) { v.file.check(c) }

func (v *topologyVerify) run(ctx context.Context, c *call) error {
	r := topologyVerifyResult{Service: v.file.set.Service, Warnings: warningsOf(v.file.set)}
	err := c.withNATS(ctx, func(conn *natsconn.Conn) (rest error) {
		r.Findings, rest = findingsOf(topology.Verify(ctx, conn.JetStream(), v.file.set))
		return rest
	})
	if err != nil {
		return err
	}
	r.OK = len(r.Findings) == 0
	if err := c.print(r, r.text); err != nil {
		return err
	}
	if !r.OK {
		return summary(v.file.set, len(r.Findings))
	}
	return nil
}

func (r topologyVerifyResult) text(p *page) {
	if r.OK {
		p.line("topology of %s: everything is there and as declared", r.Service)
	}
	p.findings(r.Findings)
	for _, w := range r.Warnings {
		p.line("warning: %s", w)
	}
}

type topologyApply struct {
	file                contractFile
	destructive, dryRun bool
}

func (v *topologyApply) check(c *call) { v.file.check(c) }

func (v *topologyApply) run(ctx context.Context, c *call) error {
	r := newTopologyResult(v.file.set)
	r.DryRun = v.dryRun
	err := c.withNATS(ctx, func(conn *natsconn.Conn) error {
		list, err := v.apply(ctx, conn)
		r.Changes = changesOf(list)
		return forOperator(err)
	})
	// What was done before an error is worth as much as the error.
	if err == nil || len(r.Changes) > 0 {
		err = errors.Join(c.print(r, r.text), err)
	}
	return err
}

// apply does it, or finds out what it would do, with the same refusals.
func (v *topologyApply) apply(ctx context.Context, conn *natsconn.Conn) ([]topology.Change, error) {
	if !v.dryRun {
		return topology.Apply(ctx, conn.JetStream(), v.file.set, topology.ApplyOptions{Destructive: v.destructive})
	}
	list, err := topology.Plan(ctx, conn.JetStream(), v.file.set)
	if err != nil || v.destructive {
		return list, err
	}
	var refused []topology.Change
	for _, change := range list {
		if change.Destructive {
			refused = append(refused, change)
		}
	}
	if len(refused) > 0 {
		err = &topology.DestructiveError{Changes: refused}
	}
	return list, err
}

// forOperator names the flag where the package names its option.
func forOperator(err error) error {
	refused, ok := errors.AsType[*topology.DestructiveError](err)
	if !ok {
		return err
	}
	text := "refused, nothing was changed: this may lose messages or cannot be undone; correct the file, or allow it with --destructive"
	for _, change := range refused.Changes {
		text += fmt.Sprintf("\n%s", change)
	}
	return errors.New(text)
}
