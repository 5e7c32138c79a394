package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

const (
	// soon bounds what takes milliseconds.
	soon = time.Minute
	tick = 5 * time.Millisecond
)

// quiet discards log lines of what is made to fail.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// dlqBundle is a broker with the dead letters of plattform.
type dlqBundle struct {
	environment
	js    jetstream.JetStream
	queue *dlq.Queue
}

func setupDLQ(t testing.TB) dlqBundle {
	t.Helper()
	broker := dvtest.Server(t)
	js := broker.Connect(t).JetStream()
	require.NoError(t, topology.Ensure(t.Context(), js, maskinSet()))
	require.NoError(t, topology.Ensure(t.Context(), js, plattformSet()))
	queue, err := dlq.Open(t.Context(), js, subject.Plattform, dlq.Config{Logger: quiet()})
	require.NoError(t, err)
	return dlqBundle{environment{envNATS: broker.URL(), envOperator: "operator:ola"}, js, queue}
}

// failure is one in which nothing depends on the clock; n makes it another one.
func failure(t testing.TB, n int, change ...func(*envelope.Failure)) *envelope.Failure {
	t.Helper()
	data := fmt.Appendf(nil, `{"specversion":"1.0","id":"0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b%02x","type":"maskin.server.provisioned",`+
		`"source":"maskin","subject":"server-%d","time":"2026-01-01T10:00:00Z","datacontenttype":"application/json",`+
		`"dataschema":"urn:dataverket:schema:maskin.server.provisioned:v1","tenant_id":"tenant-%d",`+
		`"actor":"user:kari","correlation_id":"corr-%d","causation_id":"cause-1","data":{"secret":"%s"}}`, n, n, n%2, n, canary)
	e, err := envelope.Decode(data)
	require.NoError(t, err)
	at := time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC)
	h := envelope.Message{Envelope: e, Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}.Header()
	h[envelope.HeaderSite] = []string{"dc1"}
	h["X-Partner"] = []string{"acme"}
	f := &envelope.Failure{
		Durable: servers.Durable, Stream: maskinEvents.Name, Sequence: uint64(n), StoredAt: at,
		Subject: "dv.maskin.evt.server.provisioned", Header: h, Data: data, Envelope: e,
		Class: envelope.ClassExhausted, Err: errors.New("insert node: rack \"r7\"\nis \x1b[31mfull"), Attempts: 20,
		FirstAt: at.Add(time.Second), LastAt: at.Add(time.Hour),
	}
	for _, c := range change {
		c(f)
	}
	return f
}

func (b dlqBundle) bury(t testing.TB, f *envelope.Failure) string {
	t.Helper()
	id, err := b.queue.DeadLetter(t.Context(), f)
	require.NoError(t, err)
	return id
}

func poison(f *envelope.Failure) {
	f.Class, f.Attempts, f.Err = envelope.ClassPoison, 1, errors.New("server has no hostname")
}

// undecodable is a message of somebody who does not know the contract.
func undecodable(f *envelope.Failure) {
	f.Class, f.Attempts, f.Err = envelope.ClassDecode, 0, errors.New("envelope: malformed: not an object")
	f.Envelope, f.Data, f.Header = nil, []byte("\xff\x00 not JSON"), envelope.Header{"Dv-Type": {"maskin.odd"}}
}

func TestDLQOutputsAreAsRecorded(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	requireGolden(t, "dlq-list-none.golden", masked(b.dvmsg(t, "dlq", "list").ok(t).out))
	requireGolden(t, "dlq-list-none.json", masked(b.dvmsg(t, "dlq", "list", "--json").ok(t).out))
	first := b.bury(t, failure(t, 1))
	odd := b.bury(t, failure(t, 2, undecodable))

	requireGolden(t, "dlq-list.golden", masked(b.dvmsg(t, "dlq", "list").ok(t).out))
	requireGolden(t, "dlq-list.json", masked(b.dvmsg(t, "dlq", "list", "--json").ok(t).out))
	requireGolden(t, "dlq-show.golden", masked(b.dvmsg(t, "dlq", "show", first).ok(t).out))
	requireGolden(t, "dlq-show.json", masked(b.dvmsg(t, "dlq", "show", first, "--json").ok(t).out))
	requireGolden(t, "dlq-show-undecodable.golden", masked(b.dvmsg(t, "dlq", "show", odd, "--data").ok(t).out))

	replay := []string{"dlq", "replay", first, "--reason", "rack emptied, DV-412"}
	requireGolden(t, "dlq-replay-dry.golden", masked(b.dvmsg(t, append(replay, "--dry-run")...).ok(t).out))
	requireGolden(t, "dlq-replay-dry.json", masked(b.dvmsg(t, append(replay, "--dry-run", "--json")...).ok(t).out))
	requireGolden(t, "dlq-replay.golden", masked(b.dvmsg(t, replay...).ok(t).out))
	requireGolden(t, "dlq-show-replayed.golden", masked(b.dvmsg(t, "dlq", "show", first).ok(t).out))
}

func TestDLQListSelects(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	one, two := b.bury(t, failure(t, 1)), b.bury(t, failure(t, 2, poison))
	three := b.bury(t, failure(t, 3, func(f *envelope.Failure) { f.Durable = "plattform__other" }))
	require.NoError(t, b.queue.Resolve(t.Context(), two, "handled"))
	letter, err := b.queue.Show(t.Context(), one)
	require.NoError(t, err)
	for args, want := range map[string][]string{
		"":                                    {one, three},
		"--state any":                         {one, two, three},
		"--state resolved":                    {two},
		"--class poison":                      {},
		"--state any --class poison":          {two},
		"--correlation corr-3":                {three},
		"--tenant tenant-1":                   {one, three},
		"--durable plattform__other":          {three},
		"--type maskin.server.provisioned":    {one, three},
		"--type maskin.server.gone":           {},
		"--fingerprint " + letter.Fingerprint: {one},
		"--since 1h":                          {one, three},
		"--since 2999-01-01":                  {},
		"--service plattform":                 {one, three},
		"--limit 1":                           {three},
		"--limit 2 --state any":               {two, three},
	} {
		got := decode[dlqListResult](t, b.dvmsg(t, append([]string{"dlq", "list", "--json"}, strings.Fields(args)...)...).ok(t))
		ids := []string{}
		for _, l := range got.Letters {
			require.Equal(t, subject.Plattform, l.Service)
			ids = append(ids, l.ID)
		}
		require.Equal(t, want, ids, args)
	}
	require.Contains(t, b.dvmsg(t, "dlq", "list", "--limit", "1").ok(t).out, "1 older ones are left out; --limit 0 lists all")
}

func TestDLQListGoesOnBehindWhatIsNoLetter(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	_, err := b.js.PublishMsg(t.Context(), &nats.Msg{Subject: "dv.plattform.dlq.dv.maskin.evt.server.provisioned", Data: []byte("by hand")})
	require.NoError(t, err)
	id := b.bury(t, failure(t, 1))
	r := decode[dlqListResult](t, b.dvmsg(t, "dlq", "list", "--json").ok(t))
	require.Len(t, r.Letters, 1)
	require.Len(t, r.Unreadable, 1)
	require.EqualValues(t, 1, r.Unreadable[0].Sequence)
	require.Contains(t, b.dvmsg(t, "dlq", "list").ok(t).out, "warning: message 1 in the dead letters of plattform is no letter: ")
	b.dvmsg(t, "dlq", "show", id[:8]).ok(t)
}

func TestDLQTakesTheBeginningOfAnId(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	ids := map[string][]string{} // by their first four digits
	var id string
	for n := range 3 {
		id = b.bury(t, failure(t, n))
		ids[id[:5]] = append(ids[id[:5]], id)
	}
	require.Len(t, ids, 3, "the fixed ids begin differently")
	want := b.dvmsg(t, "dlq", "show", id, "--json").ok(t)
	for _, short := range []string{id[:5], id[1:5], id[:40], id[1:]} {
		require.Equal(t, want, b.dvmsg(t, "dlq", "show", short, "--json"))
	}
	b.dvmsg(t, "dlq", "show", "l0000").failed(t, exitFailure, "no letter l0000 among the dead letters of plattform")
	b.dvmsg(t, "dlq", "show", "l"+strings.Repeat("0", 40)).failed(t, exitFailure, "no letter l0000")
}

// Acting on the wrong letter is worse than asking again.
func TestDLQRefusesAnAmbiguousId(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	for _, end := range []string{"a", "b"} {
		f := failure(t, 1)
		f.LetterID = "l" + strings.Repeat("c", 39) + end
		b.bury(t, f)
	}
	b.dvmsg(t, "dlq", "replay", "lcccc", "--reason", "x").failed(t, exitFailure, "is the beginning of several letters",
		strings.Repeat("c", 39)+"a", strings.Repeat("c", 39)+"b")
	require.Equal(t, dlq.StateOpen, decode[dlqShowResult](t, b.dvmsg(t, "dlq", "show", "l"+strings.Repeat("c", 39)+"a", "--json").ok(t)).State)
	require.Contains(t, b.dvmsg(t, "dlq", "list").ok(t).out, "l"+strings.Repeat("c", 39)+"b  ")
}

func TestDLQNeedsDeadLetterStreams(t *testing.T) {
	t.Parallel()
	broker := dvtest.Server(t)
	js := broker.Connect(t).JetStream()
	e := environment{envNATS: broker.URL()}
	e.dvmsg(t, "dlq", "list").failed(t, exitFailure, "no service has dead-letter streams on this server")
	e.dvmsg(t, "dlq", "list", "--service", "nett").failed(t, exitFailure, "DV_NETT_DLQ", "DV_NETT_DLQOPS")

	// Half of them is no reason to hide the letters.
	_, err := js.CreateStream(t.Context(), topology.DeadLetters(subject.Nett, limits).Config())
	require.NoError(t, err)
	e.dvmsg(t, "dlq", "list").failed(t, exitFailure, "DV_NETT_DLQOPS")
}

// One service whose streams lose letters must not hide those of all others in the
// night; but that its own are hidden is said.
func TestOneServiceWithBadStreamsHidesNoOther(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	id := b.bury(t, failure(t, 1))
	for _, s := range []topology.Stream{topology.DeadLetters(subject.Nett, limits), topology.DeadLetterOps(subject.Nett, limits)} {
		cfg := s.Config()
		cfg.MaxAge = 24 * time.Hour
		_, err := b.js.CreateStream(t.Context(), cfg)
		require.NoError(t, err)
	}
	const why = "DV_NETT_DLQ removes what is older than 24h0m0s"
	listed := decode[dlqListResult](t, b.dvmsg(t, "dlq", "list", "--json").failed(t, exitFailure, why))
	require.Len(t, listed.Letters, 1)
	require.Contains(t, b.dvmsg(t, "dlq", "groups").failed(t, exitFailure, why).out, id[:shortID])
	require.Contains(t, b.dvmsg(t, "dlq", "show", id).failed(t, exitFailure, why).out, id)
	replay := b.dvmsg(t, "dlq", "replay", id, "--reason", "x").failed(t, exitFailure, why)
	require.Contains(t, replay.out, "replay 1 of letter "+id+" is out")
	b.dvmsg(t, "dlq", "list", "--service", "plattform").ok(t)
	b.dvmsg(t, "dlq", "list", "--service", "nett").failed(t, exitFailure, why)
}

func TestPayloadIsShownOnlyOnRequest(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	f := failure(t, 1)
	f.Header["Authorization"] = []string{"Bearer " + canary}
	f.Header[envelope.HeaderTenantID] = []string{"tenant-7"} // evidence, of the contract
	id := b.bury(t, f)
	require.Contains(t, b.dvmsg(t, "dlq", "show", id).ok(t).out, "  tenant-id: tenant-7\n")
	require.Contains(t, b.dvmsg(t, "dlq", "show", id, "--data").ok(t).out, "Authorization: Bearer "+canary)
	for _, args := range [][]string{
		{"dlq", "list"}, {"dlq", "list", "--json"}, {"dlq", "show", id}, {"dlq", "show", id, "--json"},
		{"dlq", "replay", id, "--reason", "x", "--dry-run"}, {"dlq", "replay", id, "--reason", "x"},
	} {
		out := b.dvmsg(t, args...).ok(t).out
		require.NotContains(t, out, canary)
		require.NotContains(t, out, base64.StdEncoding.EncodeToString(f.Data)[:40])
		require.NotContains(t, out, "\x1b")
	}
	require.Contains(t, b.dvmsg(t, "dlq", "show", id, "--data").ok(t).out, `"secret": "`+canary+`"`)
	require.Equal(t, f.Data, decode[dlqShowResult](t, b.dvmsg(t, "dlq", "show", id, "--data", "--json").ok(t)).Data)
}

func TestADryRunOfAReplayChangesNothingAndEndsAsTheRealOne(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	id := b.bury(t, failure(t, 1))
	replay := []string{"dlq", "replay", id, "--reason", "x"}
	dry := append(replay[:len(replay):len(replay)], "--dry-run")
	b.dvmsg(t, dry...).ok(t)
	require.Empty(t, decode[dlqShowResult](t, b.dvmsg(t, "dlq", "show", id, "--json").ok(t)).Marks)

	b.dvmsg(t, replay...).ok(t)
	for _, args := range [][]string{replay, dry} {
		b.dvmsg(t, args...).failed(t, exitFailure, "replayed by operator:ola", "--again")
	}
	b.dvmsg(t, append(dry, "--again")...).ok(t)
	again := decode[dlqActResult](t, b.dvmsg(t, append(replay[:len(replay):len(replay)], "--again", "--json")...).ok(t))
	require.Equal(t, 2, again.Letters[0].Round)

	require.NoError(t, b.queue.Resolve(t.Context(), id, "handled"))
	for _, args := range [][]string{replay, dry} {
		r := b.dvmsg(t, args...).failed(t, exitFailure, "already resolved")
		require.Empty(t, r.out)
	}
}

// The main job of the command: a message that a service could not handle is
// found, looked at, handed over once more after the repair, and closed.
func TestADeadLetterIsListedShownReplayedAndResolved(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	var repaired atomic.Bool
	var handled atomic.Int64
	c, err := consumer.New(b.js, b.queue, consumer.Config{Consumer: servers, Logger: quiet()},
		consumer.On(provisioned, func(context.Context, envelope.Received[serverV1]) error {
			if !repaired.Load() {
				return envelope.Permanent(errors.New("server srv-1 has no hostname"))
			}
			handled.Add(1)
			return nil
		}))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() { stop(); require.NoError(t, <-ended) })

	m, err := envelope.New(fromEdge(t.Context()), subject.Maskin, provisioned.New("srv-1", serverV1{}))
	require.NoError(t, err)
	data, err := m.Envelope.Encode()
	require.NoError(t, err)
	_, err = b.js.PublishMsg(t.Context(), &nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data})
	require.NoError(t, err)

	list := func(args ...string) []listed {
		return decode[dlqListResult](t, b.dvmsg(t, append([]string{"dlq", "list", "--json", "--correlation", m.Envelope.CorrelationID}, args...)...).ok(t)).Letters
	}
	require.Eventually(t, func() bool { return len(list()) == 1 }, soon, tick)
	id := list()[0].ID[:9]
	shown := b.dvmsg(t, "dlq", "show", id).ok(t).out
	for _, text := range []string{"srv-1", "poison", "server srv-1 has no hostname", m.Envelope.ID, m.Envelope.CorrelationID, "tenant-1", "next: dvmsg dlq replay l"} {
		require.Contains(t, shown, text)
	}

	// Too early: it fails again, and stays the same letter.
	replay := func() acted {
		r := decode[dlqActResult](t, b.dvmsg(t, "dlq", "replay", id, "--by", "operator:kari", "--reason", "hostname fixed, DV-412", "--json").ok(t))
		require.Equal(t, []int{1, 1, 0, 0}, []int{r.Matched, r.Done, r.Refused, r.Failed})
		return r.Letters[0]
	}
	state := func() dlq.State {
		return decode[dlqShowResult](t, b.dvmsg(t, "dlq", "show", id, "--json").ok(t)).State
	}
	require.Equal(t, 1, replay().Round)
	require.Eventually(t, func() bool { return state() == dlq.StateOpen }, soon, tick)
	require.Contains(t, b.dvmsg(t, "dlq", "show", id).ok(t).out, "failed again after replay 1")

	repaired.Store(true)
	done := replay()
	require.Equal(t, 2, done.Round)
	require.Equal(t, "dv.plattform.replay.plattform__from_maskin", done.Subject)
	require.Eventually(t, func() bool { return state() == dlq.StateResolved }, soon, tick)
	require.EqualValues(t, 1, handled.Load())
	require.Empty(t, list())
	require.Len(t, list("--state", "any"), 1)

	history := b.dvmsg(t, "dlq", "show", id).ok(t).out
	require.Contains(t, history, "operator:kari: hostname fixed, DV-412")
	require.Contains(t, history, "next: nothing to do")
	b.dvmsg(t, "dlq", "replay", id, "--reason", "x").failed(t, exitFailure, "already resolved")
}

// Field names are a promise to scripts.
func TestJSONFieldNamesAreSnakeCase(t *testing.T) {
	t.Parallel()
	of := listed{Service: subject.Maskin}
	for _, v := range []any{
		migrateUpResult{}, migrateVerifyResult{Fault: "x"}, migrateExportResult{}, topologyResult{Service: subject.Maskin},
		topologyVerifyResult{Service: subject.Maskin}, outboxResult{}, dlqListResult{}, of, dlqShowResult{of, "x"},
		dlqActResult{Followed: &followed{}}, batch{Service: subject.Maskin}, followed{}, dlqGroupsResult{}, group{Service: subject.Maskin},
		acted{subject.Maskin, "x", "x", "x", true, "x", "x", 1, &dlq.Edited{}, true, true, "x", 1, time.Now(), nil}, dlqPurgeResult{}, purged{Service: subject.Maskin}, dlq.Followed{},
		dlq.Replay{MessageID: "x", Sequence: 1, TookOver: true, Found: true, Edit: &dlq.Edited{}, At: time.Now()}, dlq.Change{Old: []byte("1")},
		parkedListResult{}, parkedShowResult{}, outbox.Parked{ReleasedAt: time.Now(), ReleasedBy: "x", Reason: "x"}, outbox.Decision{},
		parkedReleaseResult{Key: "x", ID: "x"}, parkedDiscardResult{}, outboxRewindResult{Rewind: &outbox.Rewind{}}, outbox.Rewind{Key: "x", Anchor: time.Now(), DoneAt: time.Now()},
		outbox.RewindPlan{Key: "x", Anchor: time.Now()}, outboxAnchorsResult{}, outbox.Anchor{}, outboxAcceptResult{},
		change{"x", "x", "x", "x", true, true}, finding{"x", "x", "x", "x", "x", "x"}, unreadable{Service: subject.Maskin},
	} {
		data, err := json.Marshal(v)
		require.NoError(t, err)
		var fields map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(data, &fields))
		for name := range fields {
			require.Regexp(t, `^[a-z][a-z_]*$`, name)
		}
	}
}
