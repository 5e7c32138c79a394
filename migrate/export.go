package migrate

import (
	"fmt"
	"strings"
)

// Export returns all migrations as SQL for psql or for a migration tool of the
// service's own, with the bookkeeping, so that [Verify] is satisfied after it ran.
// Each migration is a transaction; run it with "psql -v ON_ERROR_STOP=1". On a
// database that has some of them already use [ExportAfter].
func Export(cfg Config) (string, error) { return ExportAfter(cfg, 0) }

// ExportAfter is [Export] for a database at the given version: it leaves out the
// migrations up to that one. From 0 (all) to [Latest] (none).
func ExportAfter(cfg Config, version int) (string, error) {
	p, err := newPlan(cfg)
	if err != nil {
		return "", err
	}
	if version < 0 || version > p.latest() {
		return "", fmt.Errorf("migrate: export after version %d: this library has versions 1 to %d", version, p.latest())
	}
	return p.export(version), nil
}

func (p plan) export(after int) string {
	var script strings.Builder
	fmt.Fprintf(&script, "-- Tables of codeberg.org/dataverket/messaging, versions %d to %d, in schema %s.\n", after+1, p.latest(), p.quoted)
	for _, m := range p.migrations[after:] {
		fmt.Fprintf(&script, "\n-- %s\nbegin;\n", m)
		script.WriteString(p.fill(guardText + historyText))
		script.WriteString("\n")
		script.WriteString(p.applyText(m))
		script.WriteString("commit;\n")
	}
	return script.String()
}
