package contract_test

import (
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
