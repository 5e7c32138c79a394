package archtest_test

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// checkInit finds init functions, which run unasked and in an order that nobody
// reads off the code.
func checkInit(t *tree) (faults []string) {
	for _, s := range t.files {
		for _, decl := range s.ast.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				faults = append(faults, t.at(f)+": init function: let the caller call it, or compute it where it is needed")
			}
		}
	}
	return faults
}

// checkVars finds package-level variables that are not evidently constant, and
// assignments to those that say they are.
//
// Test infrastructure is exempt: one server for all tests of a process is state
// by intent, and no service links it.
func checkVars(t *tree) (faults []string) {
	vars := map[string]map[string]bool{} // by folder and name
	for _, s := range t.production() {
		if s.dir == "dvtest" || s.dir == "internal/pgserver" {
			continue
		}
		for _, decl := range s.ast.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, spec := range gen.Specs {
				faults = append(faults, t.notConstant(gen, spec.(*ast.ValueSpec))...)
				remember(vars, s.dir, spec.(*ast.ValueSpec))
			}
		}
	}
	for _, s := range t.files {
		faults = append(faults, t.assignments(s, vars[s.dir])...)
	}
	return faults
}

// remember notes the names of the variables of a package.
func remember(vars map[string]map[string]bool, dir string, spec *ast.ValueSpec) {
	if vars[dir] == nil {
		vars[dir] = map[string]bool{}
	}
	for _, name := range spec.Names {
		vars[dir][name.Name] = true
	}
}

// notConstant applies the first sentence of the rule.
func (t *tree) notConstant(gen *ast.GenDecl, spec *ast.ValueSpec) (faults []string) {
	text := gen.Doc.Text() + spec.Doc.Text() + spec.Comment.Text()
	if strings.Contains(text, "constant") || embedded(gen.Doc) || embedded(spec.Doc) {
		return nil
	}
	for i, name := range spec.Names {
		if name.Name == "_" || i < len(spec.Values) && setOnce(spec.Values[i]) {
			continue
		}
		faults = append(faults, t.at(name)+": var "+name.Name+
			" is state of the package: put it into a value, or say in its comment that it is constant")
	}
	return faults
}

// embedded reports whether the compiler sets a variable from files.
func embedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed ")
	})
}

// setOnce reports whether a value is that of errors.New or of a Must function,
// such as regexp.MustCompile or subject.Must.
func setOnce(expr ast.Expr) bool {
	call, ok := expr.(*ast.CallExpr)
	if !ok {
		return false
	}
	fun := call.Fun
	switch e := fun.(type) { // a generic function that is told its types
	case *ast.IndexExpr:
		fun = e.X
	case *ast.IndexListExpr:
		fun = e.X
	}
	if sel, ok := fun.(*ast.SelectorExpr); ok {
		return identName(sel.X) == "errors" && sel.Sel.Name == "New" || strings.HasPrefix(sel.Sel.Name, "Must")
	}
	return strings.HasPrefix(identName(fun), "Must")
}

// identName returns the name of an identifier, and "" for anything else.
func identName(expr ast.Expr) string {
	if ident, ok := expr.(*ast.Ident); ok {
		return ident.Name
	}
	return ""
}

// assignments applies the second sentence to one file.
func (t *tree) assignments(s *source, vars map[string]bool) (faults []string) {
	if strings.HasSuffix(s.ast.Name.Name, "_test") {
		return nil // another package: it cannot assign to what it does not see
	}
	for _, decl := range s.ast.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		local := localNames(f)
		for _, name := range assigned(f.Body) {
			if vars[name.Name] && !local[name.Name] {
				faults = append(faults, t.at(name)+": assigns to var "+name.Name+" of the package, which is to be constant")
			}
		}
	}
	return faults
}

// assigned returns the variables that a body changes, or changes a part of.
func assigned(body *ast.BlockStmt) (names []*ast.Ident) {
	ast.Inspect(body, func(n ast.Node) bool {
		var targets []ast.Expr
		switch stmt := n.(type) {
		case *ast.AssignStmt:
			targets = stmt.Lhs
		case *ast.IncDecStmt:
			targets = []ast.Expr{stmt.X}
		case *ast.RangeStmt:
			targets = []ast.Expr{stmt.Key, stmt.Value}
		}
		for _, target := range targets {
			if name := variable(target); name != nil {
				names = append(names, name)
			}
		}
		return true
	})
	return names
}

// variable returns the variable that an assignment to expr changes.
func variable(expr ast.Expr) *ast.Ident {
	for {
		switch e := expr.(type) {
		case *ast.Ident:
			return e
		case *ast.IndexExpr:
			expr = e.X
		case *ast.SelectorExpr:
			expr = e.X
		case *ast.StarExpr:
			expr = e.X
		case *ast.ParenExpr:
			expr = e.X
		default:
			return nil
		}
	}
}

// localNames returns every name that a function declares, whatever the block: a
// name that is both a local and a package's variable in one function is taken
// for the local.
func localNames(f *ast.FuncDecl) map[string]bool {
	local := map[string]bool{}
	add := func(exprs ...ast.Expr) {
		for _, expr := range exprs {
			local[identName(expr)] = true
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch d := n.(type) {
		case *ast.Field: // receivers, parameters, results
			for _, name := range d.Names {
				add(name)
			}
		case *ast.ValueSpec:
			for _, name := range d.Names {
				add(name)
			}
		case *ast.AssignStmt:
			if d.Tok == token.DEFINE {
				add(d.Lhs...)
			}
		case *ast.RangeStmt:
			if d.Tok == token.DEFINE {
				add(d.Key, d.Value)
			}
		}
		return true
	})
	return local
}

func TestNoPackageHasAnInitFunction(t *testing.T) {
	t.Parallel()
	holds(t, checkInit)
	accepts(t, checkInit, files{"a/a.go": "package a\ntype T struct{}\nfunc (T) init() {}\nfunc initialise() {}"})
	refuses(t, checkInit, files{
		"a/a.go": "package a\nfunc init() {}", "b/b_test.go": "package b\nfunc init() {}",
	}, "a/a.go:2: init function", "b/b_test.go:2: init function")
}

func TestNoPackageHasMutableState(t *testing.T) {
	t.Parallel()
	holds(t, checkVars)
	accepts(t, checkVars, files{"a/a.go": `package a
const limit = 3
var ErrGone = errors.New("gone")
var _ I = (*T)(nil)
var pattern = regexp.MustCompile("x")
//go:embed x
var files embed.FS
//go:embed y
var text string
// names is constant: the names.
var names = []string{"a"}
// The tables are constant.
var (
	one = []int{1}
	two = map[int]int{}
)
var cmd, evt = subject.Must(subject.Cmd(1, "x")), MustBuild[int]()
func f(names []string) { names[0] = "b"; one := []int{2}; one[0]++ }
`, "a/a_test.go": "package a_test\nvar seen = map[string]bool{}\nfunc f() { names = nil }"})
	refuses(t, checkVars, files{"a/a.go": `package a
var counter int
var cache = map[string]int{}
var start, ErrX = time.Now(), errors.New("x")
var queue = list.New()
`}, "a/a.go:2: var counter is state", "var cache", "var start", "var queue")
	const table = "package a\n// t is constant.\nvar t = []struct{ n int }{{1}}\n"
	for _, change := range []string{"t = nil", "t[0].n = 2", "t[0].n++", "for t[0].n = range 3 {}", "func() { (t) = nil }()"} {
		refuses(t, checkVars, files{
			"a/a.go": table, "a/b.go": "package a\nfunc f() { " + change + " }",
			"a/export_test.go": "package a\nfunc g() { " + change + " }",
		}, "a/b.go:2: assigns to var t of the package", "a/export_test.go:2: assigns to var t")
	}
}
