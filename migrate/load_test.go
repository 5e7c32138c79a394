package migrate_test

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/migrate"
)

func TestMalformedFoldersAreRefusedWithAllTheirFaults(t *testing.T) {
	t.Parallel()
	for folder, faults := range map[string][]string{
		"duplicate": {"0002_c.sql: same number as 0002_b.sql"},
		"gap":       {"0003_c.sql: number 0002 is missing", "0006_f.sql: number 0004 is missing"},
		"nofirst":   {"0002_b.sql: number 0001 is missing"},
		"empty":     {"0002_b.sql: no {{schema}} in it: empty"},
		"noschema":  {"0002_b.sql: no {{schema}} in it"},
		"badname": {
			"load 0000_zero.sql: versions begin at 0001", "load 0003_C.sql: name it", "load 0004-d.sql: name it",
			"load 0005_e.down.sql: name it", "load 2_b.sql: name it", "load README.md: name it",
		},
	} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			_, _, err := migrate.Load(os.DirFS("testdata/migrations"), folder)
			require.Error(t, err)
			for _, fault := range faults {
				require.ErrorContains(t, err, fault)
			}
		})
	}
}

func TestFolderWithoutMigrationsIsRefused(t *testing.T) {
	t.Parallel()
	_, _, err := migrate.Load(fstest.MapFS{"sql": &fstest.MapFile{Mode: fs.ModeDir}}, "sql")
	require.ErrorContains(t, err, "no migrations")
	_, _, err = migrate.Load(fstest.MapFS{}, "sql")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// reversed lists folders backwards, as a file system may.
type reversed struct{ fs.FS }

func (r reversed) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(r.FS, name)
	slices.Reverse(entries)
	return entries, err
}

func TestMigrationsAreOrderedByNumber(t *testing.T) {
	t.Parallel()
	want := []string{"0001_z", "0002_m", "0003_a"}
	for _, fsys := range []fs.FS{os.DirFS("testdata/migrations"), reversed{os.DirFS("testdata/migrations")}} {
		names, _, err := migrate.Load(fsys, "unsorted")
		require.NoError(t, err)
		require.Equal(t, want, names)
	}
}

func TestLineEndsDoNotChangeTheChecksum(t *testing.T) {
	t.Parallel()
	sum := func(text string) string {
		_, sums, err := migrate.Load(fstest.MapFS{"0001_a.sql": {Data: []byte(text)}}, ".")
		require.NoError(t, err)
		return sums[0]
	}
	unix := sum("create table {{schema}}.a (\n);\n")
	require.Equal(t, unix, sum("create table {{schema}}.a (\r\n);\r\n"))
	require.NotEqual(t, unix, sum("create table {{schema}}.b (\n);\n"))
	require.Len(t, unix, 64)
}

func TestLatestIsTheNumberOfEmbeddedMigrations(t *testing.T) {
	t.Parallel()
	names, _, err := migrate.Load(os.DirFS("."), "sql")
	require.NoError(t, err)
	require.Equal(t, len(names), migrate.Latest())
	require.GreaterOrEqual(t, migrate.Latest(), 2)
}

func FuzzParseName(f *testing.F) {
	for _, seed := range []string{
		"0001_outbox.sql", "0000_x.sql", "9999_a1_b2.sql", "1_x.sql", "00001_x.sql", "0001_x", "0001_.sql", "0001_a__b.sql",
		"0001_a_.sql", "0001_Å.sql", "+001_x.sql", "0001_x.sql\n", "", "0001_x'; drop table y; --.sql", "../0001_x.sql",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, file string) {
		version, name, err := migrate.ParseName(file)
		if err != nil {
			require.Zero(t, version)
			require.Empty(t, name)
			return
		}
		// Only one text gives these values, and both go into SQL as they are.
		require.Equal(t, file, fmt.Sprintf("%04d_%s.sql", version, name))
		require.Regexp(t, `^[a-z0-9_]+$`, name)
		require.Positive(t, version)
	})
}
