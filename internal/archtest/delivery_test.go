package archtest_test

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// deliveryDoc tells for each failure what happens, and names the tests that prove
// it. A test that is named there says so in its comment, so that nobody changes
// it without knowing that it is a promise.
const deliveryDoc = "docs/DELIVERY.md"

// checkDelivery compares the table with the tests, both ways.
func checkDelivery(t *tree) (faults []string) {
	text, ok := t.texts[deliveryDoc]
	if !ok {
		return []string{deliveryDoc + " does not exist yet: write it"}
	}
	tests := t.proofs()
	named := map[string]bool{}
	failures := map[string]bool{}
	for i, line := range strings.Split(text, "\n") {
		failure, proofs, ok := deliveryRow(line)
		if !ok {
			continue
		}
		at := fmt.Sprintf("%s:%d", deliveryDoc, i+1)
		if failures[failure] {
			faults = append(faults, at+": the failure stands there twice")
		}
		failures[failure] = true
		if len(proofs) == 0 {
			faults = append(faults, at+": no test is named, as in `outbox.TestName`")
		}
		for _, name := range proofs {
			named[name] = true
			if marked, exists := tests[name]; !exists {
				faults = append(faults, at+": there is no test "+name)
			} else if !marked {
				faults = append(faults, at+": the comment of "+name+" does not mention "+deliveryDoc)
			}
		}
	}
	for name, marked := range tests {
		if marked && !named[name] {
			faults = append(faults, name+" mentions "+deliveryDoc+" and has no row there")
		}
	}
	slices.Sort(faults)
	return faults
}

// deliveryRow reads a line of the table: | failure | what happens | tests |.
func deliveryRow(line string) (failure string, proofs []string, ok bool) {
	cells := strings.Split(strings.Trim(line, "| "), "|")
	if !strings.HasPrefix(line, "|") || len(cells) != 3 || strings.HasPrefix(cells[0], "-") || strings.TrimSpace(cells[2]) == "Proved by" {
		return "", nil, false
	}
	for _, match := range regexp.MustCompile("`([a-z]+\\.Test[A-Za-z0-9_]+)`").FindAllStringSubmatch(cells[2], -1) {
		proofs = append(proofs, match[1])
	}
	return strings.TrimSpace(cells[0]), proofs, true
}

// proofs returns all tests, as package.TestName, and whether the comment of each
// mentions the table.
func (t *tree) proofs() map[string]bool {
	tests := map[string]bool{}
	for _, s := range t.files {
		if !s.isTest || strings.HasPrefix(s.dir, "internal/archtest") {
			continue
		}
		for _, decl := range s.ast.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				pkg := strings.TrimSuffix(s.ast.Name.Name, "_test")
				tests[pkg+"."+f.Name.Name] = strings.Contains(f.Doc.Text(), deliveryDoc)
			}
		}
	}
	return tests
}

func TestEachRowOfDeliveryHasItsTestAndTheTestsKnowIt(t *testing.T) {
	t.Parallel()
	holds(t, checkDelivery)
	const head = "| Failure | What happens | Proved by |\n|---|---|---|\n"
	const row = "| it dies | it lives | `outbox.TestIt`, `inbox.TestToo` |\n"
	const marked = "package %s_test\n\n// Row of docs/DELIVERY.md.\nfunc %s(t *testing.T) {}\n"
	good := files{deliveryDoc: head + row,
		"outbox/a_test.go": fmt.Sprintf(marked, "outbox", "TestIt"), "inbox/a_test.go": fmt.Sprintf(marked, "inbox", "TestToo")}
	with := func(path, text string) files {
		changed := files{}
		for name, old := range good {
			changed[name] = old
		}
		changed[path] = text
		return changed
	}
	accepts(t, checkDelivery, good)
	refuses(t, checkDelivery, files{}, "does not exist yet")
	refuses(t, checkDelivery, with("outbox/a_test.go", "package outbox_test\n"), "DELIVERY.md:3: there is no test outbox.TestIt")
	refuses(t, checkDelivery, with("outbox/a_test.go", "package outbox_test\n\nfunc TestIt(t *testing.T) {}\n"), "the comment of outbox.TestIt does not mention")
	refuses(t, checkDelivery, with("outbox/b_test.go", fmt.Sprintf(marked, "outbox", "TestOther")), "outbox.TestOther mentions docs/DELIVERY.md and has no row there")
	refuses(t, checkDelivery, with(deliveryDoc, head+row+"| more | nothing | none |\n"), "DELIVERY.md:4: no test is named")
	refuses(t, checkDelivery, with(deliveryDoc, head+row+row), "DELIVERY.md:4: the failure stands there twice")
}
