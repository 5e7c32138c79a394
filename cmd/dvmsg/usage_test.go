package main

import (
	"bytes"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHelpIsAsRecorded(t *testing.T) {
	t.Parallel()
	for file, args := range map[string][]string{
		"help.golden":        {"help"},
		"help-dlq.golden":    {"help", "dlq"},
		"help-replay.golden": {"dlq", "replay", "-h"},
		"help-reset.golden":  {"durable", "reset", "-h"},
		"help-parked.golden": {"help", "outbox", "parked"},
		"help-rewind.golden": {"outbox", "rewind", "-h"},
		"help-sites.golden":  {"sites", "status", "-h"},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			requireGolden(t, file, environment{}.dvmsg(t, args...).ok(t).out)
		})
	}
}

func TestEveryFormOfAskingForHelpAnswersTheSame(t *testing.T) {
	t.Parallel()
	want := environment{}.dvmsg(t, "help", "dlq", "replay").ok(t)
	for _, args := range [][]string{
		{"dlq", "replay", "-h"}, {"dlq", "replay", "--help"}, {"-h", "dlq", "replay"}, {"dlq", "-h", "replay"},
		{"dlq", "replay", "l3f9a2c", "--by", "operator:ola", "-help"}, {"help", "dlq", "replay", "--json"},
	} {
		require.Equal(t, want, environment{}.dvmsg(t, args...), args)
	}
	require.Equal(t, environment{}.dvmsg(t, "help", "dlq"), environment{}.dvmsg(t, "dlq", "--help"))
	require.Equal(t, environment{}.dvmsg(t, "help"), environment{}.dvmsg(t, "-h"))
	parked := environment{}.dvmsg(t, "help", "outbox", "parked", "list").ok(t)
	for _, args := range [][]string{{"outbox", "parked", "list", "-h"}, {"outbox", "-h", "parked", "list"}, {"outbox", "parked", "--stream", "x", "list", "-h"}} {
		require.Equal(t, parked, environment{}.dvmsg(t, args...), args)
	}
	require.Equal(t, environment{}.dvmsg(t, "help", "outbox", "parked"), environment{}.dvmsg(t, "outbox", "parked", "--help"))
}

func TestEveryCommandExplainsItselfWithAnExample(t *testing.T) {
	t.Parallel()
	for _, c := range commands() {
		out := environment{}.dvmsg(t, append(c.words(), "-h")...).ok(t).out
		require.Contains(t, out, "Examples:\n  dvmsg "+c.path)
		require.NotEmpty(t, c.summary)
		c.flags().VisitAll(func(f *flag.Flag) {
			require.Contains(t, out, "--"+f.Name)
			require.NotEmpty(t, f.Usage, c.path+" --"+f.Name)
		})
	}
}

// A script whose variable is empty must not take the help for success.
func TestAnIncompleteCommandIsWrongUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"dlq"}, {"outbox", "parked"}, {"--json"}, {"--timeout", "3s", "migrate"}} {
		r := environment{}.dvmsg(t, args...)
		require.Equal(t, exitUsage, r.code)
		require.Empty(t, r.out)
		require.Contains(t, r.err, "Examples:")
	}
}

func TestAnUnknownCommandSuggestsTheNearest(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		"dql list":               `did you mean "dlq list"?`,
		"dlq lsit":               `did you mean "dlq list"?`,
		"dlq rep l3f9a":          `did you mean "dlq replay"?`,
		"outbx statsu":           `did you mean "outbox status"?`,
		"replay l3f9a":           `did you mean "dlq replay"?`,
		"dlq frobnicate":         `did you mean "dlq list|groups|show|replay|discard|restore|purge"?`,
		"migrat":                 `did you mean "migrate"?`,
		"help topolgy aply":      `did you mean "topology apply"?`,
		"verify":                 "unknown command \"verify\"\n", // two groups have it
		"show x":                 "unknown command \"show x\"\n",
		"parked":                 "unknown command \"parked\"\n",      // two groups have it
		"parked list":            "unknown command \"parked list\"\n", // the same
		"inbox prked list":       `did you mean "inbox parked"?`,
		"discard x":              "unknown command \"discard x\"\n",
		"release x":              "unknown command \"release x\"\n",
		"outbox prked list":      `did you mean "outbox parked"?`,
		"outbox parked relase x": `unknown command "outbox parked relase"; did you mean "outbox parked release"?`,
		"outbox parked frob":     `did you mean "outbox parked list|show|release|discard"?`,
		"outbox frobnicate":      `did you mean "outbox status|parked|rewind|anchors|accept|orphans"?`,
		"xyzzy list":             "unknown command \"xyzzy list\"\n",
		"dlq --nats x lisst":     `did you mean "dlq list"?`,
	} {
		r := environment{}.dvmsg(t, strings.Fields(input)...).failed(t, exitUsage, want)
		require.Contains(t, r.err, `Run "dvmsg help" for help.`)
	}
}

func TestAnUnknownFlagSuggestsTheNearest(t *testing.T) {
	t.Parallel()
	environment{}.dvmsg(t, "migrate", "export", "--shema", "x").failed(t, exitUsage,
		"dvmsg migrate export: unknown flag --shema; did you mean --schema?\n")
	// Its value is not taken for an argument and blamed again.
	r := environment{}.dvmsg(t, "dlq", "show", "--zzz", "v", "l1234", "--nats", "x").failed(t, exitUsage, "unknown flag --zzz")
	require.NotContains(t, r.err, "ID")
	require.Equal(t, 2, strings.Count(r.err, "\n"))
	environment{}.dvmsg(t, "migrate", "export", "--zzz").failed(t, exitUsage, "unknown flag --zzz\n")
}

func TestAllFaultsAreReportedAtOnceAndBeforeAnythingIsContacted(t *testing.T) {
	t.Parallel()
	r := environment{}.dvmsg(t, "dlq", "replay", "--timeout", "-1s", "--service", "nobody", "--creds", "/no/such/file")
	r.failed(t, exitUsage,
		"dvmsg dlq replay: 7 faults:\n",
		"  say which letters to replay: by ID, or by flags",
		"  --service: ", "use one of: sentral",
		"  --by is missing: say who decides, as --by operator:NAME or in DVMSG_OPERATOR\n",
		"  --reason is missing: say why",
		"  --timeout: -1s is negative",
		"  --nats is missing: give the NATS servers as --nats nats://host:4222 or in DVMSG_NATS_URL\n",
		"  --creds (DVMSG_NATS_CREDS): open /no/such/file: no such file or directory\n",
		`Run "dvmsg dlq replay -h" for help.`)
	require.Empty(t, r.out)
}

func TestWrongValuesNameTheFlagAndWhatItTakes(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"dlq list --class bad --nats x":                           `--class: "bad" is none of poison, exhausted, decode, security, crash`,
		"dlq list --state bad --nats x":                           `--state: "bad" is none of open, claimed`,
		"dlq list --since yesterday --nats x":                     `--since: "yesterday" is neither an age such as 90m`,
		"dlq list --limit -2 --nats x":                            `--limit: -2 is negative`,
		"dlq list --limit many --nats x":                          `invalid value "many" for --limit`,
		"dlq list --nats":                                         `a value is missing behind --nats`,
		"dlq list ID --nats x":                                    `unexpected argument "ID"`,
		"dlq list ---x":                                           `bad flag syntax: ---x`,
		"dlq show xyz --nats x":                                   `ID: "xyz" is no letter id`,
		"dlq show l12 --nats x":                                   `at least 4, as dlq list prints it`,
		"dlq replay l1234 --by ola --reason x --nats x":           `--by (DVMSG_OPERATOR): "ola" is no actor; write operator:NAME`,
		"dlq replay l1234 --by robot:7 --reason x --nats x":       `"robot:7" is no actor`,
		"outbox parked show xyz --database postgres:/":            `ID: "xyz" is no message id, which is a whole UUID`,
		"outbox parked show " + strings.ReplaceAll(anID, "-", ""): `is no message id`,
		"outbox parked list --state odd":                          `--state: "odd" is none of held, released, discarded`,
		"outbox parked list --limit 10001":                        `--limit: 10001 is out of range; use 1 to 10000`,
		"outbox parked list --state discarded --key k":            `--key: not with --state discarded`,
		"outbox parked release":                                   `ID is missing: name the head of one key, or release all`,
		"outbox parked release --stream s":                        `ID is missing: name the head of one key, or release all`,
		"outbox parked release " + anID + " --all":                `ID: not with --stream or --all`,
		"outbox parked discard --by operator:ola":                 `ID is missing`,
		"outbox parked discard " + anID:                           `--reason is missing: say why`,
		"outbox rewind --stream s --reason x":                     `say how far to go back, with either --since TIME or --all`,
		"outbox rewind --stream s --since 2h --all":               `say how far to go back, with either --since TIME or --all`,
		"outbox rewind --since yesterday":                         `--since: "yesterday" is neither an age`,
		"outbox rewind --all":                                     `--stream is missing: say which`,
		"outbox anchors":                                          `--stream is missing`,
		"outbox accept --reason x":                                `--stream is missing`,
		"outbox accept --stream s --all --reason x":               `--stream: not with --all`,
		"outbox orphans":                                          `--service is missing: say which`,
		"outbox orphans --service odd":                            `--service: `,
		"outbox orphans --service maskin":                         `--since is missing: say the time of the backup`,
		"outbox orphans --service maskin --since 2h --limit 0":    `--limit: 0 is out of range; use 1 to 100000`,
		"inbox revive --reason x":                                 `--service is missing: say which`,
		"inbox revive --service plattform":                        `--reason is missing: say why`,
		"durable reset --from 1 --file x d --reason x":            `--file: not with DURABLE`,
		"durable reset --from 1 --file /no/such --reason x":       `--file: open /no/such: no such file`,
		"history list":                                            `say which messages: SUBJECT, such as`,
		"history list dv.maskin.evt.> --service maskin":           `say which messages: SUBJECT, such as`,
		"history list maskin.>":                                   `SUBJECT: subject:`,
		"history list --service odd":                              `--service: `,
		"history list --service maskin --from 1 --since 2h":       `--from: not with --since`,
		"history list --service maskin --limit 0":                 `--limit: 0 is out of range; use 1 to 10000`,
		"history list --service maskin --max-read -1":             `--max-read: -1 is no number of messages`,
		"durable reset --from 1 --reason x":                       `DURABLE is missing`,
		"durable reset d --reason x":                              `say from where: --from or --since, one of them`,
		"durable reset d --from 1 --since 2h":                     `say from where: --from or --since, one of them`,
		"durable reset d --from 1 --horizon x":                    `--horizon: "x" is no age`,
		"durable reset d --from 1":                                `--reason is missing: say why`,
		"migrate up --schema Bad-Name --database postgres:/":      `--schema: "Bad-Name" is no schema name`,
		"migrate export --after 99":                               `--after: 99 is no version`,
		"topology diff --file /no/such --nats x":                  `--file: open /no/such: no such file`,
		"contracts list /no/such":                                 `FILE /no/such: open /no/such: no such file`,
		"contracts lint":                                          `FILE contracts.lock.json: open contracts.lock.json: no such file`,
		"contracts diff x":                                        `NEW is missing`,
		"contracts breaking - -":                                  `only one can be the standard input`,
		"contracts lock":                                          `NEW is missing`,
		"contracts lock - --lock -":                               `--lock: must be a file`,
		"contracts schema":                                        `TYPE is missing`,
		"contracts schema x /no/such --version -1":                `--version: -1 is no version`,
	} {
		environment{}.dvmsg(t, strings.Fields(args)...).failed(t, exitUsage, want)
	}
	environment{}.dvmsg(t, "dlq", "replay", "l1234", "--by", "operator:ola", "--nats", "x", "--reason", strings.Repeat("x", 1025)).
		failed(t, exitUsage, "--reason must be UTF-8 of at most 1024 bytes")
}

func TestAContractFileIsCheckedBeforeAnythingIsContacted(t *testing.T) {
	t.Parallel()
	e := environment{}
	e.piped(t, `{"service":"maskin","streams":[{}]}`, "topology", "apply", "--file", "-").failed(t, exitUsage,
		"--file -: ", "--nats is missing")
	e.piped(t, `{"servixe":"maskin"}`, "topology", "verify", "--file", "-", "--nats", "x").failed(t, exitUsage, "--file -: parse set: ")
}

// The user of the machine is no default for --by: behind a shared account
// nobody would have done it.
func TestReplayTakesTheOperatorFromTheFlagOrTheEnvironmentOnly(t *testing.T) {
	t.Parallel()
	args := []string{"dlq", "replay", "l1234", "--reason", "x"}
	environment{"USER": "ola", "LOGNAME": "ola"}.dvmsg(t, args...).failed(t, exitUsage, "--by is missing")
	r := environment{envOperator: "operator:ola"}.dvmsg(t, args...).failed(t, exitUsage)
	require.NotContains(t, r.err, "--by")
}

func TestFlagsMayStandAnywhere(t *testing.T) {
	t.Parallel()
	want := environment{}.dvmsg(t, "migrate", "export", "--schema", "billing", "--json").ok(t)
	for _, args := range [][]string{
		{"--schema", "billing", "--json", "migrate", "export"},
		{"--json", "migrate", "--schema=billing", "export"},
		{"migrate", "-json", "export", "-schema", "billing"},
	} {
		require.Equal(t, want, environment{}.dvmsg(t, args...))
	}
	c := newCall(silent(), requireCommand(t, "dlq replay"))
	require.False(t, c.parse([]string{"--dry-run", "l3f9a", "--by", "operator:ola", "--", "--reason", "--json"}))
	require.Empty(t, c.faults)
	require.Equal(t, []string{"l3f9a", "--reason", "--json"}, c.args)
	require.False(t, c.json)
}

// The words of a command are found among flags before the command is known.
func TestAFlagHasOneFormInAllCommands(t *testing.T) {
	t.Parallel()
	form := map[string]bool{}
	for _, c := range commands() {
		c.flags().VisitAll(func(f *flag.Flag) {
			known, seen := form[f.Name]
			require.True(t, !seen || known == isSwitch(f), f.Name)
			form[f.Name] = isSwitch(f)
		})
	}
}

func TestEveryMutationHasADryRunAndEveryCommandHasJSON(t *testing.T) {
	t.Parallel()
	mutations := []string{"migrate up", "topology apply", "outbox parked release", "outbox parked discard",
		"outbox rewind", "outbox accept", "inbox parked release", "inbox revive", "dlq replay", "dlq discard", "dlq restore", "dlq purge", "durable reset",
		"contracts lock"}
	for _, c := range commands() {
		require.NotNil(t, c.flags().Lookup("json"), c.path)
		require.Equal(t, slices.Contains(mutations, c.path), c.flags().Lookup("dry-run") != nil, c.path)
	}
}

// docs/DVMSG.md is written by hand, since a list of flags explains nothing.
func TestTheDocumentationMentionsEveryCommandAndFlag(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/DVMSG.md")
	require.NoError(t, err)
	for _, c := range commands() {
		_, section, found := strings.Cut(string(text), "\n### dvmsg "+c.path)
		require.True(t, found, c.path)
		section, _, _ = strings.Cut(section, "\n#")
		c.flags().VisitAll(func(f *flag.Flag) {
			shared := newCall(silent(), command{needs: c.needs, make: func(*flag.FlagSet) verb { return nil }}).flags
			if shared.Lookup(f.Name) == nil {
				require.Contains(t, section, "`--"+f.Name, c.path)
			}
			require.Contains(t, string(text), "`--"+f.Name)
		})
	}
	for _, env := range []string{envDatabase, envNATS, envCreds, envOperator} {
		require.Contains(t, string(text), env)
	}
}

func TestResultIsReportedAsFailedWhenItCannotBeWritten(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"migrate", "export"}, strings.NewReader(""), brokenPipe{}, &stderr, environment{}.get)
	require.Equal(t, exitFailure, code)
	require.Contains(t, stderr.String(), "pipe is closed")
}

func requireCommand(t testing.TB, path string) command {
	t.Helper()
	c, ok := commands().find(strings.Fields(path))
	require.True(t, ok)
	return c
}

// FuzzArguments holds that no command line makes the parser panic or loop, and
// that it takes every line apart the same way twice.
func FuzzArguments(f *testing.F) {
	for _, seed := range []string{
		"dlq list --since 2h", "dlq replay l3f9a --by operator:ola --reason x --dry-run", "--json dlq -- show -- x",
		"outbox parked release --all --stream DV_MASKIN_EVT --wait", "outbox --schema x parked show ID", "outbox rewind --since 2h --key",
		"---", "-", "--", "-=x", "migrate up --timeout", "help -h help", "dlq list --since=-9999999999h",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Fields(line)
		words, rest := commands().split(args)
		require.Len(t, append(words, rest...), len(args))
		for _, cmd := range commands() {
			c := newCall(silent(), cmd)
			if c.parse(rest) {
				continue
			}
			_ = c.flags.Set("file", "-") // no file of this machine; not every command has it
			c.creds = ""
			c.check()
			for _, fault := range c.faults {
				require.NotEmpty(t, fault)
			}
		}
	})
}
