package archtest_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// checkPackageDocs finds packages without a package comment in the form that go
// doc expects. One file of the package is enough.
func checkPackageDocs(t *tree) (faults []string) {
	documented := map[string]bool{}
	var order []*source // one file for each package
	for _, s := range t.production() {
		if _, seen := documented[s.dir]; !seen {
			order = append(order, s)
		}
		documented[s.dir] = documented[s.dir] || packageDoc(s.ast)
	}
	for _, s := range order {
		if !documented[s.dir] {
			faults = append(faults, fmt.Sprintf("%s: package %s has no comment that begins with %q",
				s.dir, s.ast.Name.Name, docStart(s.ast)))
		}
	}
	return faults
}

// packageDoc reports whether a file has the package comment.
func packageDoc(f *ast.File) bool {
	return f.Doc != nil && strings.HasPrefix(f.Doc.Text(), docStart(f))
}

// docStart is how the package comment begins; for a program the name of the
// command stands there, which is not that of the package.
func docStart(f *ast.File) string {
	if f.Name.Name == "main" {
		return "Command "
	}
	return "Package " + f.Name.Name + " "
}

// checkExports finds exported identifiers without a comment.
func checkExports(t *tree) (faults []string) {
	for _, s := range t.production() {
		for _, decl := range s.ast.Decls {
			for _, name := range undocumented(decl) {
				faults = append(faults, t.at(name)+": exported "+name.Name+" has no comment")
			}
		}
	}
	return faults
}

// undocumented returns the exported names of a declaration that lack a comment.
func undocumented(decl ast.Decl) (names []*ast.Ident) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || receiver(d).IsExported()) {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		// Without parentheses the comment belongs to the declaration. The comment of
		// a group says what the group is and not what each member means, unless it
		// names the member, as may the comment of a neighbour.
		lone := d.Lparen == token.NoPos && d.Doc != nil
		comments := groupComments(d)
		for _, spec := range d.Specs {
			names = append(names, slices.DeleteFunc(undocumentedSpec(spec, lone), func(name *ast.Ident) bool {
				return regexp.MustCompile(`\b` + name.Name + `\b`).MatchString(comments)
			})...)
		}
	}
	return names
}

// groupComments returns the comments above a const or var group and its members.
func groupComments(d *ast.GenDecl) string {
	if d.Tok == token.TYPE {
		return "" // each type says for itself what it is
	}
	text := d.Doc.Text()
	for _, spec := range d.Specs {
		if value, ok := spec.(*ast.ValueSpec); ok {
			text += value.Doc.Text()
		}
	}
	return text
}

// receiver returns the name of the type that a method belongs to.
func receiver(d *ast.FuncDecl) *ast.Ident {
	expr := d.Recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.ParenExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.IndexListExpr:
			expr = e.X
		case *ast.Ident:
			return e
		default:
			return ast.NewIdent("")
		}
	}
}

// undocumentedSpec does the same for one const, var or type.
func undocumentedSpec(spec ast.Spec, documented bool) (names []*ast.Ident) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		if !documented && s.Doc == nil && s.Comment == nil {
			names = exported(s.Names)
		}
	case *ast.TypeSpec:
		if !documented && s.Doc == nil && s.Comment == nil {
			names = exported([]*ast.Ident{s.Name})
		}
		if s.Name.IsExported() {
			names = append(names, undocumentedMembers(s)...)
		}
	}
	return names
}

// undocumentedMembers returns the methods of an interface and the fields of a
// struct whose fields are for callers to fill in.
func undocumentedMembers(s *ast.TypeSpec) (names []*ast.Ident) {
	var members *ast.FieldList
	switch kind := s.Type.(type) {
	case *ast.InterfaceType:
		members = kind.Methods
	case *ast.StructType:
		if callerFills(s.Name.Name) {
			members = kind.Fields
		}
	}
	if members == nil {
		return nil
	}
	for _, member := range members.List {
		if member.Doc == nil && member.Comment == nil {
			names = append(names, exported(member.Names)...)
		}
	}
	return names
}

// callerFills tells the structs whose fields are the documentation by their name.
func callerFills(typeName string) bool {
	return strings.HasSuffix(typeName, "Config") || strings.HasSuffix(typeName, "Options") ||
		strings.HasSuffix(typeName, "Request")
}

// exported returns the exported ones of some names.
func exported(all []*ast.Ident) (names []*ast.Ident) {
	for _, name := range all {
		if name.IsExported() {
			names = append(names, name)
		}
	}
	return names
}

// checkDefaults finds Config fields whose comment leaves open what the zero
// value does.
func checkDefaults(t *tree) (faults []string) {
	for _, s := range t.production() {
		ast.Inspect(s.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || !spec.Name.IsExported() || !strings.HasSuffix(spec.Name.Name, "Config") {
				return true
			}
			if fields, ok := spec.Type.(*ast.StructType); ok {
				faults = append(faults, withoutDefault(t, spec.Name.Name, fields)...)
			}
			return true
		})
	}
	return faults
}

// withoutDefault judges the fields of one Config.
func withoutDefault(t *tree, typeName string, fields *ast.StructType) (faults []string) {
	for _, field := range fields.Fields.List {
		text := strings.ToLower(field.Doc.Text() + field.Comment.Text())
		if strings.Contains(text, "default") || strings.Contains(text, "required") {
			continue
		}
		for _, name := range exported(field.Names) {
			faults = append(faults, t.at(name)+": "+typeName+"."+name.Name+" does not say its default, or that it is required")
		}
	}
	return faults
}

func TestEveryPackageHasAPackageComment(t *testing.T) {
	t.Parallel()
	holds(t, checkPackageDocs)
	accepts(t, checkPackageDocs, files{
		"a/doc.go": "// Package a is.\npackage a", "a/z.go": "package a",
		"cmd/x/main.go": "// Command x does.\npackage main", "b/only_test.go": "package b",
	})
	refuses(t, checkPackageDocs, files{
		"a/x.go": "package a", "a/y.go": "package a", "b/x.go": "// It is.\npackage b",
		"c/x.go": "// Package c is.\n\npackage c", "d/x.go": "// Program d\npackage main", "d/x_test.go": "// Command d\npackage main",
	}, `a: package a has no comment that begins with "Package a "`, "b: package b", "c: package c", `"Command "`)
}

func TestEveryExportedIdentifierIsDocumented(t *testing.T) {
	t.Parallel()
	holds(t, checkExports)
	accepts(t, checkExports, files{"a/a.go": `package a
// Doc.
const A = 1
const (
	// Doc.
	B = 1
	C = 2 // doc
	// E and H are.
	E = 3
	H = 4
)
// T is.
type T[K any] struct{ Field int }
// M does.
func (t *T[K]) M() {}
type u struct{}
func (u) M() {}
func f() {}
var x, y int
// RunConfig is.
type RunConfig struct {
	A int // doc
	// Doc.
	B, C int
	d int
}
`, "a/a_test.go": "package a\nfunc Exported() {}"})
	refuses(t, checkExports, files{"a/a.go": `package a
const A = 1
// Group.
const (
	B = 1

	C = 2 // doc
	// Elements are.
	H = 3
	El = 4
)
// K and L are.
type (
	K int
	L int
)
var x, D int
type T struct{ Field int }
func F() {}
func (*T) M() {}
// G is generic.
type G[K, V any] struct{}
func (g G[K, V]) M() {}
// I is.
type I interface { Do() }
// RunConfig is.
type RunConfig struct { Free int }
// RunOptions are.
type RunOptions struct { Free int }
// RunRequest is.
type RunRequest struct {
	By, Reason string
}
`}, "a/a.go:2: exported A", "exported B", "exported El", "exported K", "exported L", "exported D", "exported T", "exported F", "exported M", "exported M",
		"exported Do", "exported Free", "exported Free", "exported By", "exported Reason")
}

func TestEveryConfigFieldSaysItsDefault(t *testing.T) {
	t.Parallel()
	holds(t, checkDefaults)
	accepts(t, checkDefaults, files{"a/a.go": `package a
type Config struct {
	// A is. Default 3.
	A int
	B string // required
	c int
}
type Options struct { A int }
`})
	refuses(t, checkDefaults, files{"a/a.go": `package a
type RelayConfig struct {
	A, B int // counts
	// C is.
	C int
}
`}, "a/a.go:3: RelayConfig.A does not say its default", "RelayConfig.B", "RelayConfig.C")
}
