package archtest_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// errorIndex is where a reader looks an error up.
const errorIndex = "docs/ERRORS.md"

// indexed is a row of the index: the name of an error with its package.
var indexed = regexp.MustCompile("^\\| `([a-z]+\\.[A-Z]\\w*)` \\|")

// checkErrorIndex finds exported errors of the public packages that the index does
// not list, and rows about what does not exist.
func checkErrorIndex(t *tree) (faults []string) {
	text, ok := t.texts[errorIndex]
	if !ok {
		return []string{errorIndex + " does not exist"}
	}
	exist := t.exportedErrors()
	listed := map[string]bool{}
	for i, line := range strings.Split(text, "\n") {
		found := indexed.FindStringSubmatch(line)
		switch {
		case found == nil:
		case exist[found[1]] == "":
			faults = append(faults, fmt.Sprintf("%s:%d: %s does not exist", errorIndex, i+1, found[1]))
		case listed[found[1]]:
			faults = append(faults, fmt.Sprintf("%s:%d: %s has two rows", errorIndex, i+1, found[1]))
		default:
			listed[found[1]] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(exist)) {
		if !listed[name] {
			faults = append(faults, fmt.Sprintf("%s: %s has no row in %s: say what it means and what to do", exist[name], name, errorIndex))
		}
	}
	return faults
}

// exportedErrors returns where each is declared: sentinels, which are variables
// called Err…, and types with a method Error.
func (t *tree) exportedErrors() map[string]string {
	found := map[string]string{}
	for _, s := range t.production() {
		if !public(s.dir) {
			continue
		}
		for _, decl := range s.ast.Decls {
			for _, name := range errorNames(decl) {
				found[s.ast.Name.Name+"."+name.Name] = t.at(name)
			}
		}
	}
	return found
}

// public reports whether services import what is in dir.
func public(dir string) bool {
	first, _, _ := strings.Cut(dir, "/")
	return !slices.Contains([]string{".", "cmd", "examples", "internal", "test"}, first) && path.Base(dir) != "internal" && !strings.Contains(dir, "/internal/")
}

// errorNames returns the errors that one declaration makes.
func errorNames(decl ast.Decl) (names []*ast.Ident) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv != nil && d.Name.Name == "Error" && d.Type.Params.NumFields() == 0 && d.Type.Results.NumFields() == 1 {
			names = exported([]*ast.Ident{receiver(d)})
		}
	case *ast.GenDecl:
		if d.Tok != token.VAR {
			return nil
		}
		for _, spec := range d.Specs {
			for _, name := range exported(spec.(*ast.ValueSpec).Names) {
				if strings.HasPrefix(name.Name, "Err") {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

func TestEveryErrorIsInTheIndexAndNothingElse(t *testing.T) {
	t.Parallel()
	holds(t, checkErrorIndex)
	const code = "package a\n\nvar (\n\tErrA, errB error\n\tOther int\n)\n\ntype FieldError struct{}\n\nfunc (e *FieldError) Error() string { return \"\" }\n\ntype hidden struct{}\n\nfunc (hidden) Error() string { return \"\" }\n"
	const page = "| error | means |\n|---|---|\n| `a.ErrA` | x |\n| `a.FieldError` | x |\n"
	accepts(t, checkErrorIndex, files{"a/a.go": code, errorIndex: page,
		"a/a_test.go": "package a\nvar ErrTest error", "internal/b/b.go": "package b\nvar ErrB error", "cmd/c/c.go": "package main\nvar ErrC error"})
	refuses(t, checkErrorIndex, files{"a/a.go": code, errorIndex: ""},
		"a/a.go:4: a.ErrA has no row", "a/a.go:10: a.FieldError has no row")
	refuses(t, checkErrorIndex, files{"a/a.go": code, errorIndex: page + "| `a.ErrGone` | x |\n| `a.ErrA` | again |\n"},
		"docs/ERRORS.md:5: a.ErrGone does not exist", "docs/ERRORS.md:6: a.ErrA has two rows")
	refuses(t, checkErrorIndex, files{"a/a.go": code}, "docs/ERRORS.md does not exist")
}
