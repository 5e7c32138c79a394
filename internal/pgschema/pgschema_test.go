package pgschema_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/pgschema"
)

func ExampleQuote() {
	quoted, err := pgschema.Quote("billing_messages")
	fmt.Println(quoted, err)
	_, err = pgschema.Quote(`x"; drop table users; --`)
	fmt.Println(err != nil)
	// Output:
	// "billing_messages" <nil>
	// true
}

func TestQuoteAcceptsPlainNames(t *testing.T) {
	t.Parallel()
	for schema, want := range map[string]string{
		"":                      `"messaging"`,
		"messaging":             `"messaging"`,
		"_x1":                   `"_x1"`,
		"select":                `"select"`, // a reserved word is a name between quotes
		strings.Repeat("a", 63): `"` + strings.Repeat("a", 63) + `"`,
	} {
		got, err := pgschema.Quote(schema)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestQuoteRefusesEverythingElse(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{
		`a"`, `a";drop schema public;--`, "a.b", "a b", "A", "1a", "å", "a\x00", "a\n", "\n", " ",
		strings.Repeat("a", 64), "pg_catalog", "pg_temp", "pg_x", "information_schema", "{{schema}}", "$1", "a'",
	} {
		_, err := pgschema.Quote(schema)
		require.Error(t, err, "%q", schema)
		require.NotContains(t, err.Error(), "\n")
	}
}

func FuzzQuote(f *testing.F) {
	for _, seed := range []string{"", "messaging", `a"b`, "pg_x", "a\x00b", strings.Repeat("x", 64)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, schema string) {
		quoted, err := pgschema.Quote(schema)
		if err != nil {
			require.Empty(t, quoted)
			return
		}
		inner := strings.TrimSuffix(strings.TrimPrefix(quoted, `"`), `"`)
		require.Len(t, quoted, len(inner)+2)
		require.NotContains(t, inner, `"`)
		require.NotContains(t, inner, "\x00")
		require.LessOrEqual(t, len(inner), 63)
	})
}
