package dlq_test

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Fixed parts of the golden letter.
const (
	goldenID       = "0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b3f"
	goldenEnvelope = `{"specversion":"1.0","id":"` + goldenID + `","type":"maskin.server.provisioned",` +
		`"source":"maskin","subject":"server-1","time":"2026-08-01T10:00:00Z","datacontenttype":"application/json",` +
		`"dataschema":"urn:dataverket:schema:maskin.server.provisioned:v1","tenant_id":"tenant-1",` +
		`"actor":"operator:kari","correlation_id":"corr-1","causation_id":"cause-1","data":{"server_id":"server-1"}}`
)

// goldenFailure is a failure in which nothing depends on the clock.
func goldenFailure(tb testing.TB) *envelope.Failure {
	tb.Helper()
	e, err := envelope.Decode([]byte(goldenEnvelope))
	require.NoError(tb, err)
	at := time.Date(2026, 8, 1, 10, 0, 0, 0, time.UTC)
	h := envelope.Message{Envelope: e, Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}.Header()
	h[envelope.HeaderSite] = []string{"dc1"}
	h["Nats-Expected-Stream"] = []string{source}
	h["X-Partner"] = []string{"acme", "beta"}
	h["weird"] = []string{"a: b"}
	return &envelope.Failure{
		Durable: durable, Stream: source, Sequence: 42, StoredAt: at.Add(time.Second), Subject: original,
		Header: h, Data: []byte(goldenEnvelope), Envelope: e, Class: envelope.ClassExhausted,
		Err: errors.New("insert node 12: rack \"r7\"\nis full"), Attempts: 20,
		FirstAt: at.Add(2 * time.Second), LastAt: at.Add(time.Hour + 1500*time.Microsecond),
	}
}

// wire renders headers as they stand on the wire, in the order of their names.
func wire(h envelope.Header) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			fmt.Fprintf(&text, "%s: %s\n", name, v)
		}
	}
	return text.String()
}

func requireGolden(t *testing.T, file string, got string) {
	t.Helper()
	path := "testdata/" + file
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestHeadersOfALetterAreAsPromised(t *testing.T) {
	t.Parallel()
	requireGolden(t, "letter_header.golden", wire(dlq.LetterHeader(goldenFailure(t), 0)))
}

func TestHeadersOfAReplayAreAsPromised(t *testing.T) {
	t.Parallel()
	h := dlq.LetterHeader(goldenFailure(t), 0)
	requireGolden(t, "replay_header.golden", wire(dlq.ReplayHeader(h, 1)))
}

func TestLetterIsReadBackFromItsHeaders(t *testing.T) {
	t.Parallel()
	f := goldenFailure(t)
	l, err := dlq.ParseLetter(dlq.LetterHeader(f, 3))
	require.NoError(t, err)
	require.Equal(t, dlq.LetterID(durable, source, goldenID), l.ID)
	require.Equal(t, 3, l.Round)
	require.Equal(t, f.Durable, l.Durable)
	require.Equal(t, f.Class, l.Class)
	require.Equal(t, `insert node 12: rack "r7" is full`, l.Error)
	require.Equal(t, f.Attempts, l.Attempts)
	require.Equal(t, f.FirstAt, l.FirstAt)
	require.Equal(t, f.LastAt, l.LastAt)
	require.Equal(t, f.Subject, l.Subject)
	require.Equal(t, f.Stream, l.Stream)
	require.Equal(t, f.Sequence, l.Sequence)
	require.Equal(t, f.StoredAt, l.OriginalStoredAt)
	require.Equal(t, goldenID, l.OriginalID)
	require.Equal(t, "maskin.server.provisioned", l.Type)
	require.Equal(t, "1", l.Version)
	require.Equal(t, "maskin", l.Source)
	require.Equal(t, "corr-1", l.CorrelationID)
	require.Equal(t, "cause-1", l.CausationID)
	require.Equal(t, "tenant-1", l.TenantID)
	require.Equal(t, "dc1", l.Site)
	require.Equal(t, envelope.Header{"X-Partner": {"acme", "beta"}, "weird": {"a: b"}}, l.OriginalHeader)
}

// Without the lengths before the parts, the durable "a" of stream "bc" and the
// durable "ab" of stream "c" would share their letters.
func TestLetterIDIsUnambiguous(t *testing.T) {
	t.Parallel()
	at := time.Unix(1, 0)
	all := []string{
		dlq.LetterID("a", "bc", "id"), dlq.LetterID("ab", "c", "id"), dlq.LetterID("a", "bci", "d"),
		dlq.LetterID("a", "bc", "id2"), dlq.PositionID("a", "bc", at, 1), dlq.PositionID("a", "bc", at, 2),
		dlq.PositionID("a", "bc", at.Add(1), 1), dlq.PositionID("b", "bc", at, 1),
		dlq.PositionID("a", "bc", time.Time{}, 1),
	}
	slices.Sort(all)
	require.Len(t, slices.Compact(slices.Clone(all)), len(all))
	for _, id := range all {
		require.Regexp(t, `^l[0-9a-f]{40}$`, id)
	}
}

// The id is a promise to other languages and to letters that are stored already.
func TestLetterIDNeverChanges(t *testing.T) {
	t.Parallel()
	require.Equal(t, "le9d747ab67c67dd347859255d1061e65dadb1e73", dlq.LetterID("a", "b", "c"))
	require.Equal(t, "l26594265b0079e06819a28966492badf76207df8", dlq.PositionID("a", "b", time.Unix(1, 2), 3))
}

func TestEachClassOfFailureGetsAnID(t *testing.T) {
	t.Parallel()
	byEnvelope := goldenFailure(t)
	position := dlq.PositionID(durable, source, byEnvelope.StoredAt, byEnvelope.Sequence)
	for name, c := range map[string]struct {
		change func(*envelope.Failure)
		want   string
	}{
		"envelope":  {func(*envelope.Failure) {}, dlq.LetterID(durable, source, goldenID)},
		"undecoded": {func(f *envelope.Failure) { f.Envelope = nil }, position},
		// A message that lies about itself must not take the letter of the one
		// it pretends to be.
		"security": {func(f *envelope.Failure) { f.Class = envelope.ClassSecurity }, position},
		"replay": {func(f *envelope.Failure) { f.LetterID = "l" + strings.Repeat("ab", 20) },
			"l" + strings.Repeat("ab", 20)},
		"no letter id": {func(f *envelope.Failure) { f.LetterID = "l1\r\nx" }, dlq.LetterID(durable, source, goldenID)},
	} {
		f := goldenFailure(t)
		c.change(f)
		require.Equal(t, c.want, dlq.LetterHeader(f, 0).Get(envelope.HeaderLetterID), name)
	}
}

// Old servers took any header whose name ends in Nats-Msg-Id for that header.
func TestNoHeaderNameEndsInAServerHeaderName(t *testing.T) {
	t.Parallel()
	server := []string{"Msg-Id", "Expected-Stream", "Expected-Last-Sequence", "Rollup", "TTL", "Trace-Dest",
		"Schedule", "Stream-Source", "Time-Stamp", "Marker-Reason", "Batch-Id", "Msg-Size"}
	for _, name := range dlq.Reserved() {
		require.True(t, strings.HasPrefix(name, "Dv-"), name)
		for _, s := range server {
			require.False(t, strings.HasSuffix(strings.ToLower(name), strings.ToLower("Nats-"+s)), name)
		}
	}
}

func TestServerHeadersNeverTravelOn(t *testing.T) {
	t.Parallel()
	f := goldenFailure(t)
	for _, name := range []string{"Nats-Rollup", "nats-ttl", "NATS-Trace-Dest", "Nats-Batch-Id", "Nats-Schedule"} {
		f.Header[name] = []string{"all"}
	}
	letter := dlq.LetterHeader(f, 0)
	for _, h := range []envelope.Header{letter, dlq.ReplayHeader(letter, 1)} {
		for name, values := range h {
			require.False(t, strings.HasPrefix(strings.ToLower(name), "nats-"), name)
			for _, v := range values {
				require.NotContains(t, strings.ToLower(v), "nats-", name)
			}
		}
	}
}

// What the envelope says wins over the header, and what the header said is kept
// and comes back with the replay: replaying must not heal a forgery.
func TestContradictionIsKeptAndReplayed(t *testing.T) {
	t.Parallel()
	f := goldenFailure(t)
	f.Class = envelope.ClassSecurity
	f.Header[envelope.HeaderTenantID] = []string{"tenant-2"}
	f.Header["TENANT-ID"] = []string{"tenant-3"}
	f.Header[envelope.HeaderMsgID] = []string{"forged"}
	h := dlq.LetterHeader(f, 0)
	require.Equal(t, "tenant-1", h.Get(envelope.HeaderTenantID))
	require.Equal(t, goldenID, h.Get(dlq.HeaderOriginalID))
	require.Contains(t, h[dlq.HeaderOriginalHeader], "tenant-id: tenant-2")
	require.Contains(t, h[dlq.HeaderOriginalHeader], "Nats-Msg-Id: forged")

	replay := dlq.ReplayHeader(h, 1)
	require.Equal(t, []string{"tenant-2"}, replay[envelope.HeaderTenantID])
	require.Equal(t, []string{"tenant-3"}, replay["TENANT-ID"])
	require.NotContains(t, replay, envelope.HeaderMsgID)
	_, mismatch := errors.AsType[*envelope.MismatchError](f.Envelope.CheckHeader(replay))
	require.True(t, mismatch)
}

// An honest message passes the consumer's check again when it is replayed.
func TestReplayOfAnHonestMessagePassesTheCheck(t *testing.T) {
	t.Parallel()
	f := goldenFailure(t)
	replay := dlq.ReplayHeader(dlq.LetterHeader(f, 0), 1)
	replay[envelope.HeaderMsgID] = []string{replay.Get(envelope.HeaderLetterID) + "/r1"}
	require.NoError(t, f.Envelope.CheckHeader(replay))
	require.Equal(t, []string{"acme", "beta"}, replay["X-Partner"])
	// A name that nobody knows travels along as text, not as a header.
	require.NotContains(t, replay, "weird")
	require.Contains(t, replay[dlq.HeaderOriginalHeader], "weird: a: b")
}

// The consumer hands a failed replay over either with the replay's headers or
// with those that lead back to the letter taken out.
func TestLetterOfAFailedReplayNamesTheOriginal(t *testing.T) {
	t.Parallel()
	first := dlq.LetterHeader(goldenFailure(t), 0)
	replay := dlq.ReplayHeader(first, 1)
	replay[envelope.HeaderMsgID] = []string{first.Get(envelope.HeaderLetterID) + "/r1"}
	stripped := maps.Clone(replay)
	for _, name := range []string{envelope.HeaderMsgID, envelope.HeaderLetterID, envelope.HeaderOriginalSubject,
		envelope.HeaderOriginalStream, envelope.HeaderOriginalSequence} {
		delete(stripped, name)
	}
	for name, h := range map[string]envelope.Header{"whole": replay, "stripped": stripped} {
		f := goldenFailure(t)
		f.Header, f.LetterID, f.StoredAt = h, first.Get(envelope.HeaderLetterID), time.Time{}
		f.Durable = durable + "__replay"
		second := dlq.LetterHeader(f, 1)
		require.Equal(t, "1", second.Get(dlq.HeaderRound), name)
		second[dlq.HeaderRound] = first[dlq.HeaderRound]
		require.Equal(t, wire(first), wire(second), name)
	}
}

// An undecodable message has its headers only: claims, but better than nothing.
func TestUndecodableMessageKeepsWhatItsHeadersSay(t *testing.T) {
	t.Parallel()
	f := goldenFailure(t)
	f.Envelope, f.Class, f.Data = nil, envelope.ClassDecode, []byte("{")
	f.Header[envelope.HeaderCausationID] = []string{strings.Repeat("x", 600)}
	h := dlq.LetterHeader(f, 0)
	require.Equal(t, "corr-1", h.Get(envelope.HeaderCorrelationID))
	require.Equal(t, goldenID, h.Get(dlq.HeaderOriginalID))
	require.NotContains(t, h, envelope.HeaderCausationID)
	require.Contains(t, h[dlq.HeaderOriginalHeader], "X-Causation-Id: "+strings.Repeat("x", 600))
}

// A producer that sends our own header names cannot make them the letter's.
func TestForeignLetterHeadersStayText(t *testing.T) {
	t.Parallel()
	f := goldenFailure(t)
	f.Header[envelope.HeaderLetterID] = []string{"l" + strings.Repeat("0", 40)}
	f.Header["dv-round"] = []string{"7"}
	h := dlq.LetterHeader(f, 0)
	require.Equal(t, dlq.LetterID(durable, source, goldenID), h.Get(envelope.HeaderLetterID))
	require.Equal(t, "0", h.Get(dlq.HeaderRound))
	replay := dlq.ReplayHeader(h, 1)
	require.Equal(t, dlq.LetterID(durable, source, goldenID), replay.Get(envelope.HeaderLetterID))
	require.NotContains(t, replay, "dv-round")
	require.Contains(t, replay[dlq.HeaderOriginalHeader], "dv-round: 7")
}

func TestTooManyOriginalHeadersAreCutAndCounted(t *testing.T) {
	t.Parallel()
	f := goldenFailure(t)
	for i := range dlq.MaxOriginalValues {
		f.Header[fmt.Sprintf("y-%03d", i)] = []string{"v"}
	}
	f.Header["a-long"] = []string{strings.Repeat("x", 20<<10)}
	h := dlq.LetterHeader(f, 0)
	require.Len(t, h[dlq.HeaderOriginalHeader], dlq.MaxOriginalValues)
	l, err := dlq.ParseLetter(h)
	require.NoError(t, err)
	require.Equal(t, 4, l.OriginalHeaderCut)
	require.NotContains(t, l.OriginalHeader, "a-long")
}

func TestErrorIsOneBoundedLine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"lines":   {"a\r\nDv-Class: security\x00\x1b[2J", "a  Dv-Class: security  [2J"},
		"unicode": {"a\u2028b\u0085c", "a b c"},
		"bytes":   {"a\xffb", "a\ufffdb"},
		"long":    {strings.Repeat("å", 600), strings.Repeat("å", 510) + "…"},
		"none":    {"", ""},
	} {
		f := goldenFailure(t)
		f.Err = errors.New(c.in)
		got := dlq.LetterHeader(f, 0).Get(dlq.HeaderError)
		require.Equal(t, c.want, got, name)
		require.LessOrEqual(t, len(got), dlq.MaxError, name)
	}
}

func TestDamagedLetterSaysWhatIsWrongAndKeepsTheRest(t *testing.T) {
	t.Parallel()
	h := dlq.LetterHeader(goldenFailure(t), 0)
	h[dlq.HeaderAttempts] = []string{"-1"}
	h[dlq.HeaderLastAt] = []string{"yesterday"}
	h[envelope.HeaderLetterID] = []string{"L1"}
	l, err := dlq.ParseLetter(h)
	require.ErrorContains(t, err, dlq.HeaderAttempts)
	require.ErrorContains(t, err, dlq.HeaderLastAt)
	require.ErrorContains(t, err, envelope.HeaderLetterID)
	require.Equal(t, durable, l.Durable)
}

// Whatever the payload or an error text leaks stays out of the log.
func TestLogOfALetterHasNoData(t *testing.T) {
	t.Parallel()
	l, err := dlq.ParseLetter(dlq.LetterHeader(goldenFailure(t), 0))
	require.NoError(t, err)
	l.Data, l.Error = []byte("canary"), "canary"
	l.OriginalHeader = envelope.Header{"canary": {"canary"}}
	var text strings.Builder
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "letter", l)
	require.NotContains(t, text.String(), "canary")
	require.Contains(t, text.String(), l.ID)
}

func FuzzParseLetter(f *testing.F) {
	f.Add("Dv-Letter-Id", "l0123456789012345678901234567890123456789", "Dv-Original-Header", "a: b")
	f.Add("Dv-Attempts", "9999999999999999999999", "Dv-Last-At", "2026-08-01T10:00:00.5+02:00")
	f.Add("Dv-Original-Header", ":", "Dv-Data-Omitted", "0")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		l, err := dlq.ParseLetter(envelope.Header{name1: {value1}, name2: {value2}})
		require.GreaterOrEqual(t, l.Attempts, 0)
		require.GreaterOrEqual(t, l.Round, 0)
		if err == nil {
			require.Regexp(t, `^l[0-9a-f]{40}$`, l.ID)
		}
		// Whatever a stored letter holds, its replay gives the server no orders.
		for name := range dlq.ReplayHeader(envelope.Header{name1: {value1}, name2: {value2}}, 1) {
			require.False(t, strings.HasPrefix(strings.ToLower(name), "nats-"), name)
		}
	})
}
