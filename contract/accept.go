package contract

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// BreakingError says that a list gives a locked version another meaning. Nothing
// was accepted.
type BreakingError struct {
	// Service is whose lock it is.
	Service string
	// Changes are the breaking ones, at least one.
	Changes []Change
	// Next is the version to use instead, by type.
	Next map[string]int
}

// Error lists the changes and says how to make a new version instead.
func (e *BreakingError) Error() string {
	var b strings.Builder
	b.WriteString("contract: accept: the meaning of a locked version changed:")
	for _, c := range e.Changes {
		b.WriteString("\n  " + c.String())
	}
	b.WriteString("\nLeave the version as it was, and declare another:")
	var told []string
	for _, c := range e.Changes {
		if slices.Contains(told, c.Type) {
			continue
		}
		told = append(told, c.Type)
		if owner, _, _ := strings.Cut(c.Type, "."); owner != e.Service {
			fmt.Fprintf(&b, "\n  %s belongs to %s: ask for version %d there, and stay with the release of its declarations that you had", c.Type, owner, e.Next[c.Type])
			continue
		}
		fmt.Fprintf(&b, "\n  %s: Version: %d, with envelope.Upcast from version %d", c.Type, e.Next[c.Type], e.Next[c.Type]-1)
	}
	b.WriteString("\nA version that never left your branch may change: take the main branch's lock back first, then lock anew.")
	return b.String()
}

// NewLock returns the lock of a service that has none yet.
func NewLock(service string) List {
	return List{Format: format, Lock: true, Service: service, Contracts: []Contract{}}
}

// Accept returns the lock that next makes of lock, and what changed. Everything
// compatible is taken over; so is what is only a warning, since whoever calls it
// has seen the changes or will see them in the file's diff. What next no longer
// has stays, as retired.
//
// It refuses a breaking change with a [*BreakingError], and a list of another
// service, or with names that break the rules. It changes neither argument.
func Accept(lock, next List) (List, []Change, error) {
	if lock.Service != next.Service {
		return List{}, nil, fmt.Errorf("contract: accept: the lock is of service %s, the list of %s", clip(lock.Service), clip(next.Service))
	}
	if found := next.Lint(); len(found) > 0 {
		faults := make([]error, len(found))
		for i, f := range found {
			faults[i] = fmt.Errorf("contract: accept: %s", f)
		}
		return List{}, nil, errors.Join(faults...)
	}
	changes := Compare(lock, next)
	if breaking := BreakingOf(changes); len(breaking) > 0 {
		return List{}, changes, &BreakingError{lock.Service, breaking, nextVersions(lock, next)}
	}
	accepted := NewLock(lock.Service)
	accepted.Contracts = append(accepted.Contracts, next.Contracts...)
	for _, c := range lock.Contracts {
		if _, there := next.find(c); !there {
			c.Retired = true
			accepted.Contracts = append(accepted.Contracts, c)
		}
	}
	accepted.sort()
	return accepted, changes, nil
}

// nextVersions returns for each type the first version that nobody uses.
func nextVersions(lists ...List) map[string]int {
	next := map[string]int{}
	for _, l := range lists {
		for _, c := range l.Contracts {
			next[c.Type] = max(next[c.Type], c.Version+1)
		}
	}
	return next
}
