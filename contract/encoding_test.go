package contract_test

import (
	"encoding/json"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/subject"
)

// rules names what a change of the Go type of one version is, by rule.
func rules[Old, New any](t *testing.T) (all []string) {
	t.Helper()
	for _, c := range contract.Compare(list(t, event[Old]("thing", "seen", 1)), list(t, event[New]("thing", "seen", 1))) {
		all = append(all, string(c.Verdict)+" "+string(c.Rule))
	}
	return all
}

// The option string changes what is written, and what is read: text gets quotes
// within its quotes.
func TestTheOptionStringOfATagIsPartOfTheContract(t *testing.T) {
	t.Parallel()
	type text struct {
		N string `json:"n"`
	}
	type quotedText struct {
		N string `json:"n,string"`
	}
	type quotedInt struct {
		N int64 `json:"n,string"`
	}
	type quotedBool struct {
		N bool `json:"n,string"`
	}
	type quotedFloat struct {
		N *float64 `json:"n,string,omitempty"`
	}
	breaking := []string{"breaking format-changed"}
	require.Equal(t, breaking, rules[text, quotedText](t))
	require.Equal(t, breaking, rules[text, quotedInt](t))
	require.Equal(t, breaking, rules[quotedInt, text](t))
	require.Equal(t, breaking, rules[quotedInt, quotedBool](t))
	require.Contains(t, rules[quotedInt, quotedFloat](t), breaking[0])
}

// encoding/json calls a method of the pointer only where it can take the address:
// not in the payload that New is given, but in the elements of a slice.
func TestATypeWhosePointerMarshalsItselfIsUsedByPointer(t *testing.T) {
	t.Parallel()
	type byPointer struct {
		At *pointed `json:"at"`
	}
	require.Equal(t, contract.Types{"string", "null"}, list(t, event[byPointer]("thing", "seen", 1)).Contracts[0].Schema.Properties["at"].Type)
	type byValue struct {
		At  pointed `json:"at"`
		Sum big.Int `json:"sum" contract:"type=integer"`
	}
	_, err := contract.New(subject.Maskin, contract.Produces(event[byValue]("thing", "seen", 1)))
	require.ErrorContains(t, err, "field At of contract_test.byValue: encoding/json calls the method MarshalText of *contract_test.pointed only where it has a pointer: use *contract_test.pointed")
}

// pointed marshals itself by its pointer alone.
type pointed struct{ A int }

func (*pointed) MarshalText() ([]byte, error) { return []byte("x"), nil }
func (*pointed) UnmarshalText([]byte) error   { return nil }

// For a struct or an array omitempty does nothing; omitzero does.
func TestWhatOmitemptyDoesNotOmitIsAlwaysThere(t *testing.T) {
	t.Parallel()
	type fields struct {
		At    time.Time  `json:"at,omitempty"`
		Pair  [2]int     `json:"pair,omitempty"`
		Zero  time.Time  `json:"zero,omitzero"`
		Maybe *time.Time `json:"maybe,omitempty"`
	}
	require.Equal(t, []string{"at", "pair"}, list(t, event[fields]("thing", "seen", 1)).Contracts[0].Schema.Required)
}

type (
	treeOfA struct {
		Name string   `json:"name"`
		B    *treeOfB `json:"b"`
	}
	treeOfB struct {
		Name string   `json:"name"`
		A    *treeOfA `json:"a"`
	}
	leaf struct {
		Name string `json:"name"`
	}
	branch struct {
		Name string    `json:"name"`
		Kids []*branch `json:"kids,omitempty"`
	}
)

// A type that holds itself is referred to, another stands where it is used: that is
// no difference, with null or without.
func TestAReferenceIsWhatItLeadsTo(t *testing.T) {
	t.Parallel()
	type ab struct {
		A treeOfA `json:"a"`
		B treeOfB `json:"b"`
	}
	type ba struct {
		B treeOfB `json:"b"`
		A treeOfA `json:"a"`
	}
	require.Empty(t, rules[ab, ba](t), "the order of fields")
	type before struct {
		One  *leaf   `json:"one"`
		Many []*leaf `json:"many"`
	}
	type after struct {
		One  *branch   `json:"one"`
		Many []*branch `json:"many"`
	}
	require.Equal(t, []string{"compatible optional-property-added", "compatible optional-property-added"}, rules[before, after](t))
	type never struct {
		One  branch    `json:"one"`
		Many []*branch `json:"many"`
	}
	require.Equal(t, []string{"breaking type-changed"}, rules[after, never](t), "null is still a difference")
	require.Equal(t, []string{"breaking type-changed"}, rules[never, after](t))
}

// What a map may hold is anything; the fields of a struct have types.
func TestAMapOfAnythingIsNoStruct(t *testing.T) {
	t.Parallel()
	type counted struct {
		N int `json:"n,omitempty"`
	}
	type loose struct {
		M map[string]any `json:"m,omitempty"`
	}
	type tight struct {
		M counted `json:"m,omitzero"`
	}
	require.Equal(t, []string{"breaking type-changed"}, rules[loose, tight](t))
	require.Equal(t, []string{"breaking type-changed"}, rules[tight, loose](t))
	require.Equal(t, []string{"breaking type-changed"}, rules[map[string]any, counted](t))
	require.Equal(t, []string{"breaking type-changed"}, rules[json.RawMessage, counted](t))
}

// A merge may leave two of a name, of which encoding/json would take the last.
func TestALockInWhichANameComesTwiceIsRefused(t *testing.T) {
	t.Parallel()
	const head, tail = `{"format":1,"lock":true,"service":"maskin","contracts":[{"type":"maskin.server.seen","version":1,"kind":"event",` +
		`"direction":"produces","subject":"dv.maskin.evt.server.seen","visibility":"internal",`, `}]}`
	_, err := contract.Parse([]byte(head + `"schema":{"type":"object","properties":{"a":{"type":"string"}}}` + tail))
	require.NoError(t, err)
	for _, twice := range []string{
		`"schema":{"type":"object","properties":{"a":{"type":"string"},"a":{"type":"integer"}}}`,
		`"schema":{"type":"object","type":"object"}`,
		`"retired":true,"retired":false,"schema":{"type":"object"}`,
	} {
		_, err := contract.Parse([]byte(head + twice + tail))
		require.ErrorContains(t, err, "twice", twice)
	}
	_, err = contract.Parse([]byte(head + `"schema":{"type":"object","properties":{"a":{},"A":{}}}` + tail))
	require.NoError(t, err, "properties are names of others")
}
