package archtest_test

import (
	"fmt"
	"go/build/constraint"
	"slices"
	"strings"
	"testing"
)

// maxReadme is how long a README is read, in lines.
const maxReadme = 150

// checkReadmeLength finds a README that is missing or too long.
func checkReadmeLength(t *tree) []string {
	text, ok := t.texts["README.md"]
	if !ok {
		return []string{"README.md does not exist yet: write it"}
	}
	if lines := strings.Count(strings.TrimSuffix(text, "\n"), "\n") + 1; lines > maxReadme {
		return []string{fmt.Sprintf("README.md: %d lines, at most %d: move the rest to docs/", lines, maxReadme)}
	}
	return nil
}

// checkReadmeCode finds Go code of the README that no example holds.
func checkReadmeCode(t *tree) (faults []string) {
	text, ok := t.texts["README.md"]
	if !ok {
		return []string{"README.md does not exist yet: write it"}
	}
	var examples []string
	for _, s := range t.files {
		if strings.HasPrefix(s.path, "examples/") && unconditional(s) {
			examples = append(examples, withoutTabs(s.text))
		}
	}
	for _, block := range goBlocks(text) {
		code := withoutTabs(block.text)
		if !slices.ContainsFunc(examples, func(text string) bool { return strings.Contains(text, code) }) {
			faults = append(faults, fmt.Sprintf("README.md:%d: no compiled file under examples/ holds this Go code verbatim", block.line))
		}
	}
	return faults
}

// block is a fenced piece of Go code and the line of its fence.
type block struct {
	text string
	line int
}

// goBlocks returns the Go code of a Markdown text. A fence that is never closed
// runs to the end, as it does for a reader.
func goBlocks(markdown string) (blocks []block) {
	open := false
	for i, line := range strings.SplitAfter(markdown, "\n") {
		switch fence := strings.TrimSpace(line); {
		case !open && (fence == "```go" || strings.HasPrefix(fence, "```go ")):
			open = true
			blocks = append(blocks, block{line: i + 1})
		case open && fence == "```":
			open = false
		case open:
			blocks[len(blocks)-1].text += line
		}
	}
	return blocks
}

// withoutTabs removes the indentation of every line, and puts each line between
// line ends, so that a block is found as whole lines only.
func withoutTabs(text string) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimLeft(lines[i], "\t")
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}

// unconditional reports whether a file is compiled by everybody: it has no build
// constraint.
func unconditional(s *source) bool {
	for _, group := range s.ast.Comments {
		for _, comment := range group.List {
			if comment.Pos() < s.ast.Package && constraint.IsGoBuild(comment.Text) {
				return false
			}
		}
	}
	return true
}

func TestReadmeIsAtMost150Lines(t *testing.T) {
	t.Parallel()
	holds(t, checkReadmeLength)
	accepts(t, checkReadmeLength, files{"README.md": strings.Repeat("x\n", 150)})
	refuses(t, checkReadmeLength, files{"README.md": strings.Repeat("x\n", 151)}, "README.md: 151 lines, at most 150")
	refuses(t, checkReadmeLength, files{}, "README.md does not exist yet")
}

func TestReadmeCodeStandsInACompiledExample(t *testing.T) {
	t.Parallel()
	holds(t, checkReadmeCode)
	const readme = "Text\n```sh\nmake\n```\n```go\nif ok {\n\treturn f()\n}\n```\n"
	const example = "package main\n\nfunc f() int {\n\tif ok {\n\t\treturn f()\n\t}\n\treturn 1\n}\n"
	accepts(t, checkReadmeCode, files{"README.md": readme, "examples/a/main.go": example})
	refuses(t, checkReadmeCode, files{"README.md": readme, "other/main.go": example}, "README.md:5: no compiled file")
	for name, other := range map[string]string{
		"another word":     strings.Replace(example, "if ok", "if yes", 1),
		"a longer line":    strings.Replace(example, "if ok {", "if ok { // really", 1),
		"a longer start":   strings.Replace(example, "if ok", "go f(); if ok", 1),
		"a longer end":     strings.Replace(example, "\t}\n\treturn 1", "\t} // end\n\treturn 1", 1),
		"a line between":   strings.Replace(example, "if ok {\n", "if ok {\n\n", 1),
		"a constraint":     "//go:build ignore\n\n" + example,
		"an inner comment": strings.Replace(example, "return f()", "// return f()", 1),
	} {
		got := over(t, checkReadmeCode, files{"README.md": readme, "examples/a/main.go": other})
		if len(got) != 1 {
			t.Errorf("%s: %q", name, got)
		}
	}
	refuses(t, checkReadmeCode, files{"README.md": "```go\nnever closed\n", "examples/a/main.go": example}, "README.md:1:")
	refuses(t, checkReadmeCode, files{}, "README.md does not exist yet")
}
