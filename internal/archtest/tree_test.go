package archtest_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// modulePath is the root module. It is written here and not read from go.mod so
// that the layering table can be compared with import paths as they stand.
const modulePath = "codeberg.org/dataverket/messaging"

// tree is the repository as the rules see it.
type tree struct {
	fset  *token.FileSet
	files []*source         // Go files of the root module
	texts map[string]string // every text file, by path, nested modules included
}

// source is one Go file. Paths are relative to the root, with slashes; dir is
// "." for the root package.
type source struct {
	path, dir string
	isTest    bool
	text      string
	ast       *ast.File
}

// production returns the Go files that are not tests.
func (t *tree) production() []*source {
	return slices.DeleteFunc(slices.Clone(t.files), func(s *source) bool { return s.isTest })
}

// at names a place in a file, for the text of a fault.
func (t *tree) at(n ast.Node) string {
	p := t.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// readTree loads everything below the root of fsys.
func readTree(fsys fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), texts: map[string]string{}}
	modules := map[string]bool{} // folders with a go.mod, without the root
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		if path.Base(name) == "go.mod" && name != "go.mod" {
			modules[path.Dir(name)] = true
		}
		if utf8.Valid(data) && !bytes.ContainsRune(data, 0) {
			t.texts[name] = string(data)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, t.parse(modules)
}

// parse fills files, in the order of their paths.
func (t *tree) parse(modules map[string]bool) error {
	for name, text := range t.texts {
		if path.Ext(name) != ".go" || !ownGo(path.Dir(name), modules) {
			continue
		}
		// Object resolution stays on: the rule about state needs to tell a local
		// variable from one of the package.
		file, err := parser.ParseFile(t.fset, name, text, parser.ParseComments)
		if err != nil {
			return err
		}
		t.files = append(t.files, &source{
			path: name, dir: path.Dir(name), isTest: strings.HasSuffix(name, "_test.go"), text: text, ast: file,
		})
	}
	slices.SortFunc(t.files, func(a, b *source) int { return strings.Compare(a.path, b.path) })
	return nil
}

// ownGo reports whether Go files in dir belong to the root module.
func ownGo(dir string, modules map[string]bool) bool {
	for ; dir != "."; dir = path.Dir(dir) {
		base := path.Base(dir)
		if modules[dir] || base == "testdata" || base[0] == '_' || base[0] == '.' {
			return false
		}
	}
	return true
}

// repository reads the tree once for all tests. Files are opened through os, so
// the test cache knows them.
var repository = sync.OnceValues(func() (*tree, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module "+modulePath+"\n") {
			return readTree(os.DirFS(root))
		}
		if parent := filepath.Dir(root); parent != root {
			root = parent
			continue
		}
		return nil, fmt.Errorf("archtest: find root: no go.mod of %s above the working directory", modulePath)
	}
})

// rule returns the faults that it finds in a tree.
type rule func(*tree) []string

// holds runs a rule over the repository.
func holds(t *testing.T, check rule) {
	t.Helper()
	repo, err := repository()
	require.NoError(t, err)
	require.NotEmpty(t, repo.files, "a rule over nothing proves nothing")
	for _, fault := range check(repo) {
		t.Error(fault)
	}
}

// files is a tree in memory: text by path.
type files map[string]string

// over runs a rule over a tree in memory.
func over(t *testing.T, check rule, content files) []string {
	t.Helper()
	fsys := fstest.MapFS{"go.mod": {Data: []byte("module " + modulePath + "\n")}}
	for name, text := range content {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	repo, err := readTree(fsys)
	require.NoError(t, err)
	return check(repo)
}

// accepts demands that a rule finds nothing.
func accepts(t *testing.T, check rule, content files) {
	t.Helper()
	require.Empty(t, over(t, check, content))
}

// refuses demands that a rule finds exactly one fault for each wanted text, in
// order.
func refuses(t *testing.T, check rule, content files, want ...string) {
	t.Helper()
	got := over(t, check, content)
	require.Len(t, got, len(want), "%q", got)
	for i := range want {
		require.Contains(t, got[i], want[i])
	}
}

func TestGoCodeOfNestedModulesAndTestdataIsPassedBy(t *testing.T) {
	t.Parallel()
	broken := "this is not Go"
	repo := func(tr *tree) []string {
		var paths []string
		for _, s := range tr.files {
			paths = append(paths, s.path)
		}
		return paths
	}
	require.Equal(t, []string{"a/b/x.go", "a/x_test.go", "x.go"}, over(t, repo, files{
		"x.go": "package x", "a/b/x.go": "package x", "a/x_test.go": "package x",
		"test/bench/go.mod": "module bench", "test/bench/deep/x.go": broken, "tools/go.mod": "", "tools/x.go": broken,
		"a/testdata/x.go": broken, "_a/x.go": broken, ".a/b/x.go": broken, ".git/x.go": broken,
	}))
}
