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

// filterOf parses a filter that must be valid.
func filterOf(t testing.TB, text string) subject.Filter {
	t.Helper()
	f, err := subject.ParseFilter(text)
	require.NoError(t, err)
	return f
}

func TestFilterBuildersMatchTheirOwnAndNothingElse(t *testing.T) {
	t.Parallel()
	entity, err := subject.EntityEvents(subject.Maskin, "server")
	require.NoError(t, err)
	verb, err := subject.VerbEvents(subject.Maskin, "ready")
	require.NoError(t, err)
	cases := []struct {
		filter subject.Filter
		text   string
		yes    []string
	}{
		{subject.CommandsOf(subject.Maskin), "dv.maskin.cmd.*", []string{"dv.maskin.cmd.provision"}},
		{subject.EventsOf(subject.Maskin), "dv.maskin.evt.>", []string{
			"dv.maskin.evt.server.ready", "dv.maskin.evt.server.made", "dv.maskin.evt.disk.ready",
		}},
		{entity, "dv.maskin.evt.server.*", []string{"dv.maskin.evt.server.ready", "dv.maskin.evt.server.made"}},
		{verb, "dv.maskin.evt.*.ready", []string{"dv.maskin.evt.server.ready", "dv.maskin.evt.disk.ready"}},
		{subject.TaskEvents(), "dv.task.evt.*", []string{"dv.task.evt.queued"}},
		{subject.RPCOf(subject.Maskin), "dv.rpc.maskin.*", []string{"dv.rpc.maskin.cmd"}},
		{subject.DeadLettersOf(subject.Maskin), "dv.maskin.dlq.>", []string{
			"dv.maskin.dlq.x", "dv.maskin.dlq.dv.nett.evt.net.made",
		}},
		{subject.MarksOf(subject.Maskin), "dv.maskin.dlqmark.*", []string{"dv.maskin.dlqmark." + letterID}},
		{subject.ReplaysOf(subject.Maskin), "dv.maskin.replay.*", []string{"dv.maskin.replay.maskin__x"}},
		{subject.AllDeadLetters(), "dv.*.dlq.>", []string{
			"dv.maskin.dlq.x", "dv.maskin.dlq.dv.nett.evt.net.made", "dv.nett.dlq.x",
		}},
		{subject.MustFilter(subject.CommandsAt("trd1", subject.Maskin)), "dv.xdc.trd1.maskin.cmd.*", []string{"dv.xdc.trd1.maskin.cmd.provision"}},
		{subject.Exactly(subject.Must(subject.TaskEvt("queued"))), "dv.task.evt.queued", []string{"dv.task.evt.queued"}},
	}
	all := []string{"dv.nett.cmd.provision", "dv.nett.evt.server.ready", "dv.rpc.nett.cmd", "dv.nett.replay.maskin__x", "dv.xdc.osl1.maskin.cmd.provision"}
	for _, c := range cases {
		all = append(all, c.yes...)
	}
	for _, c := range cases {
		require.Equal(t, c.text, c.filter.String())
		require.Equal(t, c.filter, filterOf(t, c.text))
		for _, text := range all {
			s := subject.Must(subject.Parse(text))
			want := slices.Contains(c.yes, text)
			require.Equal(t, want, c.filter.Matches(s), "%s and %s", c.text, text)
			require.Equal(t, want, c.filter.MatchesString(text), "%s and %s", c.text, text)
		}
	}
}

func TestFilterBuildersRefuseBadTokens(t *testing.T) {
	t.Parallel()
	_, err := subject.EntityEvents(0, "Server")
	require.EqualError(t, err, strings.Join([]string{
		`subject: service "invalid": use one of: sentral, identitet, maskin, plattform, tjeneste, objekt, nett`,
		`subject: entity "Server": holds an upper-case letter: use lower-case letters, digits and _, starting with a letter`,
	}, "\n"))
	_, err = subject.VerbEvents(subject.Maskin, "*")
	require.ErrorContains(t, err, `subject: verb "*": holds a wildcard`)
}

func TestParseFilterAcceptsWhatNATSDoesUnderDv(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"dv", "dv.>", "dv.*", "dv.*.*.>", "dv.maskin.evt.>", "dv.*.evt.*.ready", "dv.maskin.cmd.provision",
		"dv.Upper-Case.$x", "dv.på", "dv.*.dlq.>", "dv.maskin.dlq.a*b", "dv.maskin.dlq.a>.*",
	} {
		require.Equal(t, text, filterOf(t, text).String())
	}
}

func TestParseFilterRefusesAndExplains(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                      "does not begin with the token dv: prefix it, as in dv.maskin.evt.>",
		">":                     "does not begin with the token dv",
		"*.maskin.evt.>":        "does not begin with the token dv",
		"maskin.evt.>":          "does not begin with the token dv",
		"dvx.>":                 "does not begin with the token dv",
		"DV.>":                  "does not begin with the token dv",
		"dv.":                   "has an empty token: remove the leading, trailing or double dot",
		"dv..>":                 "has an empty token",
		"dv.>.":                 "goes on after >",
		"dv.>.x":                "goes on after >: let > be the last token, or write * for one token",
		"dv.maskin.evt.ser*":    `token "ser*" mixes a wildcard with text: * and > stand for whole tokens`,
		"dv.maskin.evt.**":      `token "**" mixes`,
		"dv.maskin.evt.server>": `token "server>" mixes`,
		"dv.dlq.a*":             `token "a*" mixes`,
		"dv.maskin.evt.a b":     "holds ' ', which no NATS filter can: remove it",
		"dv.maskin.evt.>\n":     `holds '\n'`,
		"dv." + strings.Repeat("a.", subject.MaxOriginal): "bytes long: shorten it to at most 3839",
	} {
		got, err := subject.ParseFilter(text)
		e, ok := errors.AsType[*subject.Error](err)
		require.True(t, ok, "%q: %v", text, err)
		require.Equal(t, "filter", e.What)
		require.Contains(t, e.Reason, want, "%q", text)
		require.True(t, got.IsZero())
	}
}

func TestMatchesStringTakesOnlyConcreteSubjects(t *testing.T) {
	t.Parallel()
	f := filterOf(t, "dv.>")
	require.True(t, f.MatchesString("dv.Maskin.whatever"), "foreign text may break the naming rules")
	for _, text := range []string{"", "dv", "dv.*", "dv.>", "dv.maskin.evt.>", "dv..x", "dv.x.", "dv.a b"} {
		require.False(t, f.MatchesString(text), "%q", text)
	}
}

func TestZeroFilterMatchesNothing(t *testing.T) {
	t.Parallel()
	var zero subject.Filter
	s := subject.Must(subject.TaskEvt("queued"))
	all := filterOf(t, "dv.>")
	require.True(t, zero.IsZero())
	require.Equal(t, "", zero.String())
	require.False(t, zero.Matches(s))
	require.False(t, zero.Matches(subject.Subject{}))
	require.False(t, zero.MatchesString(""))
	require.False(t, all.Matches(subject.Subject{}))
	require.False(t, zero.Overlaps(zero) || zero.Overlaps(all) || all.Overlaps(zero))
	require.False(t, zero.Covers(zero) || zero.Covers(all) || all.Covers(zero))
	require.True(t, subject.Exactly(subject.Subject{}).IsZero())
	_, err := zero.MarshalText()
	require.ErrorContains(t, err, "is not set: build one with EventsOf, CommandsOf or ParseFilter")
}

func TestOverlapsAndCovers(t *testing.T) {
	t.Parallel()
	const no, overlap, covers, covered, same = "no", "overlap", "covers", "covered", "same"
	for _, c := range [][3]string{
		{"dv.maskin.evt.>", "dv.maskin.evt.>", same},
		{"dv.maskin.evt.>", "dv.nett.evt.>", no},
		{"dv.maskin.evt.>", "dv.maskin.evt.server.*", covers},
		{"dv.maskin.evt.server.*", "dv.maskin.evt.server.made", covers},
		{"dv.maskin.evt.server.*", "dv.maskin.evt.*.made", overlap},
		{"dv.maskin.evt.server.*", "dv.maskin.evt.disk.*", no},
		{"dv.maskin.evt.*.*", "dv.maskin.evt.>", covered},
		{"dv.maskin.evt.*", "dv.maskin.evt.*.*", no},
		{"dv.maskin.evt.*.>", "dv.maskin.evt.*", no},
		{"dv.maskin.evt.*.>", "dv.maskin.evt.>", covered},
		{"dv.maskin.>", "dv.maskin", no},
		{"dv.>", "dv.*.dlq.>", covers},
		{"dv.*.dlq.>", "dv.maskin.dlq.x", covers},
		{"dv.*.evt.>", "dv.maskin.>", overlap},
		{"dv.*.evt.*", "dv.task.>", overlap},
		{"dv.a.*", "dv.a.b", covers},
		{"dv.a.b", "dv.a.b.c", no},
		{"dv.a", "dv.b", no},
	} {
		f, g := filterOf(t, c[0]), filterOf(t, c[1])
		require.Equal(t, c[2] != no, f.Overlaps(g), "%s overlaps %s", f, g)
		require.Equal(t, c[2] != no, g.Overlaps(f), "%s overlaps %s", g, f)
		require.Equal(t, c[2] == covers || c[2] == same, f.Covers(g), "%s covers %s", f, g)
		require.Equal(t, c[2] == covered || c[2] == same, g.Covers(f), "%s covers %s", g, f)
	}
}

func TestFilterRoundTripsThroughJSON(t *testing.T) {
	t.Parallel()
	want := []subject.Filter{subject.EventsOf(subject.Maskin), subject.AllDeadLetters()}
	text, err := json.Marshal(want)
	require.NoError(t, err)
	// The default encoder escapes >; any JSON reader reads it back.
	require.JSONEq(t, `["dv.maskin.evt.>","dv.*.dlq.>"]`, string(text))
	var got []subject.Filter
	require.NoError(t, json.Unmarshal(text, &got))
	require.Equal(t, want, got)

	keep := want[0]
	require.Error(t, keep.UnmarshalText([]byte("dv.>.x")))
	require.Equal(t, want[0], keep, "a failed decode leaves the value")
}
