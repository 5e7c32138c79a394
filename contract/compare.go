package contract

import (
	"fmt"
	"slices"
)

// Verdict says what a change does to those who have the other version of a
// program, and to messages that are stored: both directions count.
type Verdict string

// The verdicts.
const (
	// Compatible: nobody notices.
	Compatible Verdict = "compatible"
	// Warning: somebody may notice; look before you lock it.
	Warning Verdict = "warning"
	// Breaking: stored messages, or programs that run, do not fit any more. It
	// needs a new version.
	Breaking Verdict = "breaking"
)

// Rule names why a change has its verdict.
type Rule string

// The rules. docs/CONTRACTS.md has the table.
const (
	// RuleMessageAdded: a message that was not there.
	RuleMessageAdded Rule = "message-added"
	// RuleVersionAdded: another version of a message.
	RuleVersionAdded Rule = "version-added"
	// RuleRetired: the service no longer lists the version.
	RuleRetired Rule = "retired"
	// RuleRevived: it lists a retired version again.
	RuleRevived Rule = "revived"
	// RuleForgotten: a lock lacks what another lock holds.
	RuleForgotten Rule = "forgotten"
	// RuleDirection: the service does something else with the message.
	RuleDirection Rule = "direction-changed"
	// RuleVisibility: the message may leave the platform now, or no longer may.
	RuleVisibility Rule = "visibility-changed"
	// RuleSubject: kind or subject are others.
	RuleSubject Rule = "subject-changed"
	// RuleOptionalAdded: a property that may be missing was added.
	RuleOptionalAdded Rule = "optional-property-added"
	// RuleRequiredAdded: a property that is always there was added.
	RuleRequiredAdded Rule = "required-property-added"
	// RuleOptionalRemoved: a property that may be missing was removed.
	RuleOptionalRemoved Rule = "optional-property-removed"
	// RuleRequiredRemoved: a property that is always there was removed.
	RuleRequiredRemoved Rule = "required-property-removed"
	// RuleBecameRequired and RuleBecameOptional: whether a property is always
	// there.
	RuleBecameRequired Rule = "became-required"
	RuleBecameOptional Rule = "became-optional"
	// RuleType: another type of JSON, null included.
	RuleType Rule = "type-changed"
	// RuleFormat: another format, pattern or encoding of a string.
	RuleFormat Rule = "format-changed"
	// RuleEnumWidened and RuleEnumNarrowed: values were added or removed.
	RuleEnumWidened  Rule = "enum-widened"
	RuleEnumNarrowed Rule = "enum-narrowed"
	// RuleBoundLoosened and RuleBoundTightened: of a number or a length.
	RuleBoundLoosened  Rule = "bound-loosened"
	RuleBoundTightened Rule = "bound-tightened"
	// RuleDescription: words for people.
	RuleDescription Rule = "description-changed"
)

// Change is one difference between two lists.
type Change struct {
	// Type and Version are of which message.
	Type    string `json:"type"`
	Version int    `json:"version"`
	// Path is the property: "disks[].size" in lists, "labels{}" in maps; "" where
	// it is about the message.
	Path string `json:"path,omitempty"`
	// Verdict and Rule judge it.
	Verdict Verdict `json:"verdict"`
	Rule    Rule    `json:"rule"`
	// Text says what changed and whom it concerns.
	Text string `json:"text"`
}

// String returns the change as one line.
func (c Change) String() string {
	at := fmt.Sprintf("%s v%d", c.Type, c.Version)
	if c.Path != "" {
		at += ": " + c.Path
	}
	return fmt.Sprintf("%s: %s (%s): %s", c.Verdict, at, c.Rule, c.Text)
}

// Compare returns what is different in next, in the order of types and versions;
// nil if nothing is. It understands two exports, two locks, and a lock with the
// export that is to be locked.
func Compare(old, next List) []Change {
	var all []Change
	for _, c := range old.Contracts {
		now, there := next.find(c)
		if !there {
			all = append(all, missing(c, next.Lock)...)
			continue
		}
		all = append(all, compareContract(c, now)...)
	}
	for _, c := range next.Contracts {
		if _, there := old.find(c); !there {
			all = append(all, added(old, c))
		}
	}
	slices.SortStableFunc(all, func(a, b Change) int {
		if a.Type != b.Type {
			if a.Type < b.Type {
				return -1
			}
			return 1
		}
		return a.Version - b.Version
	})
	return all
}

// BreakingOf returns the breaking ones.
func BreakingOf(changes []Change) []Change {
	return slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return c.Verdict != Breaking })
}

func (c Contract) change(v Verdict, r Rule, text string) Change {
	return Change{Type: c.Type, Version: c.Version, Verdict: v, Rule: r, Text: text}
}

// missing judges a contract that is not in the next list.
func missing(c Contract, isLock bool) []Change {
	switch {
	case isLock:
		return []Change{c.change(Breaking, RuleForgotten,
			"the lock no longer knows it, so the version could get another meaning: restore the entry, as retired if nobody declares it")}
	case c.Retired:
		return nil
	}
	return []Change{c.change(Warning, RuleRetired,
		"no longer declared: do so when nobody sends it and no stream or dead letter that somebody may still read holds one")}
}

// added judges a contract that was not in the old list.
func added(old List, c Contract) Change {
	if slices.ContainsFunc(old.Contracts, func(o Contract) bool { return o.Type == c.Type }) {
		return c.change(Compatible, RuleVersionAdded, "another version: its readers first, then its sender")
	}
	return c.change(Compatible, RuleMessageAdded, "a new message")
}

// compareContract compares one version.
func compareContract(old, now Contract) (all []Change) {
	switch {
	case !old.Retired && now.Retired:
		text := "no longer listed: take a version out of Produces when nobody sends it"
		if now.Direction == Received {
			text = "no longer listed: what still comes of it needs a later version that carries it forward, or it is a dead letter"
		}
		all = append(all, now.change(Warning, RuleRetired, text))
	case old.Retired && !now.Retired:
		all = append(all, now.change(Compatible, RuleRevived, "listed again"))
	}
	if old.Kind != now.Kind || old.Subject != now.Subject {
		all = append(all, now.change(Breaking, RuleSubject,
			fmt.Sprintf("from %s on %q to %s on %q: who listens there hears nothing", old.Kind, old.Subject, now.Kind, now.Subject)))
	}
	if old.Direction != now.Direction {
		all = append(all, now.change(Compatible, RuleDirection, fmt.Sprintf("from %s to %s", old.Direction, now.Direction)))
	}
	if old.Visibility != now.Visibility {
		all = append(all, now.change(Warning, RuleVisibility, visibilityText(old.Visibility, now.Visibility)))
	}
	c := comparison{old: old.Schema, next: now.Schema, kind: now.Kind, seen: map[[2]*Schema]bool{}}
	c.node(old.Schema, now.Schema, "")
	for _, change := range c.changes {
		change.Type, change.Version = now.Type, now.Version
		all = append(all, change)
	}
	return all
}

func visibilityText(old, now string) string {
	text := fmt.Sprintf("from %s to %s: ", old, now)
	if now == "external" {
		return text + "edges may send its data out of the platform"
	}
	return text + "edges stop sending it, and receivers outside no longer hear of it"
}
