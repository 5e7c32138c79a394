package contract

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// envelopePath is how a package that declares messages imports them.
const envelopePath = "codeberg.org/dataverket/messaging/envelope"

// declared is a message that a package-level variable declares.
type declared struct {
	variable string
	contract Contract // type and version alone
}

// declaredIn finds the messages of a service that the Go files of a folder declare
// with literals, tests excepted. A catalogue cannot know what was not given to it;
// the source does. What it cannot read it passes over: it helps memory, and proves
// nothing.
func declaredIn(dir, service string) (all []declared) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name) // by the test itself, so that its cache knows the file
		if err != nil {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
		if err != nil {
			continue
		}
		all = append(all, declaredBy(file, service)...)
	}
	return all
}

// declaredBy finds them in one file.
func declaredBy(file *ast.File, service string) (all []declared) {
	local := importName(file)
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.VAR || local == "" {
			continue
		}
		for _, spec := range group.Specs {
			v := spec.(*ast.ValueSpec)
			for i, value := range v.Values {
				if c, ok := messageOf(value, local); ok && strings.HasPrefix(c.Type, service+".") && i < len(v.Names) {
					all = append(all, declared{v.Names[i].Name, c})
				}
			}
		}
	}
	return all
}

// importName returns the name that a file has for package envelope, or "".
func importName(file *ast.File) string {
	for _, spec := range file.Imports {
		if path, _ := strconv.Unquote(spec.Path.Value); path != envelopePath {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return "envelope"
	}
	return ""
}

// messageOf reads envelope.MustEvent or envelope.MustCommand over a spec of literals.
func messageOf(value ast.Expr, local string) (c Contract, ok bool) {
	call, ok := value.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return c, false
	}
	fun := call.Fun
	if generic, ok := fun.(*ast.IndexExpr); ok {
		fun = generic.X
	}
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok || identOf(sel.X) != local {
		return c, false
	}
	spec, ok := call.Args[0].(*ast.CompositeLit)
	if !ok {
		return c, false
	}
	fields := literals(spec)
	version, err := strconv.Atoi(fields["Version"])
	switch {
	case err != nil || fields["Service"] == "" || fields["Entity"] == "":
		return c, false
	case sel.Sel.Name == "MustEvent" && fields["Verb"] != "":
		c.Type = fmt.Sprintf("%s.%s.%s", fields["Service"], fields["Entity"], fields["Verb"])
	case sel.Sel.Name == "MustCommand" && fields["Action"] != "":
		c.Type = fmt.Sprintf("%s.%s.%s.%s", fields["Service"], fields["Entity"], fields["Action"], requested)
	default:
		return c, false
	}
	c.Version = version
	return c, true
}

func identOf(expr ast.Expr) string {
	if ident, ok := expr.(*ast.Ident); ok {
		return ident.Name
	}
	return ""
}

// literals returns the fields of a spec that are literals, and the service, which is
// a constant of package subject that is called as it is.
func literals(spec *ast.CompositeLit) map[string]string {
	fields := map[string]string{}
	for _, element := range spec.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key := identOf(pair.Key)
		switch v := pair.Value.(type) {
		case *ast.BasicLit:
			text, err := strconv.Unquote(v.Value)
			if err != nil {
				text = v.Value
			}
			fields[key] = text
		case *ast.SelectorExpr:
			if key == "Service" {
				fields[key] = strings.ToLower(v.Sel.Name)
			}
		}
	}
	return fields
}

// unlisted returns what the source declares, and neither list knows.
func unlisted(all []declared, lists ...List) (texts []string) {
	for _, d := range all {
		known := false
		for _, l := range lists {
			_, there := l.find(d.contract)
			known = known || there
		}
		if !known {
			texts = append(texts, fmt.Sprintf("%s (%s)", d.variable, d.contract))
		}
	}
	return texts
}
