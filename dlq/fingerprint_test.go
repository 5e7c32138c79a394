package dlq_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
)

func TestFingerprintIgnoresWhatVaries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ a, b string }{
		{"insert node 12: timeout after 5.02s", "insert node 90071: timeout after 13.7s"},
		{`server "a" unknown`, `server "srv with space" unknown`},
		{"key 'x1' (`y`) taken", "key 'z' (`other`) taken"},
		{"object 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b3f gone", "object abcdefab-abcd-abcd-abcd-abcdefabcdef gone"},
		{"digest 9f4b2a6e8d0c1b3f bad", "digest 00aa11bb22cc33dd44ee bad"},
		{"letter l0123456789abcdef0123456789abcdef01234567", "letter lffffffffffffffffffffffffffffffffffffff99"},
		{"ulid 01ARZ3NDEKTSV4RRFFQ69G5FAV", "ulid 01BX5ZZKBKACTAV9WEVGEMMVRZ"},
		{"line\n1", "line 2"},
		// Durations of every length, numbers with and without a fraction.
		{"timeout after 5.02s", "timeout after 1m30s"},
		{"timeout after 250ms.", "timeout after 2h0m0.5s."},
		{"took 5 tries", "took 5.25 tries"},
		{"offset -5", "offset 1,234"},
		// Addresses of every kind.
		{"dial tcp 10.0.0.1:5432: refused", "dial tcp [fe80::1]:5432: refused"},
		{"lookup on 10.96.0.10:53", "lookup on ::1"},
		{"peer (addr=10.1.2.3) is gone", "peer (addr=2001:db8::ff00:42:8329) is gone"},
		{"no route to 10.0.0.0/8", "no route to fd00::/8"},
		{"no mail for kari@example.no", "no mail for ola.nordmann@sub.example.com"},
		{"GET https://a.example/x/12?id=9 failed", "GET https://a.example/y failed"},
		// Times in the usual forms.
		{"expired at 2026-01-02T15:04:05Z", "expired at 2026-11-12T15:04:05.123456Z"},
		{"expired at 2026-01-02 15:04:05 +0000 UTC", "expired at 2026-01-02 15:04:05.9 +0100 UTC"},
		// Names that machines give.
		{"pod web-7d4b9c6f8-x2k9p is gone", "pod web-5f6c7d8e9-a1b2c is gone"},
		{"panic at 0xc000123456", "panic at 0xdeadbeef"},
		// Lists of any length.
		{"ids [1 2 3] taken", "ids [7] taken"},
		{`names "a", "b" taken`, `names "c" taken`},
		{"ids 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b3f, 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b40", "ids 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b41"},
	} {
		require.Equal(t, dlq.Normalise(one(c.a)), dlq.Normalise(one(c.b)))
		require.Equal(t, dlq.Fingerprint("poison", "d", "t", c.a), dlq.Fingerprint("poison", "d", "t", c.b))
	}
}

// one is what the fingerprint does to line ends before it normalises.
func one(text string) string {
	if text == "line\n1" {
		return "line 1"
	}
	return text
}

func TestFingerprintKeepsWhatMatters(t *testing.T) {
	t.Parallel()
	base := dlq.Fingerprint(envelope.ClassPoison, "d", "t", "no such server")
	require.Len(t, base, 64)
	for name, other := range map[string]string{
		"class":   dlq.Fingerprint(envelope.ClassExhausted, "d", "t", "no such server"),
		"durable": dlq.Fingerprint(envelope.ClassPoison, "e", "t", "no such server"),
		"type":    dlq.Fingerprint(envelope.ClassPoison, "d", "u", "no such server"),
		"error":   dlq.Fingerprint(envelope.ClassPoison, "d", "t", "no such network"),
		"border":  dlq.Fingerprint(envelope.ClassPoison, "dt", "", "no such server"),
	} {
		require.NotEqual(t, base, other, name)
	}
}

func TestWordsAreLeftAlone(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"can't add decade to facade, isn't it": "can't add decade to facade, isn't it",
		"dial tcp 10.0.0.1:5432: refused":      "dial tcp #: refused",
		"sha256 of http2":                      "sha# of http#",
		`say "hi" and "ho"`:                    `say "#" and "#"`,
		`an open " quote`:                      `an open " quote`,
		"HTTP 404: s3 said x509: oauth2 no":    "HTTP #: s# said x#: oauth# no",
		"a.b.c: d/e_f-g: h=i, j;k (l) [m]":     "a.b.c: d/e_f-g: h=i, j;k (l) [m]",
		"facade decade deadbeef":               "facade decade deadbeef",
		"step 3 of task 4 failed":              "step # of task # failed",
		"":                                     "",
	} {
		require.Equal(t, want, dlq.Normalise(in))
	}
}

// A hostile error text costs no more than its length.
func TestNormalisedTextIsBounded(t *testing.T) {
	t.Parallel()
	for _, part := range []string{`""`, "'", `"'`, "1-", "a@", "://", "::", "0x", "1 ", "\u2028", "é"} {
		text := strings.Repeat(part, 8<<10/len(part))
		require.LessOrEqual(t, len(dlq.Normalise(text)), len(text)*3/2+8, part)
	}
}

// A normalised text can be compared with a fresh one.
func FuzzNormaliseIsIdempotent(f *testing.F) {
	for _, seed := range []string{
		`5"abc" 'x"y' "a""b"`, "0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b3f", "g1abcdefab-abcd-abcd-abcd-abcdefabcdef",
		"a\"b' `c`", "(\"x\")='y'", "\xff\"1\"",
		"https://x/1.", "[::1]:53: x", "1m30s, 2 - 3_4", `"1", "2" 'a','b'`, "a@b.c!", "#-# #, # ## #", "x://y://z",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once := dlq.Normalise(text)
		require.Equal(t, once, dlq.Normalise(once))
	})
}
