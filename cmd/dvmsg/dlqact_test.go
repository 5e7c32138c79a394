package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// rack gives a failure a cause of which there are many.
func rack(n int) func(*envelope.Failure) {
	return func(f *envelope.Failure) { f.Err = fmt.Errorf("rack %d is full after %dms", n, 10*n) }
}

// servicing runs a consumer whose handler takes servers with a hostname only.
func (b dlqBundle) servicing(t *testing.T) func() []string {
	t.Helper()
	var mu sync.Mutex
	handled := []string{}
	c, err := consumer.New(b.js, b.queue, consumer.Config{Consumer: servers, Logger: quiet()},
		consumer.On(provisioned, func(_ context.Context, m envelope.Received[serverV1]) error {
			if m.Data.Hostname == "" {
				return envelope.Permanent(errors.New("server has no hostname"))
			}
			mu.Lock()
			defer mu.Unlock()
			handled = append(handled, m.Data.Hostname)
			return nil
		}))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() { stop(); require.NoError(t, <-ended) })
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(handled)
	}
}

// The night's work: what failed alike is counted, selected by the digits on the
// screen, rehearsed, and replayed.
func TestAGroupIsCountedRehearsedAndReplayed(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	requireGolden(t, "dlq-groups-none.golden", b.dvmsg(t, "dlq", "groups").ok(t).out)
	for n := range 3 {
		b.bury(t, failure(t, n, rack(n)))
	}
	other := b.bury(t, failure(t, 3, poison))
	requireGolden(t, "dlq-groups.golden", maskedGroups(b.dvmsg(t, "dlq", "groups").ok(t).out))
	groups := decode[dlqGroupsResult](t, b.dvmsg(t, "dlq", "groups", "--json").ok(t))
	require.Equal(t, 4, groups.Letters)
	require.Equal(t, 3, groups.Groups[0].Letters)
	require.Equal(t, other, groups.Groups[1].Example)
	limited := decode[dlqGroupsResult](t, b.dvmsg(t, "dlq", "groups", "--json", "--limit", "1").ok(t))
	require.Equal(t, []int{1, 1, 4}, []int{len(limited.Groups), limited.Omitted, limited.Letters})

	short := groups.Groups[0].Fingerprint[:shortFingerprint]
	replay := []string{"dlq", "replay", "--fingerprint", short, "--reason", "racks emptied, DV-412"}
	requireGolden(t, "dlq-replay-group-dry.golden", masked(b.dvmsg(t, append(replay, "--dry-run")...).ok(t).out))
	require.Empty(t, decode[dlqListResult](t, b.dvmsg(t, "dlq", "list", "--state", "replayed", "--json").ok(t)).Letters)
	done := decode[dlqActResult](t, b.dvmsg(t, append(replay, "--json")...).ok(t))
	require.Equal(t, []int{3, 3, 0, 0}, []int{done.Matched, done.Done, done.Refused, done.Failed})

	// It is out; doing it again is refused, said once, and not a success.
	again := b.dvmsg(t, replay...).failed(t, exitFailure, "3 of 3 letters were not replayed")
	require.Contains(t, again.out, "replayed 0 of 3 letters")
	require.Contains(t, again.out, "repeat it with --again")
	batch := decode[dlqListResult](t, b.dvmsg(t, "dlq", "list", "--batch", done.Batches[0].Batch, "--json").ok(t))
	require.Equal(t, map[dlq.State]int{dlq.StateReplayed: 3}, batch.States)

	b.dvmsg(t, "dlq", "groups", "--fingerprint", "00000000").failed(t, exitFailure, "no letter has a fingerprint that begins with 00000000")
}

// maskedGroups replaces the ages of groups, and the width of columns.
func maskedGroups(text string) string {
	text = regexp.MustCompile(` {2,}`).ReplaceAllString(text, "  ")
	return regexp.MustCompile(`  \d+(ms|s)  \d+(ms|s)  `).ReplaceAllString(text, "  AGE  AGE  ")
}

func TestSeveralLettersAreNamedByTheBeginningsOfTheirIds(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	ids := []string{b.bury(t, failure(t, 0)), b.bury(t, failure(t, 1)), b.bury(t, failure(t, 2))}
	b.dvmsg(t, "dlq", "replay", ids[0][:6], "l0000", ids[1], "--reason", "x").failed(t, exitFailure, "no letter l0000 among")
	require.Empty(t, decode[dlqShowResult](t, b.dvmsg(t, "dlq", "show", ids[0], "--json").ok(t)).Marks, "nothing was done")

	r := decode[dlqActResult](t, b.dvmsg(t, "dlq", "replay", ids[2][:6], ids[0][1:7], "--reason", "x", "--json").ok(t))
	require.Equal(t, []string{ids[0], ids[2]}, []string{r.Letters[0].LetterID, r.Letters[1].LetterID})
	r = decode[dlqActResult](t, b.dvmsg(t, append([]string{"dlq", "replay", "--reason", "x", "--json"}, ids...)...).failed(t, exitFailure, "2 of 3"))
	require.Equal(t, []int{3, 1, 2, 0}, []int{r.Matched, r.Done, r.Refused, r.Failed})
	require.True(t, r.Letters[0].Refused)
	require.Contains(t, r.Letters[0].Error, "replayed by operator:ola")
}

func TestMoreLettersThanTheMaximumAreAskedAboutFirst(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	for n := range 3 {
		b.bury(t, failure(t, n))
	}
	for _, dry := range []string{"--dry-run=false", "--dry-run"} {
		r := b.dvmsg(t, "dlq", "discard", "--state", "open", "--max", "2", "--reason", "x", dry).failed(t, exitFailure, "3 letters match and at most 2 are allowed")
		require.Empty(t, r.out)
	}
	require.Len(t, decode[dlqListResult](t, b.dvmsg(t, "dlq", "list", "--json").ok(t)).Letters, 3)
}

func TestLettersAreDiscardedRestoredAndPurged(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	one, two := b.bury(t, failure(t, 1)), b.bury(t, failure(t, 2))
	discard := []string{"dlq", "discard", "--type", "maskin.server.provisioned", "--reason", "servers are gone"}
	requireGolden(t, "dlq-discard-dry.golden", masked(b.dvmsg(t, append(discard, "--dry-run")...).ok(t).out))
	r := decode[dlqActResult](t, b.dvmsg(t, append(discard, "--json")...).ok(t))
	require.Equal(t, 2, r.Done)
	require.Contains(t, b.dvmsg(t, "dlq", "list").ok(t).out, "no dead letter matches")
	b.dvmsg(t, "dlq", "discard", one, "--reason", "x").failed(t, exitFailure, "already discarded by operator:ola")

	restored := b.dvmsg(t, "dlq", "restore", one, "--by", "operator:kari", "--reason", "wrong one").ok(t).out
	require.Contains(t, restored, "restored letter "+one)
	require.Contains(t, b.dvmsg(t, "dlq", "show", one).ok(t).out, "open: restored by operator:kari")
	require.Contains(t, b.dvmsg(t, "dlq", "show", two).ok(t).out, "dvmsg dlq restore "+two)
	require.Len(t, decode[dlqListResult](t, b.dvmsg(t, "dlq", "list", "--json").ok(t)).Letters, 1)
	none := b.dvmsg(t, "dlq", "restore", "--batch", r.Batches[0].Batch, "--state", "resolved", "--reason", "x").ok(t).out
	require.Equal(t, "no dead letter matches\n", none)

	// Not old enough; then as old as it is.
	purge := []string{"dlq", "purge", "--resolved", "--service", "plattform", "--reason", "room, DV-412"}
	require.Contains(t, b.dvmsg(t, purge...).ok(t).out, "plattform: removed 0 letters that were closed for 720h0m0s or longer")
	for _, dry := range []bool{true, false} {
		args := append(purge[:len(purge):len(purge)], "--older-than", "1ns", "--json")
		if dry {
			args = append(args, "--dry-run")
		}
		ran := b.dvmsg(t, args...)
		require.Equal(t, exitOK, ran.code, ran.err)
		p := decode[dlqPurgeResult](t, ran)
		require.Equal(t, dry, p.DryRun)
		require.Equal(t, []string{"operator:ola", "room, DV-412"}, []string{p.By, p.Reason})
		said := "operator:ola removed 1 letter of plattform that were closed for 1ns or longer: room, DV-412\n"
		require.Equal(t, !dry, strings.HasSuffix(ran.err, said), "nothing else is left of who purged: %q", ran.err)
		require.Equal(t, dlq.Purged{Letters: 1, Messages: 1}, p.Services[0].Purged)
	}
	require.Len(t, decode[dlqListResult](t, b.dvmsg(t, "dlq", "list", "--state", "any", "--json").ok(t)).Letters, 1)
}

// The payload is corrected: looked at, rehearsed with the difference, replayed,
// handled, and audited without the data.
func TestOneLetterIsReplayedWithOtherData(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	handled := b.servicing(t)
	id := b.bury(t, failure(t, 1))
	file := writeFile(t, "fixed.json", []byte(`{"hostname":"srv-fixed"}`))
	replay := []string{"dlq", "replay", id, "--reason", "hostname corrected, DV-412", "--data", "@" + file}
	dry := b.dvmsg(t, append(replay, "--dry-run")...).ok(t).out
	require.Contains(t, dry, "/secret: \""+canary+"\" -> (none)\n")
	require.Contains(t, dry, "/hostname: (none) -> \"srv-fixed\"\n")
	require.Empty(t, handled())

	waited := b.dvmsg(t, append(replay, "--wait")...) // on a busy machine it says how far it is
	require.Equal(t, exitOK, waited.code, waited.err)
	out := waited.out
	require.Contains(t, out, "1 resolved, 0 failed again, 0 outstanding")
	require.NotContains(t, out, "srv-fixed")
	require.Equal(t, []string{"srv-fixed"}, handled())
	shown := b.dvmsg(t, "dlq", "show", id).ok(t).out
	require.Contains(t, shown, "replay 1, with other data")
	require.NotContains(t, shown, "srv-fixed")
	l := decode[dlqShowResult](t, b.dvmsg(t, "dlq", "show", id, "--json").ok(t))
	require.Len(t, l.Marks[0].NewData, 64)

	// From the standard input, in the other forms of the flag.
	id = b.bury(t, failure(t, 2))
	r := b.piped(t, `{"hostname":"srv-2"}`, "dlq", "--data=@-", "replay", id, "--reason", "x", "--wait", "--json").ok(t)
	require.Equal(t, []string{id}, decode[dlqActResult](t, r).Followed.Resolved)
	require.Equal(t, []string{"srv-fixed", "srv-2"}, handled())
	id = b.bury(t, failure(t, 3))
	b.piped(t, `[1]`, "dlq", "replay", "--data", id, "@-", "--reason", "x").failed(t, exitFailure, "no JSON object")
}

// A rate that is good for the service must not end the command before its letters
// are out; what the operator says holds.
func TestPatienceGrowsWithTheLettersAndTheirRate(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]time.Duration{
		"replay":                            manyPatience + 20*time.Second,
		"replay --max 20000":                manyPatience + 400*time.Second,
		"replay --max 100 --rate 0.5":       manyPatience + 200*time.Second,
		"replay --max 20000 --timeout 1m":   time.Minute,
		"replay --max 20000 --timeout 0":    0,
		"replay --max 20000 --rate 1e-300":  manyPatience + forEver,
		"discard --max 20000":               manyPatience,
		"replay --max 20000 --rate 1000000": manyPatience + 20*time.Millisecond,
	} {
		words := strings.Fields(args)
		c := newCall(silent(), requireCommand(t, "dlq "+words[0]))
		require.False(t, c.parse(append(words[1:], "--state", "open", "--service", "plattform", "--by", "operator:ola", "--reason", "x", "--nats", "x")))
		c.check()
		require.Empty(t, c.faults)
		require.Equal(t, want, c.timeout, args)
	}
	c := newCall(silent(), requireCommand(t, "dlq replay"))
	c.parse([]string{"--state", "open", "--by", "operator:ola", "--reason", "x", "--nats", "x"})
	c.check()
	require.Equal(t, manyPatience+time.Duration(len(subject.Services()))*20*time.Second, c.timeout, "of each service")
}

// How long an inbox remembers is the service's to decide, and only the operator can
// tell the command.
func TestAReplayBeyondTheHorizonOfTheInboxIsAskedAbout(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	id := b.bury(t, failure(t, 1))
	replay := []string{"dlq", "replay", id, "--reason", "x", "--horizon", "1ns"}
	for _, args := range [][]string{append(replay[:len(replay):len(replay)], "--dry-run"), replay} {
		b.dvmsg(t, args...).failed(t, exitFailure, "longer ago than the inbox remembers", "(--again)")
	}
	b.dvmsg(t, append(replay, "--again")...).ok(t)
}

// --wait ends with what became of each replay, and is a success only if all were
// handled.
func TestWaitTellsWhatFailedAgainAndWhatIsOutstanding(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	id := b.bury(t, failure(t, 1))
	r := b.dvmsg(t, "dlq", "replay", id, "--reason", "x", "--wait", "--timeout", "5s").failed(t, exitFailure, "1 outstanding")
	require.Contains(t, r.out, "0 resolved, 0 failed again, 1 outstanding")

	b.servicing(t)
	require.Eventually(t, func() bool {
		return len(decode[dlqListResult](t, b.dvmsg(t, "dlq", "list", "--state", "open", "--json").ok(t)).Letters) == 1
	}, soon, 50*time.Millisecond)
	r = b.dvmsg(t, "dlq", "replay", "--class", "poison", "--reason", "x", "--wait").failed(t, exitFailure, "1 failed again")
	require.Contains(t, r.out, "failed again: dvmsg dlq show "+id)
}

// Whoever waits sees that something happens; scripts see nothing of it.
func TestProgressIsALineNowAndThen(t *testing.T) {
	t.Parallel()
	for _, asJSON := range []bool{false, true} {
		var stderr bytes.Buffer
		a := silent()
		a.stderr = &stderr
		p := &progress{c: &call{app: a, json: asJSON}}
		p.acting(discardLetters, dlq.Report{Matched: 9, Done: 3, Refused: 1})
		p.following(dlq.Followed{Outstanding: []string{"x"}})
		want := "discarded 3 of 9 letters, 1 refused, 0 failed\n"
		if asJSON {
			want = ""
		}
		require.Equal(t, want, stderr.String())
	}
}

func TestActsOnLettersAreCheckedBeforeAnythingIsContacted(t *testing.T) {
	t.Parallel()
	e := environment{envOperator: "operator:ola", envNATS: "x"}
	for args, want := range map[string]string{
		"replay":                                    "say which letters to replay",
		"discard --reason x":                        "say which letters to discard",
		"restore --reason x":                        "say which letters to restore",
		"replay --all":                              "unknown flag --all",
		"replay l1234 --max 0 --reason x":           "--max: 0 is no number of letters",
		"replay l1234 --horizon x --reason x":       `--horizon: "x" is no age`,
		"discard l1234 --horizon 1d --reason x":     "unknown flag --horizon",
		"replay l1234 --rate 0 --reason x":          "--rate: 0 is out of range",
		"replay l1234 --rate NaN --reason x":        "--rate: NaN is out of range",
		"replay l1234 --data --reason x":            "--data: give the file with the new data as --data @FILE",
		"replay l1234 --data=fixed.json --reason x": "--data: give the file with the new data as --data @FILE",
		"replay l1234 --data @/no/such --reason x":  "--data: open /no/such: no such file",
		"replay l1234 l5678 --data @- --reason x":   "--data: is for one letter",
		"replay --type x --data @- --reason x":      "--data: is for one letter",
		"replay --fingerprint 12345 --reason x":     `--fingerprint: "12345" is none; it is up to 64 hex digits, at least 8`,
		"replay --since 1h --until 2h --reason x":   "--until is not after --since",
		"discard --until never --reason x":          `--until: "never" is neither an age`,
		"discard l12 --reason x":                    `ID: "l12" is no letter id`,
		"restore l1234 --again --reason x":          "unknown flag --again",
		"purge":                                     "--resolved is missing",
		"purge --resolved --older-than never":       `--older-than: "never" is no age`,
		"purge --resolved":                          "--reason is missing",
		"purge --resolved --reason x --by ola":      `"ola" is no actor`,
		"groups --limit -1":                         "--limit: -1 is negative",
	} {
		r := e.dvmsg(t, append([]string{"dlq"}, strings.Fields(args)...)...)
		r.failed(t, exitUsage, want)
		require.Empty(t, r.out)
	}
}
