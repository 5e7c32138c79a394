package archtest_test

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Levels, as in the layering diagram. Internal packages stand below their lowest
// user and so between the levels of the public ones.
const (
	level0     = 0
	level1     = 10
	belowL2    = 15
	level2     = 20
	belowL3    = 25
	level3     = 30
	level4     = 40
	forTesting = 45 // test infrastructure: tests import it, and what stands above
	onTesting  = 47 // test infrastructure that is made of other
	level5     = 50
	noLevel    = 99 // imported by nobody
)

// layers is constant: the level of every package. A path that ends in /... is a
// group: one place for all packages below it, which may import one another. A
// package under the internal folder of another has the place of its owner.
var layers = map[string]int{
	"subject":             level0,
	"internal/strictjson": level0,
	"internal/backoff":    level0,
	"internal/bounds":     level0,
	"internal/failpoint":  level0,
	"internal/instance":   level0,
	"internal/jsontype":   level0,
	"internal/panics":     level0,
	"internal/sleep":      level0,
	"internal/testsignal": level0,
	"health":              level0,
	"envelope":            level1,
	"internal/pgschema":   belowL2,
	"internal/processed":  belowL2,
	"contract":            level2,
	"topology":            level2,
	"cloudevents":         level2,
	"natsconn":            level2,
	"migrate":             level2,
	"tenant":              level2,
	"internal/telemetry":  belowL3,
	"internal/pass":       belowL3,
	"outbox":              level3,
	"inbox":               level3,
	"consumer":            level3,
	"dlq":                 level3,
	"history":             level3,
	"rpc":                 level3,
	"sites":               level3,
	"task":                level3,
	"edge":                level4,
	"internal/pgserver":   forTesting,
	"internal/natsserver": forTesting,
	"internal/faultlink":  forTesting,
	"internal/twosites":   onTesting,
	"dvtest":              level5,
	"cmd/dvmsg/...":       level5,
	"examples/...":        level5,
	"internal/archtest":   noLevel,
	"internal/tutorial":   noLevel,
	"internal/errorindex": noLevel,
	".":                   level0, // documentation only
}

// thirdParty is constant: which packages of ours may import a module, tests
// excepted, which may import all that is listed. A module without a row is a new
// dependency, and the default answer to that is no.
var thirdParty = map[string][]string{
	"github.com/jackc/pgx/v5": {"outbox", "inbox", "migrate", "task", "tenant", "internal/pgschema", "internal/pgserver",
		"dvtest", "cmd/dvmsg/...", "examples/..."},
	"github.com/nats-io/nats.go": {"natsconn", "topology", "outbox", "consumer", "dlq", "history", "rpc", "sites", "internal/pass", "internal/natsserver", "internal/twosites",
		"dvtest", "cmd/dvmsg/...", "examples/..."},
	"github.com/google/uuid": {"envelope", "dlq"},
	// The API only, and where a Config names a provider.
	"go.opentelemetry.io/otel":           {"internal/telemetry", "outbox", "consumer", "sites", "examples/..."},
	"go.opentelemetry.io/otel/sdk":       {"examples/..."},
	"go.opentelemetry.io/otel/exporters": {"examples/..."},
	"github.com/nats-io/nats-server/v2":  {"internal/natsserver", "internal/twosites", "dvtest", "cmd/dvmsg/...", "examples/..."},
	"github.com/stretchr/testify":        {"internal/natsserver", "dvtest", "cmd/dvmsg/...", "examples/..."},
	"go.yaml.in/yaml/v3":                 {},
	"go.uber.org/goleak":                 {"internal/natsserver", "dvtest", "cmd/dvmsg/...", "examples/..."},
	"golang.org/x/sync":                  {"cmd/dvmsg/...", "examples/..."},
}

// place returns the row of a package: its own, its owner's, or that of a group.
func place(dir string) (row string, found bool) {
	if owner, _, nested := strings.Cut(dir, "/internal/"); nested {
		dir = owner
	}
	if _, ok := layers[dir]; ok {
		return dir, true
	}
	for at := dir; ; at = path.Dir(at) {
		if _, ok := layers[at+"/..."]; ok {
			return at + "/...", true
		}
		if at == "." {
			return "", false
		}
	}
}

// checkRows finds packages whose place nobody decided.
func checkRows(t *tree) (faults []string) {
	seen := map[string]bool{}
	for _, s := range t.files {
		if _, ok := place(s.dir); !ok && !seen[s.dir] {
			seen[s.dir] = true
			faults = append(faults, fmt.Sprintf("%s: package has no row in the table of layers: decide its level", s.dir))
		}
	}
	return faults
}

// checkLayers finds imports of our own packages that do not go down.
func checkLayers(t *tree) (faults []string) {
	for _, s := range t.production() {
		from, ok := place(s.dir)
		for _, spec := range s.ast.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			dir, ours := ownDir(name)
			if !ours || !ok {
				continue
			}
			if fault := layerFault(from, dir); fault != "" {
				faults = append(faults, t.at(spec)+": "+s.dir+" imports "+dir+": "+fault)
			}
		}
	}
	return faults
}

// layerFault judges one import of a package of ours.
func layerFault(from, dir string) string {
	to, ok := place(dir)
	switch {
	case !ok:
		return "it has no row in the table of layers"
	case from == to:
		return "" // inside one group, or an owner and its internal folder
	case layers[to] == noLevel:
		return "nobody imports it"
	case layers[from] <= forTesting && (layers[to] == forTesting || layers[to] == onTesting):
		return "it is test infrastructure: only tests, dvtest, cmd and examples import it"
	case layers[from] == layers[to]:
		return "both are of one level: move what they share below"
	case layers[from] < layers[to]:
		return "imports go down only"
	}
	return ""
}

// ownDir returns the folder of an import path of the root module.
func ownDir(importPath string) (dir string, ours bool) {
	if importPath == modulePath {
		return ".", true
	}
	return strings.CutPrefix(importPath, modulePath+"/")
}

// checkThirdParty finds imports of foreign modules where they may not be.
func checkThirdParty(t *tree) (faults []string) {
	for _, s := range t.files {
		for _, spec := range s.ast.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			if _, ours := ownDir(name); ours || !strings.Contains(strings.Split(name, "/")[0], ".") {
				continue // ours, or the standard library
			}
			if fault := thirdPartyFault(s, name); fault != "" {
				faults = append(faults, t.at(spec)+": "+s.dir+" imports "+name+": "+fault)
			}
		}
	}
	return faults
}

// thirdPartyFault judges one import of a foreign package.
func thirdPartyFault(s *source, name string) string {
	module := thirdPartyRow(name)
	row, _ := place(s.dir)
	switch {
	case module == "":
		return "the module has no row in the table of third parties"
	case s.isTest || slices.Contains(thirdParty[module], row):
		return ""
	}
	return "only tests and " + strings.Join(thirdParty[module], ", ") + " may"
}

// thirdPartyRow returns the row of a foreign package, the longest that fits: a
// module may have others below its name.
func thirdPartyRow(name string) (row string) {
	for module := range thirdParty {
		if (name == module || strings.HasPrefix(name, module+"/")) && len(module) > len(row) {
			row = module
		}
	}
	return row
}

func TestEveryPackageHasAPlaceInTheLayers(t *testing.T) {
	t.Parallel()
	holds(t, checkRows)
	accepts(t, checkRows, files{
		"subject/x.go": "package subject", "cmd/dvmsg/a/b/x.go": "package b", "outbox/internal/store/x.go": "package store",
		"internal/pgschema/x.go": "package pgschema", "examples/x.go": "package examples", "x.go": "package messaging",
	})
	refuses(t, checkRows, files{
		"util/x.go": "package util", "util/y.go": "package util", "internal/misc/x_test.go": "package misc",
		"cmd/other/x.go": "package main", "subject/deep/x.go": "package deep",
	}, "cmd/other: package has no row", "internal/misc: package has no row", "subject/deep:", "util: package has no row")
}

func TestImportsGoDownOnly(t *testing.T) {
	t.Parallel()
	holds(t, checkLayers)
	imports := func(name, path string) string {
		return "package " + name + "\n\nimport _ \"" + modulePath + path + "\"\n"
	}
	accepts(t, checkLayers, files{
		"outbox/a.go": imports("outbox", "/topology"), "outbox/b.go": imports("outbox", "/outbox/internal/store"),
		"envelope/a.go": imports("envelope", "/internal/strictjson"), "inbox/a.go": imports("inbox", "/internal/telemetry"),
		"dvtest/a.go": imports("dvtest", "/internal/natsserver"), "internal/twosites/a.go": imports("twosites", "/internal/natsserver"),
		"examples/a/a.go": imports("main", "/examples/events"),
		"inbox/x_test.go": imports("inbox_test", "/dvtest"), "internal/pgserver/a.go": imports("pgserver", "/internal/backoff"),
	})
	for _, bad := range []struct{ dir, imported, want string }{
		{"subject", "/envelope", "subject/a.go:3: subject imports envelope: imports go down only"},
		{"subject", "/internal/strictjson", "both are of one level"},
		{"consumer", "/inbox", "both are of one level: move what they share below"},
		{"topology", "/internal/telemetry", "imports go down only"},
		{"outbox/internal/store", "/dlq", "both are of one level"},
		{"outbox/internal/store", "/dvtest", "imports go down only"},
		{"outbox", "/internal/natsserver", "it is test infrastructure"},
		{"outbox", "/internal/twosites", "it is test infrastructure"},
		{"internal/pgserver", "/internal/natsserver", "it is test infrastructure"},
		{"dvtest", "/examples/a", "both are of one level"},
		{"dvtest", "/internal/archtest", "nobody imports it"},
		{"dvtest", "/util", "it has no row"},
		{".", "/envelope", "imports envelope: imports go down only"},
	} {
		refuses(t, checkLayers, files{path.Join(bad.dir, "a.go"): imports("x", bad.imported)}, bad.want)
	}
}

func TestThirdPartyModulesStandOnlyWhereTheTableSays(t *testing.T) {
	t.Parallel()
	holds(t, checkThirdParty)
	imports := func(path string) string { return "package x\n\nimport _ \"" + path + "\"\n" }
	accepts(t, checkThirdParty, files{
		"outbox/a.go": imports("github.com/jackc/pgx/v5/pgxpool"), "dlq/a.go": imports("github.com/google/uuid"),
		"outbox/m.go": imports("go.opentelemetry.io/otel/metric"), "outbox/m_test.go": imports("go.opentelemetry.io/otel/sdk/metric"),
		"subject/a.go": imports("encoding/json"), "subject/a_test.go": imports("github.com/nats-io/nats-server/v2/server"),
		"cmd/dvmsg/deep/a.go":      imports("golang.org/x/sync/errgroup"),
		"natsconn/internal/b/a.go": imports("github.com/nats-io/nats.go"),
	})
	for dir, imported := range map[string]string{
		"consumer": "github.com/jackc/pgx/v5", "subject": "github.com/nats-io/nats.go", "topology": "github.com/google/uuid",
		"natsconn": "github.com/nats-io/nats-server/v2/server", "envelope": "github.com/stretchr/testify/require",
		"outbox": "golang.org/x/sync/errgroup", "dvtest": "golang.org/x/sync/errgroup",
		"inbox": "go.opentelemetry.io/otel/metric", "internal/telemetry": "go.opentelemetry.io/otel/sdk/metric",
	} {
		refuses(t, checkThirdParty, files{dir + "/a.go": imports(imported)}, dir+" imports "+imported+": only tests and ")
	}
	refuses(t, checkThirdParty, files{"dvtest/a_test.go": imports("github.com/x/y")}, "the module has no row")
	refuses(t, checkThirdParty, files{"outbox/a.go": imports("github.com/jackc/pgx/v50")}, "the module has no row")
}
