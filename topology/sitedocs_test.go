package topology_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The link's user may do what docs/DATACENTERS.md lists, each with what happens
// without it, and nothing else. That it suffices is shown by all tests that use
// dvtest.Sites, whose servers run this configuration.
func TestTheRightsOfTheLinkAreThoseOfTheDocument(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../docs/DATACENTERS.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for line := range strings.Lines(string(document)) {
		what, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		for _, subject := range regexp.MustCompile("`((?:\\$JS|dvsites)[^`]*)`").FindAllStringSubmatch(what, -1) {
			if strings.HasPrefix(line, "| ") {
				documented[subject[1]] = true
			}
			if strings.Contains(what, "the same with `.>`") {
				documented[subject[1]+".>"] = true
			}
		}
	}

	n, rendered := twoSites(), map[string]bool{}
	text, err := n.ServerConfig("osl1")
	require.NoError(t, err)
	for _, list := range regexp.MustCompile(`(?s)allow: \[(.*?)\]`).FindAllStringSubmatch(text, -1) {
		for _, subject := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(list[1], -1) {
			rendered[general(subject[1])] = true
		}
	}
	require.Equal(t, rendered, documented)
}

// general writes a right as the document does, without the names of one network.
func general(right string) string {
	right = regexp.MustCompile(`^\$JS\.(osl1|trd1)\.`).ReplaceAllString(right, "$$JS.<domain>.")
	right = regexp.MustCompile(`CREATE\.DV_\w+`).ReplaceAllString(right, "CREATE.<stream>")
	return regexp.MustCompile(`^dvsites\.(osl1|trd1)\.`).ReplaceAllString(right, "dvsites.<site>.")
}
