package subject_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
)

// letterID is the identity of some dead letter.
const letterID = "l0123456789abcdef0123456789abcdef01234567"

// parts is what the accessors of a Subject return.
type parts struct {
	Family                          subject.Family
	Service                         subject.Service
	Action, Entity, Verb, Operation string
	Original, LetterID, Durable     string
	Site                            string
}

func partsOf(s subject.Subject) parts {
	return parts{
		s.Family(), s.Service(), s.Action(), s.Entity(), s.Verb(), s.Operation(),
		s.Original(), s.LetterID(), s.Durable(), s.Site(),
	}
}

// sample is a subject as text, built, and in parts.
type sample struct {
	text  string
	build func() (subject.Subject, error)
	parts parts
}

// samples holds every example of Dataverket 007, in its order, then the
// dead-letter pattern of the SEA handbook, then the other families and edges.
func samples() []sample {
	long := strings.Repeat("a", subject.MaxToken)
	return []sample{
		{"dv.maskin.cmd.provision", func() (subject.Subject, error) {
			return subject.Cmd(subject.Maskin, "provision")
		}, parts{Family: subject.FamilyCommand, Service: subject.Maskin, Action: "provision"}},
		{"dv.maskin.evt.server.provisioned", func() (subject.Subject, error) {
			return subject.Evt(subject.Maskin, "server", "provisioned")
		}, parts{Family: subject.FamilyEvent, Service: subject.Maskin, Entity: "server", Verb: "provisioned"}},
		{"dv.nett.cmd.apply", func() (subject.Subject, error) {
			return subject.Cmd(subject.Nett, "apply")
		}, parts{Family: subject.FamilyCommand, Service: subject.Nett, Action: "apply"}},
		{"dv.plattform.evt.cluster.ready", func() (subject.Subject, error) {
			return subject.Evt(subject.Plattform, "cluster", "ready")
		}, parts{Family: subject.FamilyEvent, Service: subject.Plattform, Entity: "cluster", Verb: "ready"}},
		{"dv.task.evt.updated", func() (subject.Subject, error) {
			return subject.TaskEvt("updated")
		}, parts{Family: subject.FamilyTaskEvent, Verb: "updated"}},
		{"dv.rpc.identitet.introspect_token", func() (subject.Subject, error) {
			return subject.RPC(subject.Identitet, "introspect_token")
		}, parts{Family: subject.FamilyRPC, Service: subject.Identitet, Operation: "introspect_token"}},

		// SEA handbook: {context}.dlq.{original_subject}.
		{"dv.plattform.dlq.dv.maskin.evt.server.provisioned", func() (subject.Subject, error) {
			return subject.DLQ(subject.Plattform, "dv.maskin.evt.server.provisioned")
		}, parts{Family: subject.FamilyDeadLetter, Service: subject.Plattform, Original: "dv.maskin.evt.server.provisioned"}},
		{"dv.sentral.dlq.sea.event.case_created.v1", func() (subject.Subject, error) {
			return subject.DLQ(subject.Sentral, "sea.event.case_created.v1")
		}, parts{Family: subject.FamilyDeadLetter, Service: subject.Sentral, Original: "sea.event.case_created.v1"}},
		{"dv.sentral.dlq.Ikke-Våre\xff.$X*y", func() (subject.Subject, error) {
			return subject.DLQ(subject.Sentral, "Ikke-Våre\xff.$X*y")
		}, parts{Family: subject.FamilyDeadLetter, Service: subject.Sentral, Original: "Ikke-Våre\xff.$X*y"}},
		// The server routes and stores a NUL like any other byte.
		{"dv.sentral.dlq.a\x00b", func() (subject.Subject, error) {
			return subject.DLQ(subject.Sentral, "a\x00b")
		}, parts{Family: subject.FamilyDeadLetter, Service: subject.Sentral, Original: "a\x00b"}},
		{"dv.plattform.dlqmark." + letterID, func() (subject.Subject, error) {
			return subject.DLQMark(subject.Plattform, letterID)
		}, parts{Family: subject.FamilyDeadLetterMark, Service: subject.Plattform, LetterID: letterID}},
		{"dv.plattform.replay.plattform__from_maskin", func() (subject.Subject, error) {
			return subject.Replay(subject.Plattform, "plattform__from_maskin")
		}, parts{Family: subject.FamilyReplay, Service: subject.Plattform, Durable: "plattform__from_maskin"}},
		{"dv.xdc.trd1.maskin.cmd.provision", func() (subject.Subject, error) {
			return subject.CmdAt("trd1", subject.Maskin, "provision")
		}, parts{Family: subject.FamilySiteCommand, Service: subject.Maskin, Action: "provision", Site: "trd1"}},
		{"dv.xdc.maskin.maskin.cmd.maskin", func() (subject.Subject, error) {
			return subject.CmdAt("maskin", subject.Maskin, "maskin")
		}, parts{Family: subject.FamilySiteCommand, Service: subject.Maskin, Action: "maskin", Site: "maskin"}},

		// Tokens that are names elsewhere in the grammar, and the longest event.
		{"dv.objekt.evt.evt.dlq", func() (subject.Subject, error) {
			return subject.Evt(subject.Objekt, "evt", "dlq")
		}, parts{Family: subject.FamilyEvent, Service: subject.Objekt, Entity: "evt", Verb: "dlq"}},
		{"dv.rpc.nett.cmd", func() (subject.Subject, error) {
			return subject.RPC(subject.Nett, "cmd")
		}, parts{Family: subject.FamilyRPC, Service: subject.Nett, Operation: "cmd"}},
		{"dv.plattform.evt." + long + "." + long, func() (subject.Subject, error) {
			return subject.Evt(subject.Plattform, long, long)
		}, parts{Family: subject.FamilyEvent, Service: subject.Plattform, Entity: long, Verb: long}},
		{"dv.nett.cmd.a", func() (subject.Subject, error) {
			return subject.Cmd(subject.Nett, "a")
		}, parts{Family: subject.FamilyCommand, Service: subject.Nett, Action: "a"}},
	}
}

func TestEveryExampleOfTheTaxonomyRoundTrips(t *testing.T) {
	t.Parallel()
	for _, sample := range samples() {
		built, err := sample.build()
		require.NoError(t, err, sample.text)
		require.Equal(t, sample.text, built.String())
		require.Equal(t, sample.parts, partsOf(built))

		parsed, err := subject.Parse(sample.text)
		require.NoError(t, err, sample.text)
		require.Equal(t, sample.parts, partsOf(parsed))
		require.True(t, parsed == built, "%s: a Subject is comparable by value", sample.text)
		require.False(t, parsed.IsZero())
	}
}

func TestNoSubjectButADeadLetterExceedsMaxLength(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", subject.MaxToken)
	for _, s := range subject.Services() {
		for _, one := range []subject.Subject{
			subject.Must(subject.Cmd(s, long)), subject.Must(subject.Evt(s, long, long)),
			subject.Must(subject.TaskEvt(long)), subject.Must(subject.RPC(s, long)),
			subject.Must(subject.DLQMark(s, letterID)), subject.Must(subject.Replay(s, long)),
			subject.Must(subject.CmdAt(strings.Repeat("x", subject.MaxSite), s, long)),
		} {
			require.LessOrEqual(t, len(one.String()), subject.MaxLength)
		}
		// The longest letter still fits a protocol line of 4096 bytes with 256 to
		// spare for the reply subject and the sizes.
		letter := subject.Must(subject.DLQ(s, strings.Repeat("x", subject.MaxOriginal)))
		require.Less(t, len(letter.String()), 4096-256)
	}
}

func TestBuildersReportEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	_, err := subject.Evt(0, "Server", "")
	require.EqualError(t, err, strings.Join([]string{
		`subject: service "invalid": use one of: sentral, identitet, maskin, plattform, tjeneste, objekt, nett`,
		`subject: entity "Server": holds an upper-case letter: use lower-case letters, digits and _, starting with a letter`,
		`subject: verb "": is empty: use lower-case letters, digits and _, starting with a letter`,
	}, "\n"))
	first, ok := errors.AsType[*subject.Error](err)
	require.True(t, ok)
	require.Equal(t, "service", first.What)
}

func TestBuildersRefuseBadTokensAndSayWhatToWrite(t *testing.T) {
	t.Parallel()
	builders := map[string]func(string) (subject.Subject, error){
		"action":    func(x string) (subject.Subject, error) { return subject.Cmd(subject.Maskin, x) },
		"entity":    func(x string) (subject.Subject, error) { return subject.Evt(subject.Maskin, x, "done") },
		"verb":      func(x string) (subject.Subject, error) { return subject.Evt(subject.Maskin, "server", x) },
		"operation": func(x string) (subject.Subject, error) { return subject.RPC(subject.Maskin, x) },
		"durable":   func(x string) (subject.Subject, error) { return subject.Replay(subject.Maskin, x) },
		"site":      func(x string) (subject.Subject, error) { return subject.CmdAt(x, subject.Maskin, "provision") },
	}
	for token, want := range map[string]string{
		"":                                      "is empty: use lower-case letters, digits and _, starting with a letter",
		"Provision":                             "holds an upper-case letter: use lower-case letters, digits and _",
		"proVision":                             "holds an upper-case letter",
		"pro-vi":                                "holds '-': use lower-case letters, digits and _",
		"pro vi":                                "holds ' ': use",
		"på":                                    "holds 'å': use",
		"a\xff":                                 "holds '�': use",
		"a\x00":                                 `holds '\x00': use`,
		"9lives":                                "starts with '9': use lower-case letters, digits and _, starting with a letter",
		"_x":                                    "starts with '_'",
		"a.b":                                   "holds a dot and would be several tokens",
		"*":                                     "holds a wildcard: publish to a concrete subject; a pattern is a Filter",
		">":                                     "holds a wildcard",
		"a*":                                    "holds a wildcard",
		strings.Repeat("a", subject.MaxToken+1): "is 65 bytes long: shorten it to at most 64",
	} {
		for what, build := range builders {
			want := want
			if what == "site" {
				want = strings.Replace(want, "at most 64", "at most 32", 1)
			}
			got, err := build(token)
			e, ok := errors.AsType[*subject.Error](err)
			require.True(t, ok, "%s %q: %v", what, token, err)
			require.Equal(t, what, e.What)
			require.Contains(t, e.Reason, want, "%s %q", what, token)
			require.True(t, got.IsZero())
		}
	}
	_, err := subject.TaskEvt("Done")
	require.ErrorContains(t, err, `verb "Done": holds an upper-case letter`)
}

// A site with the name of a family would put what waits for it into the filters of
// that family, such as dv.*.dlq.>.
func TestTheWordsOfFamiliesNameNoSite(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"cmd", "evt", "dlq", "dlqmark", "replay"} {
		_, err := subject.CmdAt(word, subject.Maskin, "provision")
		require.ErrorContains(t, err, `subject: site "`+word+`": is a word that names a family of subjects: use another name`)
		_, err = subject.Parse("dv.xdc." + word + ".maskin.cmd.provision")
		require.ErrorContains(t, err, "names a family of subjects")
		_, err = subject.CommandsAt(word, subject.Maskin)
		require.Error(t, err)
	}
	_, err := subject.CmdAt("Trd1", 0, "")
	require.ErrorContains(t, err, `site "Trd1"`)
	require.ErrorContains(t, err, `service "invalid"`)
	require.ErrorContains(t, err, `action ""`)
}

func TestDeadLetterRefusesWhatCannotBeAnOriginal(t *testing.T) {
	t.Parallel()
	for original, want := range map[string]string{
		"":                                      "is empty: use the subject that the message was published to",
		"a b":                                   "holds ' ', which no NATS subject can",
		"a\tb":                                  `holds '\t'`,
		"a\r\nb":                                `holds '\r'`,
		"a\fb":                                  `holds '\f'`,
		".a":                                    "has an empty token: remove the leading, trailing or double dot",
		"a.":                                    "has an empty token",
		"a..b":                                  "has an empty token",
		"a.*.b":                                 "holds a wildcard: publish to a concrete subject",
		"a.>":                                   "holds a wildcard",
		"dv.*.cm":                               "holds a wildcard",
		"dv.maskin.dlq.dv.maskin.cmd.provision": "is a dead letter itself: use the subject that the message was first published to",
		"dv.unknown.dlq.x":                      "is a dead letter itself",
		"dv.maskin.dlqmark." + letterID:         "is a dead letter mark itself",
		"dv.maskin.replay.maskin__x":            "is a replay itself",
		strings.Repeat("a", subject.MaxOriginal) + "a": "is 3585 bytes long: a dead letter embeds at most 3584",
	} {
		_, err := subject.DLQ(subject.Maskin, original)
		e, ok := errors.AsType[*subject.Error](err)
		require.True(t, ok, "%q: %v", original, err)
		require.Equal(t, "original", e.What)
		require.Contains(t, e.Reason, want, "%q", original)
		_, err = subject.Parse("dv.maskin.dlq." + original)
		require.Error(t, err, "Parse agrees with DLQ on %q", original)
	}
	// Looks alike, but no filter of a dead-letter stream matches it.
	for _, original := range []string{"dv.maskin.dlq", "dv.dlq.x", "dc1.dv.maskin.dlq.x", "DV.maskin.dlq.x"} {
		_, err := subject.DLQ(subject.Maskin, original)
		require.NoError(t, err, original)
	}
}

func TestLetterIDIsLAndFortyHexDigits(t *testing.T) {
	t.Parallel()
	for _, id := range []string{
		"", "l", letterID[1:], letterID + "0", letterID[:40], "L" + letterID[1:], "m" + letterID[1:],
		strings.ToUpper(letterID), letterID[:40] + "g", letterID[:39] + ".a",
	} {
		_, err := subject.DLQMark(subject.Maskin, id)
		require.ErrorContains(t, err, "is no letter id: use l followed by 40 lower-case hex digits", id)
		_, err = subject.Parse("dv.maskin.dlqmark." + id)
		require.Error(t, err, id)
	}
}

func TestParseRefusesAndExplains(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"":                                 {`subject: subject "": does not begin with dv: every subject is one of dv.<service>.cmd.<action>, dv.<service>.evt.`},
		"dv":                               {`service "" is not an accepted service`, `family "" is unknown`},
		"maskin.evt.server.provisioned":    {"does not begin with dv"},
		"DV.maskin.cmd.provision":          {"does not begin with dv"},
		" dv.maskin.cmd.provision":         {"does not begin with dv"},
		"dv.maskn.cmd.provision":           {`service "maskn" is not an accepted service: use one of: sentral, identitet`},
		"dv.maskin.event.server.made":      {`family "event" is unknown: use one of: cmd, evt, dlq, dlqmark, replay`},
		"dv.maskn.event.server.made":       {`service "maskn"`, `family "event"`},
		"dv.maskin.cmd":                    {"has too few tokens: write dv.<service>.cmd.<action>"},
		"dv.maskin.cmd.":                   {"has too few tokens"},
		"dv.maskin.cmd.a.b":                {"has too many tokens: write dv.<service>.cmd.<action>"},
		"dv.maskin.cmd.a.":                 {"has too many tokens"},
		"dv.maskin.cmd.Provision":          {`action "Provision" holds an upper-case letter: use lower-case`},
		"dv.maskin.cmd.provision ":         {`action "provision " holds ' '`},
		"dv.maskin.cmd.provision\n":        {`action "provision\n" holds '\n'`},
		"dv.maskin.evt.server":             {"has too few tokens: write dv.<service>.evt.<entity>.<verb>"},
		"dv.maskin.evt..made":              {`entity "" is empty`},
		"dv.maskin.evt.Server.Made":        {`entity "Server" holds`, `verb "Made" holds`},
		"dv.maskin.evt.server.provided.v1": {"has too many tokens", "a version belongs into the envelope's dataschema"},
		"dv.task.evt":                      {"has too few tokens: write dv.task.evt.<verb>"},
		"dv.task.cmd.x":                    {"has another token than evt after task: write dv.task.evt.<verb>"},
		"dv.task.evt.a.b":                  {"has too many tokens"},
		"dv.rpc.x.op":                      {`service "x" is not an accepted service`},
		"dv.rpc.maskin":                    {"has too few tokens: write dv.rpc.<service>.<operation>"},
		"dv.xdc":                           {`site "" is empty`, `service "" is not`, "has another token than cmd after the service: write dv.xdc.<site>.<service>.cmd.<action>"},
		"dv.xdc.trd1.maskin.cmd":           {"has too few tokens: write dv.xdc.<site>.<service>.cmd.<action>"},
		"dv.xdc.trd1.maskin.cmd.a.b":       {"has too many tokens"},
		"dv.xdc.trd1.maskin.evt.a":         {"has another token than cmd"},
		"dv.xdc.Trd1.maskn.cmd.A":          {`site "Trd1" holds an upper-case letter`, `service "maskn" is not`},
		"dv.maskin.rpc.op":                 {`family "rpc" is unknown`},
		"dv.maskin.dlq":                    {`original "" is empty`},
		"dv.maskin.evt.>":                  {"is a pattern: publish to a concrete subject; a pattern is a Filter, see ParseFilter"},
		"dv.*.dlq.>":                       {"is a pattern"},
		"dv.maskin.dlq.a.*":                {"is a pattern"},
		"dv.maskin.cmd.a*":                 {"holds a wildcard"},
	} {
		got, err := subject.Parse(text)
		e, ok := errors.AsType[*subject.Error](err)
		require.True(t, ok, "%q: %v", text, err)
		require.Equal(t, "subject", e.What)
		for _, part := range want {
			require.Contains(t, e.Error(), part, "%q", text)
		}
		require.True(t, got.IsZero())
	}
}

func TestZeroSubjectIsNoSubject(t *testing.T) {
	t.Parallel()
	var zero subject.Subject
	require.True(t, zero.IsZero())
	require.Equal(t, "", zero.String())
	require.Equal(t, parts{}, partsOf(zero))
	require.Equal(t, "invalid", zero.Family().String())
	_, err := zero.MarshalText()
	require.ErrorContains(t, err, "is not set: build one with Cmd, Evt, TaskEvt, RPC or Parse")
	_, err = subject.Parse(zero.String())
	require.Error(t, err)
}

func TestFamiliesHaveNames(t *testing.T) {
	t.Parallel()
	var names []string
	for f := subject.FamilyCommand; f <= subject.FamilySiteCommand; f++ {
		names = append(names, f.String())
	}
	require.Equal(t, []string{
		"command", "event", "task event", "rpc", "dead letter", "dead letter mark", "replay", "command to a site",
	}, names)
	require.Equal(t, "invalid", (subject.FamilySiteCommand + 1).String())
	require.Equal(t, "invalid", subject.Family(255).String())
}

func TestSubjectRoundTripsThroughJSON(t *testing.T) {
	t.Parallel()
	type doc struct {
		S subject.Subject         `json:"s,omitzero"`
		M map[subject.Subject]int `json:"m,omitempty"`
	}
	want := doc{
		subject.Must(subject.Cmd(subject.Maskin, "provision")),
		map[subject.Subject]int{subject.Must(subject.TaskEvt("queued")): 1},
	}
	text, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, `{"s":"dv.maskin.cmd.provision","m":{"dv.task.evt.queued":1}}`, string(text))
	var got doc
	require.NoError(t, json.Unmarshal(text, &got))
	require.Equal(t, want, got)
	text, err = json.Marshal(doc{})
	require.NoError(t, err)
	require.JSONEq(t, `{}`, string(text))

	keep := want.S
	require.Error(t, keep.UnmarshalText([]byte("dv.maskin.evt.>")))
	require.Equal(t, want.S, keep, "a failed decode leaves the value")
}

func TestMustPanicsWithTheError(t *testing.T) {
	t.Parallel()
	require.PanicsWithError(t,
		`subject: action "": is empty: use lower-case letters, digits and _, starting with a letter`,
		func() { subject.Must(subject.Cmd(subject.Maskin, "")) })
	require.Panics(t, func() { subject.MustFilter(subject.ParseFilter("x")) })
	require.NotPanics(t, func() { subject.MustFilter(subject.ParseFilter("dv.>")) })
}
