package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/internal/pgschema"
	"codeberg.org/dataverket/messaging/migrate"
)

func migrateCommands() table {
	return table{
		{
			path: "migrate up", summary: "create or upgrade the library's tables", needs: needsDatabase,
			about: `Applies what the database lacks, each migration in a transaction of its own;
does nothing where nothing is missing. Safe while services run and start. A
database that is newer than this dvmsg is left alone. Raise --timeout for a large
database: a migration that is cut off is rolled back.`,
			examples: []string{
				"dvmsg migrate up --database postgres://maskin@db:5432/maskin",
				"dvmsg migrate up --schema billing_messages --dry-run",
			},
			make: func(fs *flag.FlagSet) verb {
				v := &migrateUp{}
				v.schema.register(fs)
				registerDryRun(fs, &v.dryRun)
				return v
			},
		},
		{
			path: "migrate verify", summary: "compare the tables' version with this dvmsg", needs: needsDatabase,
			about: "Reads only. Exit code 3 when the database is older or newer, or was changed.",
			examples: []string{
				"dvmsg migrate verify --database postgres://maskin@db:5432/maskin",
			},
			make: func(fs *flag.FlagSet) verb {
				v := &migrateVerify{}
				v.schema.register(fs)
				return v
			},
		},
		{
			path: "migrate export", summary: "print the tables' SQL, for psql or a migration tool",
			about: `Contacts nothing. The script keeps the library's books too, so that "migrate
verify" is satisfied after it ran. With --after N it holds what is newer than
version N.`,
			examples: []string{
				"dvmsg migrate export | psql -v ON_ERROR_STOP=1",
				"dvmsg migrate export --schema billing_messages --after 1 > 0007_messaging.sql",
			},
			make: func(fs *flag.FlagSet) verb {
				v := &migrateExport{}
				v.schema.register(fs)
				fs.IntVar(&v.after, "after", 0, "leave out the migrations up to `VERSION`")
				return v
			},
		},
	}
}

// schema is the flag --schema.
type schema struct{ name string }

func (s *schema) register(fs *flag.FlagSet) {
	fs.StringVar(&s.name, "schema", pgschema.Default, "`NAME` of the PostgreSQL schema that holds the tables")
}

func (s *schema) check(c *call) {
	if _, err := pgschema.Quote(s.name); err != nil || s.name == "" {
		c.fault("--schema: %q is no schema name; use lower-case letters, digits and underscores, at most 63", s.name)
	}
}

func (s *schema) config() migrate.Config { return migrate.Config{Schema: s.name} }

// version returns at which version the database is, or which migration was
// changed. The error is nil where all is as the library has it.
func (s *schema) version(ctx context.Context, pool *pgxpool.Pool) (int, error) {
	err := migrate.Verify(ctx, pool, s.config())
	if e, ok := errors.AsType[*migrate.VersionError](err); ok {
		return e.Have, err
	}
	if e, ok := errors.AsType[*migrate.ChecksumError](err); ok {
		return e.Version, err
	}
	return migrate.Latest(), err
}

func registerDryRun(fs *flag.FlagSet, on *bool) {
	fs.BoolVar(on, "dry-run", false, "check everything and say what would be done, but change nothing")
}

type migrateUp struct {
	schema schema
	dryRun bool
}

// migrateUpResult is the JSON of migrate up.
type migrateUpResult struct {
	Schema string `json:"schema"`
	DryRun bool   `json:"dry_run"`
	From   int    `json:"from"` // version found
	To     int    `json:"to"`   // version reached, or that would be
}

func (v *migrateUp) check(c *call) { v.schema.check(c) }

func (v *migrateUp) run(ctx context.Context, c *call) error {
	pool, err := c.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	r := migrateUpResult{Schema: v.schema.name, DryRun: v.dryRun, To: migrate.Latest()}
	if r.From, err = v.schema.version(ctx, pool); err != nil && !isOlder(err) {
		return err
	}
	if !v.dryRun {
		if err := migrate.Up(ctx, pool, v.schema.config()); err != nil {
			return err
		}
	}
	return c.print(r, func(p *page) { p.line("%s", r.text()) })
}

// isOlder reports whether err says that migrations are missing, which is what
// up is for.
func isOlder(err error) bool {
	e, ok := errors.AsType[*migrate.VersionError](err)
	return ok && e.Have < e.Want
}

func (r migrateUpResult) text() string {
	switch {
	case r.From == r.To:
		return fmt.Sprintf("schema %s: already at version %d, nothing to do", r.Schema, r.To)
	case r.DryRun:
		return fmt.Sprintf("schema %s: would go from version %d to %d; see: dvmsg migrate export --schema %s --after %d",
			r.Schema, r.From, r.To, r.Schema, r.From)
	}
	return fmt.Sprintf("schema %s: went from version %d to %d", r.Schema, r.From, r.To)
}

type migrateVerify struct{ schema schema }

// migrateVerifyResult is the JSON of migrate verify.
type migrateVerifyResult struct {
	Schema string `json:"schema"`
	OK     bool   `json:"ok"`
	Have   int    `json:"have"`
	Want   int    `json:"want"`
	Fault  string `json:"fault,omitempty"`
}

func (v *migrateVerify) check(c *call) { v.schema.check(c) }

func (v *migrateVerify) run(ctx context.Context, c *call) error {
	pool, err := c.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	have, err := v.schema.version(ctx, pool)
	if err != nil && !isMismatch(err) {
		return err
	}
	r := migrateVerifyResult{Schema: v.schema.name, OK: err == nil, Have: have, Want: migrate.Latest()}
	if err == nil {
		return c.print(r, func(p *page) { p.line("schema %s: at version %d, as needed", r.Schema, r.Have) })
	}
	r.Fault = err.Error()
	if err := c.print(r, func(*page) {}); err != nil {
		return err
	}
	return &foundError{r.Fault}
}

// isMismatch tells a database that does not fit from one that cannot be read.
func isMismatch(err error) bool {
	_, version := errors.AsType[*migrate.VersionError](err)
	_, checksum := errors.AsType[*migrate.ChecksumError](err)
	return version || checksum
}

type migrateExport struct {
	schema schema
	after  int
}

// migrateExportResult is the JSON of migrate export.
type migrateExportResult struct {
	Schema string `json:"schema"`
	After  int    `json:"after"`
	To     int    `json:"to"`
	SQL    string `json:"sql"`
}

func (v *migrateExport) check(c *call) {
	v.schema.check(c)
	if v.after < 0 || v.after > migrate.Latest() {
		c.fault("--after: %d is no version; this dvmsg has versions 1 to %d", v.after, migrate.Latest())
	}
}

func (v *migrateExport) run(_ context.Context, c *call) error {
	sql, err := migrate.ExportAfter(v.schema.config(), v.after)
	if err != nil {
		return err
	}
	r := migrateExportResult{Schema: v.schema.name, After: v.after, To: migrate.Latest(), SQL: sql}
	return c.print(r, func(p *page) { p.WriteString(sql) })
}
