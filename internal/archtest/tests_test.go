package archtest_test

import (
	"go/ast"
	"path"
	"slices"
	"strconv"
	"testing"
)

// checkSleeps finds sleeps in tests. A test that sleeps is slow on a good day and
// wrong on a bad one: it waits on a queried fact or a channel instead.
func checkSleeps(t *tree) []string {
	return t.testCalls("time", func(name string) string {
		if name == "Sleep" {
			return "sleep in a test: wait on a fact (require.Eventually) or a channel"
		}
		return ""
	})
}

// checkAssert finds uses of testify's assert, which goes on after a failure.
// CollectT is the exception: require.EventuallyWithT takes it.
func checkAssert(t *tree) []string {
	return t.testCalls("github.com/stretchr/testify/assert", func(name string) string {
		if name == "CollectT" {
			return ""
		}
		return "assert." + name + " goes on after a failure: use require"
	})
}

// checkSkips finds tests that skip. A promise that is skipped is none: what a test
// needs is there or fails it. What dvtest gives leaves tests out of -short for the
// services' sake, and nothing else does.
func checkSkips(t *tree) (faults []string) {
	for _, s := range t.files {
		if !s.isTest {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
				faults = append(faults, t.at(sel)+": a test skips: let it run, or fail and say what is missing")
			}
			return true
		})
	}
	return faults
}

// testCalls judges every use of an imported package in the tests.
func (t *tree) testCalls(importPath string, judge func(name string) string) (faults []string) {
	for _, s := range t.files {
		local := s.importName(importPath)
		if !s.isTest || local == "" {
			continue
		}
		if local == "." {
			faults = append(faults, s.path+": imports "+importPath+" with a dot, which hides its uses")
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || identName(sel.X) != local {
				return true
			}
			if fault := judge(sel.Sel.Name); fault != "" {
				faults = append(faults, t.at(sel)+": "+fault)
			}
			return true
		})
	}
	return faults
}

// importName returns the name by which a file knows an imported package whose
// own name is the last element of its path, or "".
func (s *source) importName(importPath string) string {
	for _, spec := range s.ast.Imports {
		if name, _ := strconv.Unquote(spec.Path.Value); name != importPath {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

func TestNoTestSleeps(t *testing.T) {
	t.Parallel()
	holds(t, checkSleeps)
	accepts(t, checkSleeps, files{
		"a/a.go":      "package a\nimport \"time\"\nfunc f() { time.Sleep(1) }",
		"a/a_test.go": "package a\nimport \"time\"\nvar d = time.Second\nfunc f() { x.Sleep(d) }",
	})
	refuses(t, checkSleeps, files{
		"a/a_test.go": "package a\nimport \"time\"\nfunc f() { time.Sleep(1) }",
		"a/b_test.go": "package a\nimport clock \"time\"\nvar sleep = clock.Sleep",
		"a/c_test.go": "package a\nimport . \"time\"\nvar sleep = Sleep",
	}, "a/a_test.go:3: sleep in a test", "a/b_test.go:3: sleep in a test", "a/c_test.go: imports time with a dot")
}

func TestNoTestSkips(t *testing.T) {
	t.Parallel()
	holds(t, checkSkips)
	accepts(t, checkSkips, files{
		"a/a.go":      "package a\nfunc f(tb testing.TB) { tb.Skipf(\"\") }",
		"a/a_test.go": "package a\nfunc f(t *testing.T) { t.Fail() }",
	})
	refuses(t, checkSkips, files{
		"a/a_test.go": "package a\nfunc f(t *testing.T) { t.Skip() }",
		"a/b_test.go": "package a\nfunc f(tb testing.TB) { tb.SkipNow() }",
	}, "a/a_test.go:2: a test skips", "a/b_test.go:2: a test skips")
}

func TestTestsUseRequireAndNotAssert(t *testing.T) {
	t.Parallel()
	holds(t, checkAssert)
	const lib = "package a\nimport \"github.com/stretchr/testify/assert\"\n"
	accepts(t, checkAssert, files{"a/a_test.go": lib + "func f(c *assert.CollectT) { require.True(c, true) }"})
	refuses(t, checkAssert, files{"a/a_test.go": lib + "func f() { assert.True(t, true) }"},
		"a/a_test.go:3: assert.True goes on after a failure")
}
