package dlq_test

import (
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
		"dial tcp 10.0.0.1:5432: refused":      "dial tcp #.#.#.#:#: refused",
		"sha256 of http2":                      "sha# of http#",
		`say "hi" and "ho"`:                    `say "#" and "#"`,
		`an open " quote`:                      `an open " quote`,
		"":                                     "",
	} {
		require.Equal(t, want, dlq.Normalise(in))
	}
}

// A normalised text can be compared with a fresh one.
func FuzzNormaliseIsIdempotent(f *testing.F) {
	for _, seed := range []string{
		`5"abc" 'x"y' "a""b"`, "0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b3f", "g1abcdefab-abcd-abcd-abcd-abcdefabcdef",
		"a\"b' `c`", "(\"x\")='y'", "\xff\"1\"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once := dlq.Normalise(text)
		require.Equal(t, once, dlq.Normalise(once))
	})
}
