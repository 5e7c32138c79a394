package archtest_test

import (
	"fmt"
	"go/ast"
	"strings"
	"testing"
)

// Bounds of what one reader keeps in mind, in lines.
const (
	maxFile = 600
	maxFunc = 120
)

// checkFileLength finds files that are more than one thing.
func checkFileLength(t *tree) (faults []string) {
	for _, s := range t.files {
		lines := strings.Count(s.text, "\n")
		if lines > maxFile {
			faults = append(faults, fmt.Sprintf("%s: %d lines, at most %d: divide it by topic", s.path, lines, maxFile))
		}
	}
	return faults
}

// checkFuncLength finds functions that do too much, function literals included
// in the one that holds them.
func checkFuncLength(t *tree) (faults []string) {
	for _, s := range t.files {
		for _, decl := range s.ast.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := t.fset.Position(f.End()).Line - t.fset.Position(f.Pos()).Line + 1
			if lines > maxFunc {
				faults = append(faults, fmt.Sprintf("%s: function %s has %d lines, at most %d", t.at(f), f.Name.Name, lines, maxFunc))
			}
		}
	}
	return faults
}

func TestFilesAreAtMost600Lines(t *testing.T) {
	t.Parallel()
	holds(t, checkFileLength)
	file := func(lines int) string { return "package a\n" + strings.Repeat("\n", lines-1) }
	accepts(t, checkFileLength, files{"a/a.go": file(600)})
	refuses(t, checkFileLength, files{"a/a.go": file(601), "a/b_test.go": file(700)},
		"a/a.go: 601 lines, at most 600", "a/b_test.go: 700 lines")
}

func TestFunctionsAreAtMost120Lines(t *testing.T) {
	t.Parallel()
	holds(t, checkFuncLength)
	function := func(lines int) string { return "package a\nfunc f() {" + strings.Repeat("\n", lines-1) + "}\n" }
	accepts(t, checkFuncLength, files{"a/a.go": function(120)})
	refuses(t, checkFuncLength, files{"a/a.go": function(121), "a/a_test.go": function(200)},
		"a/a.go:2: function f has 121 lines, at most 120", "a/a_test.go:2: function f has 200 lines")
}
