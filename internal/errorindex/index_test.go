package errorindex_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// row is a line of a table of docs/ERRORS.md, and the text that it shows.
var row = regexp.MustCompile("(?m)^\\| `(\\w+\\.\\w+)` \\|.*\\| `+ ?(.+?) ?`+ \\|$")

// TestIndexShowsTheTextsThatErrorsHave holds the texts of docs/ERRORS.md against real
// errors. One that ends in … goes on. internal/archtest holds the names against the
// source.
func TestIndexShowsTheTextsThatErrorsHave(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/ERRORS.md")
	require.NoError(t, err)
	left := examples()
	for _, found := range row.FindAllStringSubmatch(string(page), -1) {
		name, shown := found[1], found[2]
		example := left[name]
		require.Error(t, example, "%s has no example here, or two rows", name)
		delete(left, name)
		text := strings.Join(strings.Fields(example.Error()), " ")
		if start, cut := strings.CutSuffix(shown, " …"); cut {
			require.True(t, strings.HasPrefix(text, start), "%s:\n%s\n%s", name, text, shown)
			continue
		}
		require.Equal(t, text, shown, name)
	}
	require.Empty(t, left, "examples without a row")
}
