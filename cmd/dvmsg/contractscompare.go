package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"codeberg.org/dataverket/messaging/contract"
)

// contractsDiff is diff, and breaking, which differs in what it calls a finding.
type contractsDiff struct {
	onlyBreaking bool
	old, next    contract.List
}

// contractsDiffResult is the JSON of contracts diff and contracts breaking.
type contractsDiffResult struct {
	Service  string            `json:"service"`
	Breaking bool              `json:"breaking"`
	Changes  []contract.Change `json:"changes"`
}

func (v *contractsDiff) check(c *call) { v.old, v.next = c.readPair() }

func (v *contractsDiff) run(_ context.Context, c *call) error {
	all := append([]contract.Change{}, contract.Compare(v.old, v.next)...)
	breaking := contract.BreakingOf(all)
	r := contractsDiffResult{v.next.Service, len(breaking) > 0, all}
	err := c.print(r, func(p *page) {
		p.contractChanges(all)
		if len(all) == 0 {
			p.line("contracts of %s: no difference", r.Service)
		}
	})
	if err != nil {
		return err
	}
	if len(breaking) > 0 || len(all) > 0 && !v.onlyBreaking {
		return &foundError{"contracts of " + r.Service + ": " + countVerdicts(all)}
	}
	return nil
}

type contractsLock struct {
	path       string
	dryRun     bool
	create     bool
	lock, next contract.List
}

// contractsLockResult is the JSON of contracts lock.
type contractsLockResult struct {
	Service string            `json:"service"`
	Lock    string            `json:"lock"`
	DryRun  bool              `json:"dry_run"`
	Changes []contract.Change `json:"changes"`
}

func (v *contractsLock) check(c *call) {
	if len(c.args) == 0 {
		return // reported already
	}
	v.next = c.readContracts("NEW", c.arg(0))
	switch _, err := os.Stat(v.path); {
	case v.path == "-":
		c.fault("--lock: must be a file, which is written")
	case errors.Is(err, fs.ErrNotExist):
		v.lock, v.create = contract.NewLock(v.next.Service), true
	default:
		v.lock = c.readContracts("--lock", v.path)
		if len(c.faults) == 0 && !v.lock.Lock {
			c.fault("--lock %s: is an exported list and no lock", v.path)
		}
	}
}

func (v *contractsLock) run(_ context.Context, c *call) error {
	accepted, changes, err := contract.Accept(v.lock, v.next)
	if err != nil {
		return err
	}
	r := contractsLockResult{v.lock.Service, v.path, v.dryRun, append([]contract.Change{}, changes...)}
	if (v.create || len(changes) > 0) && !v.dryRun {
		if err := replaceFile(v.path, accepted); err != nil {
			return err
		}
	}
	return c.print(r, r.text)
}

func (r contractsLockResult) text(p *page) {
	p.contractChanges(r.Changes)
	switch {
	case len(r.Changes) == 0:
		p.line("%s: says the same already, nothing to do", r.Lock)
	case r.DryRun:
		p.line("%s: would be written: %s", r.Lock, countVerdicts(r.Changes))
	default:
		p.line("%s: written: %s; review its diff and commit it", r.Lock, countVerdicts(r.Changes))
	}
}

// replaceFile writes a lock beside the old one and puts it in its place: whoever
// stops in the middle has one of the two.
func replaceFile(path string, l contract.List) error {
	data, err := l.Encode()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".contracts-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close()) // a source file
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}
