package subject_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
)

// The names are those of the decision, in its order. A service that is added
// without its decision has to be added here too, which is where a reviewer asks.
func TestServicesAreTheClosedSetOfTheDecision(t *testing.T) {
	t.Parallel()
	var names []string
	for _, s := range subject.Services() {
		require.True(t, s.Valid())
		names = append(names, s.String())
		back, err := subject.ParseService(s.String())
		require.NoError(t, err)
		require.Equal(t, s, back)
	}
	require.Equal(t, []string{
		"sentral", "identitet", "maskin", "plattform", "tjeneste", "objekt", "nett",
	}, names)
	require.Equal(t, []subject.Service{
		subject.Sentral, subject.Identitet, subject.Maskin, subject.Plattform,
		subject.Tjeneste, subject.Objekt, subject.Nett,
	}, subject.Services())
}

// A service called task, rpc or xdc would make two families indistinguishable, and a
// name that is no token would build subjects that do not parse.
func TestServiceNamesAreTokensApartFromTheFixedAreas(t *testing.T) {
	t.Parallel()
	for _, s := range subject.Services() {
		require.NotContains(t, []string{"task", "rpc", "xdc"}, s.String())
		_, err := subject.TaskEvt(s.String())
		require.NoError(t, err, "%s must be a token", s)
	}
}

func TestServicesReturnsAListOfTheCallersOwn(t *testing.T) {
	t.Parallel()
	subject.Services()[0] = 0
	require.Equal(t, subject.Sentral, subject.Services()[0])
}

func TestParseServiceIsExactAndListsWhatItAccepts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "Maskin", "maskin ", "invalid", "task", "rpc", "case_mgmt"} {
		_, err := subject.ParseService(name)
		e, ok := errors.AsType[*subject.Error](err)
		require.True(t, ok, "%q: %v", name, err)
		require.Equal(t, "service", e.What)
		require.Equal(t, name, e.Input)
		require.Contains(t, e.Reason,
			"use one of: sentral, identitet, maskin, plattform, tjeneste, objekt, nett")
	}
}

func TestServiceOutsideTheSetIsInvalidEverywhere(t *testing.T) {
	t.Parallel()
	for _, s := range []subject.Service{0, subject.Nett + 1, 255} {
		require.False(t, s.Valid())
		require.Equal(t, "invalid", s.String())
		_, err := s.MarshalText()
		require.ErrorContains(t, err, "use one of: sentral")
		_, err = subject.Cmd(s, "provision")
		require.ErrorContains(t, err, `service "invalid": use one of: sentral`)
		for _, f := range []subject.Filter{
			subject.CommandsOf(s), subject.EventsOf(s), subject.RPCOf(s),
			subject.DeadLettersOf(s), subject.MarksOf(s), subject.ReplaysOf(s),
		} {
			require.True(t, f.IsZero(), "a filter of an invalid service matches nothing")
		}
	}
}

func TestServiceRoundTripsThroughJSON(t *testing.T) {
	t.Parallel()
	type doc struct {
		S subject.Service            `json:"s"`
		M map[subject.Service]string `json:"m"`
	}
	text := `{"s":"maskin","m":{"nett":"x"}}`
	var d doc
	require.NoError(t, json.Unmarshal([]byte(text), &d))
	require.Equal(t, doc{subject.Maskin, map[subject.Service]string{subject.Nett: "x"}}, d)
	out, err := json.Marshal(d)
	require.NoError(t, err)
	require.JSONEq(t, text, string(out))

	s := subject.Nett
	require.Error(t, s.UnmarshalText([]byte("nope")))
	require.Equal(t, subject.Nett, s, "a failed decode leaves the value")
}

func TestErrorShortensAndQuotesForeignText(t *testing.T) {
	t.Parallel()
	// The cut falls into the middle of a two-byte rune, which must go as a whole.
	long := "x" + strings.Repeat("å", 5000)
	_, err := subject.ParseService(long)
	e, ok := errors.AsType[*subject.Error](err)
	require.True(t, ok)
	require.Equal(t, "x"+strings.Repeat("å", 79)+"…", e.Input)

	_, err = subject.Parse("dv.maskin.evt.a\r\nINFO {}.b")
	require.Error(t, err)
	require.False(t, slices.ContainsFunc([]rune(err.Error()), func(r rune) bool { return r < ' ' }),
		"no control character of a foreign subject reaches a log: %q", err)
	for _, head := range []string{"", "dv.", "dv.maskin.cmd.", "dv.maskin.evt.", "dv.nett.dlq."} {
		_, err = subject.Parse(head + strings.Repeat("\x01", 1<<16))
		require.Error(t, err)
		require.Less(t, len(err.Error()), 4096, "an error is short whatever was refused")
	}
}
