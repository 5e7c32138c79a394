package contract_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
)

// oneOf is a list of one message with a schema.
func oneOf(t testing.TB, kind contract.Kind, schema string) contract.List {
	t.Helper()
	name, on := "maskin.server.seen", "dv.maskin.evt.server.seen"
	if kind == contract.Command {
		name, on = "maskin.server.see.requested", "dv.maskin.cmd.see"
	}
	l, err := contract.Parse([]byte(fmt.Sprintf(`{"format":1,"service":"maskin","contracts":[{"type":%q,"version":1,"kind":%q,
		"direction":"both","subject":%q,"visibility":"internal","schema":%s}]}`, name, kind, on, schema)))
	require.NoError(t, err)
	require.Empty(t, l.Lint())
	return l
}

// brief is the verdict of a change without its words.
func brief(changes []contract.Change) (all []string) {
	for _, c := range changes {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Verdict, c.Rule, c.Path)))
	}
	return all
}

// The table of docs/CONTRACTS.md. In data, old and new are parted by a bar, and
// properties are given without the object around them where they begin with a name.
func TestVerdictsOfChangesInData(t *testing.T) {
	t.Parallel()
	object := func(s string) string {
		if strings.HasPrefix(s, "{") {
			return s
		}
		required := []string{}
		var properties []string
		for _, p := range strings.Split(s, ";") {
			name, schema, _ := strings.Cut(p, "=")
			if name == "" {
				continue
			}
			if bare, ok := strings.CutSuffix(name, "!"); ok {
				name, required = bare, append(required, bare)
			}
			properties = append(properties, fmt.Sprintf("%q:%s", name, schema))
		}
		list, _ := json.Marshal(required)
		return fmt.Sprintf(`{"type":"object","properties":{%s},"required":%s}`, strings.Join(properties, ","), list)
	}
	for _, c := range []struct{ old, next, event, command string }{
		{`a!={}`, `a!={};b={}`, "compatible optional-property-added b", "="},
		{`a!={}`, `a!={};b!={}`, "breaking required-property-added b", "="},
		{`a!={}`, ``, "breaking required-property-removed a", "="},
		{`a={}`, ``, "warning optional-property-removed a", "="},
		{`a={}`, `a!={}`, "breaking became-required a", "="},
		{`a!={}`, `a={}`, "breaking became-optional a", "warning became-optional a"},
		{`a={"type":"string"}`, `a={"type":"integer"}`, "breaking type-changed a", "="},
		{`a={"type":"string"}`, `a={"type":["string","null"]}`, "breaking type-changed a", "="},
		{`a={"type":["null","string"]}`, `a={"type":["string","null"]}`, "", ""},
		{`a={}`, `a={"type":"string"}`, "breaking type-changed a", "="},
		{`a={"type":"string"}`, `a={"type":"string","format":"uuid"}`, "breaking format-changed a", "="},
		{`a={"type":"string"}`, `a={"type":"string","pattern":"x"}`, "breaking format-changed a", "="},
		{`a={"type":"string"}`, `a={"type":"string","contentEncoding":"base64"}`, "breaking format-changed a", "="},
		{`a={"enum":["x"]}`, `a={"enum":["x","y"]}`, "breaking enum-widened a", "warning enum-widened a"},
		{`a={"enum":["x","y"]}`, `a={"enum":["x"]}`, "warning enum-narrowed a", "breaking enum-narrowed a"},
		{`a={"enum":["x"]}`, `a={}`, "breaking enum-widened a", "warning enum-widened a"},
		{`a={}`, `a={"enum":["x"]}`, "warning enum-narrowed a", "breaking enum-narrowed a"},
		{`a={"enum":["x"]}`, `a={"enum":["y"]}`, "breaking enum-widened a,warning enum-narrowed a", "warning enum-widened a,breaking enum-narrowed a"},
		{`a={"enum":["x","y"]}`, `a={"enum":["y","x"]}`, "", ""},
		{`a={"minimum":1}`, `a={"minimum":0}`, "breaking bound-loosened a", "warning bound-loosened a"},
		{`a={"minimum":1}`, `a={"minimum":2}`, "warning bound-tightened a", "breaking bound-tightened a"},
		{`a={"maximum":1}`, `a={"maximum":2}`, "breaking bound-loosened a", "warning bound-loosened a"},
		{`a={"maximum":1}`, `a={}`, "breaking bound-loosened a", "warning bound-loosened a"},
		{`a={}`, `a={"maxLength":1}`, "warning bound-tightened a", "breaking bound-tightened a"},
		{`a={"minItems":1,"maxItems":2}`, `a={"minItems":2,"maxItems":3}`, "warning bound-tightened a,breaking bound-loosened a", "breaking bound-tightened a,warning bound-loosened a"},
		{`a={"title":"x"}`, `a={"title":"y"}`, "compatible description-changed a", "="},
		{`a={"type":"array","items":{"type":"object","properties":{"b":{}}}}`, `a={"type":"array","items":{"type":"object"}}`, "warning optional-property-removed a[].b", "="},
		{`a={"additionalProperties":{"type":"string"}}`, `a={"additionalProperties":{"type":"number"}}`, "breaking type-changed a{}", "="},
		{`a={"type":"object"}`, `a={"type":"object","additionalProperties":{"type":"number"}}`, "breaking type-changed a", "="},
		{`a={"type":"array"}`, `a={"type":"array","items":{"type":"number"}}`, "breaking type-changed a", "="},
		{`a={"anyOf":[{"type":"string"},{"type":"null"}]}`, `a={"anyOf":[{"type":"number"},{"type":"null"}]}`, "breaking type-changed a", "="},
		// References mean what they refer to, under any name, and a circle ends.
		{`{"type":"object","properties":{"a":{"$ref":"#/definitions/x"}},"definitions":{"x":{"type":"object","properties":{"n":{"$ref":"#/definitions/x"}}}}}`,
			`{"type":"object","properties":{"a":{"$ref":"#/definitions/y"}},"definitions":{"y":{"type":"object","properties":{"n":{"$ref":"#/definitions/y"}}}}}`, "", ""},
		{`{"type":"object","properties":{"a":{"$ref":"#"},"b":{"type":"string"}}}`, `{"type":"object","properties":{"a":{"$ref":"#"}}}`, "warning optional-property-removed b", "="},
	} {
		if c.command == "=" {
			c.command = c.event
		}
		for kind, want := range map[contract.Kind]string{contract.Event: c.event, contract.Command: c.command} {
			got := contract.Compare(oneOf(t, kind, object(c.old)), oneOf(t, kind, object(c.next)))
			require.Equal(t, want, strings.Join(brief(got), ","), "%s: %s to %s", kind, c.old, c.next)
			require.Empty(t, contract.Compare(oneOf(t, kind, object(c.old)), oneOf(t, kind, object(c.old))))
		}
	}
}

type (
	seenV1 struct {
		Name string `json:"name"`
	}
	seenV2 struct {
		Host string `json:"host"`
	}
)

func TestVerdictsOfChangesOfMessages(t *testing.T) {
	t.Parallel()
	v1, v2, other := event[seenV1]("server", "seen", 1), event[seenV2]("server", "seen", 2), event[seenV1]("server", "gone", 1)
	one := list(t, v1)
	require.Equal(t, []string{"compatible version-added"}, brief(contract.Compare(one, list(t, v1, v2))))
	require.Equal(t, []string{"compatible message-added"}, brief(contract.Compare(one, list(t, v1, other))))
	require.Equal(t, []string{"warning retired", "compatible version-added"}, brief(contract.Compare(one, list(t, v2))))

	changed := func(change func(*contract.Contract)) []string {
		l := list(t, v1)
		change(&l.Contracts[0])
		return brief(contract.Compare(one, l))
	}
	require.Equal(t, []string{"warning visibility-changed"}, changed(func(c *contract.Contract) { c.Visibility = "external" }))
	require.Equal(t, []string{"compatible direction-changed"}, changed(func(c *contract.Contract) { c.Direction = contract.Both }))
	require.Equal(t, []string{"breaking subject-changed"}, changed(func(c *contract.Contract) { c.Subject = "dv.maskin.evt.server.sighted" }))
	require.Equal(t, []string{"warning retired"}, changed(func(c *contract.Contract) { c.Retired = true }))
}

func TestALockForgetsNothing(t *testing.T) {
	t.Parallel()
	v1, v2 := event[seenV1]("server", "seen", 1), event[seenV2]("server", "seen", 2)
	lock, _, err := contract.Accept(contract.NewLock("maskin"), list(t, v1))
	require.NoError(t, err)

	// What is no longer declared is kept, and is held to its meaning for ever.
	next, changes, err := contract.Accept(lock, list(t, v2))
	require.NoError(t, err)
	require.Equal(t, []string{"warning retired", "compatible version-added"}, brief(changes))
	require.Len(t, next.Contracts, 2)
	require.True(t, next.Contracts[0].Retired)
	require.False(t, lock.Contracts[0].Retired, "the argument is not changed")

	again, changes, err := contract.Accept(next, list(t, v2))
	require.NoError(t, err)
	require.Empty(t, changes)
	require.Equal(t, next, again)

	_, _, err = contract.Accept(next, list(t, v2, event[seenV2]("server", "seen", 1)))
	require.ErrorContains(t, err, "maskin.server.seen v1: name (required-property-removed)")

	revived, changes, err := contract.Accept(next, list(t, v1, v2))
	require.NoError(t, err)
	require.Equal(t, []string{"compatible revived"}, brief(changes))
	require.False(t, revived.Contracts[0].Retired)

	require.Equal(t, []string{"breaking forgotten"}, brief(contract.Compare(next, contract.List{
		Format: 1, Lock: true, Service: "maskin", Contracts: next.Contracts[1:],
	})))
	require.Equal(t, []string{"breaking forgotten"}, brief(contract.Compare(next, contract.List{
		Format: 1, Lock: true, Service: "maskin", Contracts: next.Contracts[:1],
	})), "what is declared, too: a lock is no export")
}

func TestABreakingChangeIsNotAcceptedAndSaysWhatToDo(t *testing.T) {
	t.Parallel()
	lock, _, err := contract.Accept(contract.NewLock("maskin"), list(t, event[seenV1]("server", "seen", 1)))
	require.NoError(t, err)
	_, changes, err := contract.Accept(lock, list(t, event[seenV2]("server", "seen", 1)))
	require.Len(t, changes, 2)
	var breaking *contract.BreakingError
	require.ErrorAs(t, err, &breaking)
	require.Equal(t, map[string]int{"maskin.server.seen": 2}, breaking.Next)
	require.EqualError(t, err, `contract: accept: the meaning of a locked version changed:
  breaking: maskin.server.seen v1: name (required-property-removed): a property that was always there was removed; programs that run read it as before
  breaking: maskin.server.seen v1: host (required-property-added): a required property was added; messages that are stored are as before and lack it: make it optional with omitempty, or omitzero for a struct
Leave the version as it was, and declare another:
  maskin.server.seen: Version: 2, with envelope.Upcast from version 1
A version that never left your branch may change: take the main branch's lock back first, then lock anew.`)

	lock.Service = "nett"
	_, _, err = contract.Accept(lock, list(t))
	require.ErrorContains(t, err, `the lock is of service "nett", the list of "maskin"`)
}
