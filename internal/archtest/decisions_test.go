package archtest_test

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// decisionDir holds the decision records.
const decisionDir = "docs/decisions"

// decisionHeadings are what every record answers, in this order.
func decisionHeadings() []string { return []string{"Context", "Choice", "Alternatives", "Evidence"} }

// checkDecisions finds gaps in the numbers and records that leave a question
// open.
func checkDecisions(t *tree) (faults []string) {
	form := regexp.MustCompile(`^([0-9]{4})-[a-z0-9]+(-[a-z0-9]+)*\.md$`)
	var names []string
	for name := range t.texts {
		if path.Dir(name) == decisionDir {
			names = append(names, path.Base(name))
		}
	}
	if len(names) == 0 {
		return []string{decisionDir + ": there is no record yet: write 0001-title.md"}
	}
	slices.Sort(names)
	next := 1
	for _, name := range names {
		at := decisionDir + "/" + name
		match := form.FindStringSubmatch(name)
		if match == nil {
			faults = append(faults, at+": the name is not of the form NNNN-title.md")
			continue
		}
		if want := fmt.Sprintf("%04d", next); match[1] != want {
			faults = append(faults, at+": the next record is number "+want)
		}
		next++
		faults = append(faults, headingFaults(at, t.texts[at])...)
	}
	return faults
}

// headingFaults checks one record: a title, then the headings in order with text
// below each.
func headingFaults(at, text string) (faults []string) {
	if !strings.HasPrefix(text, "# ") {
		faults = append(faults, at+": does not begin with a title, as in: # Title")
	}
	var found []string
	sections := strings.Split("\n"+text, "\n## ")
	for _, section := range sections[1:] {
		heading, body, _ := strings.Cut(section, "\n")
		found = append(found, strings.TrimSpace(heading))
		if strings.TrimSpace(body) == "" {
			faults = append(faults, at+": nothing stands below "+heading)
		}
	}
	if want := decisionHeadings(); !slices.Equal(found, want) {
		faults = append(faults, fmt.Sprintf("%s: the headings are %q and not %q", at, found, want))
	}
	return faults
}

func TestDecisionRecordsAreNumberedAndAnswerTheFourQuestions(t *testing.T) {
	t.Parallel()
	holds(t, checkDecisions)
	const good = "# Title\n\n## Context\nc\n## Choice\nc\n### More\n## Alternatives\na\n\n## Evidence\ne\n"
	const dir = decisionDir + "/"
	accepts(t, checkDecisions, files{dir + "0001-a.md": good, dir + "0002-b-2.md": good, "docs/DESIGN.md": "x"})
	refuses(t, checkDecisions, files{}, "there is no record yet")
	refuses(t, checkDecisions, files{dir + "0001-a.md": good, dir + "0003-c.md": good}, "0003-c.md: the next record is number 0002")
	refuses(t, checkDecisions, files{dir + "0001-a.md": good, dir + "0001-b.md": good}, "0001-b.md: the next record is number 0002")
	refuses(t, checkDecisions, files{dir + "0001-a.md": good, dir + "Notes.md": good}, "Notes.md: the name is not of the form")
	refuses(t, checkDecisions, files{dir + "0001-a.md": strings.TrimPrefix(good, "# Title\n")}, "does not begin with a title")
	refuses(t, checkDecisions, files{dir + "0001-a.md": strings.Replace(good, "## Choice", "## Decision", 1)},
		`the headings are ["Context" "Decision" "Alternatives" "Evidence"]`)
	refuses(t, checkDecisions, files{dir + "0001-a.md": strings.Replace(good, "Evidence\ne", "Evidence\n", 1)}, "nothing stands below Evidence")
}
