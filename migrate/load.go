package migrate

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed sql
var files embed.FS

// migration is one numbered SQL file.
type migration struct {
	version  int
	name     string
	text     string // with the placeholder
	checksum string // SHA-256 of text, hex
}

// String is the name as operators see it: 0001_outbox.
func (m migration) String() string { return fmt.Sprintf("%04d_%s", m.version, m.name) }

// Latest is the version of the schema that this library needs: the number of
// its newest migration.
func Latest() int {
	migrations, err := embedded()
	if err != nil {
		return 0 // the package's own tests load the folder: it never fails in a release
	}
	return len(migrations)
}

func embedded() ([]migration, error) {
	return load(files, "sql")
}

// load reads a folder of migrations, checks it as a whole and returns them in
// order. All faults are reported at once.
func load(fsys fs.FS, dir string) ([]migration, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("migrate: read folder: %w", err)
	}
	var found []migration
	var faults []error
	for _, entry := range entries {
		m, err := loadFile(fsys, dir, entry)
		if err != nil {
			faults = append(faults, fmt.Errorf("migrate: load %s: %w", entry.Name(), err))
			continue
		}
		found = append(found, m)
	}
	// By number: a file system may list in any order.
	slices.SortStableFunc(found, func(a, b migration) int { return a.version - b.version })
	// A file that could not be read leaves a gap that is not one.
	if len(faults) == 0 {
		faults = checkNumbers(found)
	}
	return found, errors.Join(faults...)
}

// loadFile reads and checks one file.
func loadFile(fsys fs.FS, dir string, entry fs.DirEntry) (migration, error) {
	version, name, err := parseName(entry.Name())
	if err != nil {
		return migration{}, err
	}
	content, err := fs.ReadFile(fsys, path.Join(dir, entry.Name()))
	if err != nil {
		return migration{}, err
	}
	// A checkout with other line ends is the same migration.
	text := strings.ReplaceAll(string(content), "\r\n", "\n")
	if !strings.Contains(text, placeholder) {
		return migration{}, fmt.Errorf("no %s in it: empty, or it would work outside its schema", placeholder)
	}
	sum := sha256.Sum256([]byte(text))
	return migration{version: version, name: name, text: text, checksum: hex.EncodeToString(sum[:])}, nil
}

// fileName has a fixed number of digits, so that files sort as they are applied.
var fileName = regexp.MustCompile(`^([0-9]{4})_([a-z][a-z0-9]*(?:_[a-z0-9]+)*)\.sql$`)

// parseName reads version and name from NNNN_name.sql.
func parseName(file string) (version int, name string, err error) {
	parts := fileName.FindStringSubmatch(file)
	if parts == nil {
		return 0, "", errors.New("name it NNNN_name.sql, with lower-case letters, digits and single underscores")
	}
	version, err = strconv.Atoi(parts[1])
	if err != nil || version == 0 {
		return 0, "", errors.New("versions begin at 0001")
	}
	return version, parts[2], nil
}

// checkNumbers wants versions 1, 2, 3 and so on, each once: two branches that
// both add the next number must not meet unnoticed.
func checkNumbers(sorted []migration) []error {
	if len(sorted) == 0 {
		return []error{errors.New("migrate: load folder: no migrations in it")}
	}
	var faults []error
	previous := migration{}
	for _, m := range sorted {
		switch {
		case m.version == previous.version:
			faults = append(faults, fmt.Errorf("migrate: load %s.sql: same number as %s.sql; give it the next free one", m, previous))
		case m.version > previous.version+1:
			faults = append(faults, fmt.Errorf("migrate: load %s.sql: number %04d is missing before it", m, previous.version+1))
		}
		previous = m
	}
	return faults
}
