// Package archtest holds the rules of the repository that a test can check. It
// has no code of its own: each rule is one test that reads the tree and whose
// name says what it demands.
//
//   - Layering: imports go down only, same level never imports same level, and a
//     package without a row in the table is refused, so that its place is decided
//     and not found out. Third-party modules have a table of their own.
//   - Documentation: every package, every exported identifier, every field of a
//     Config, Options or Request. Every field of a Config says its default.
//   - State: a package-level var of production code is the blank identifier, is
//     set by errors.New, by a Must function or by go:embed, or has a comment with
//     the word constant. No file of the package assigns to it or to a part of it.
//   - No init functions; no sleeps and no assert in tests; bounded lengths of
//     files and functions.
//   - README: short, and its Go code stands in a compiled example.
//   - No text names a machine's paths or the host of a package registry.
//   - Decision records are numbered without gaps and have the same four headings.
//
// # How the rules read the tree
//
// Files are found by walking from go.mod and read with go/parser. The tests never
// run the go command: the test cache follows the files that a test opens itself,
// not those of its children, so a rule that asks "go list" stays green from the
// cache after the import it forbids was added.
//
// Folders with a go.mod of their own are other modules: the rules for Go code
// pass them by, the rules for text do not. Folders named testdata, and those
// that begin with a dot or an underscore, hold no Go code of ours.
//
// # Testing
//
// A rule is a function from a tree to a list of faults. Each one is run twice:
// over the repository, where it must find nothing, and over small trees in
// memory that break it, since a rule that cannot fail is worth nothing.
package archtest
