package migrate

import (
	"fmt"
	"strings"
)

// The texts below are what Up executes and what Export prints: one source, so
// that a database made either way is the same.

// guardText opens the transaction of a migration. The lock makes concurrent
// starts wait; timeouts that the role has for its daily work do not apply to
// that waiting nor to the migration, which the caller's context bounds. With the
// search path fixed, names mean the same whatever the role's setting is.
const guardText = `set local search_path = pg_catalog, pg_temp;
set local statement_timeout = 0;
set local lock_timeout = 0;
select pg_advisory_xact_lock(hashtextextended('dvmsg migrate {{schema}}', 0));
`

// historyText makes the place where applied migrations are noted. The schema is
// looked for first, because "create schema if not exists" asks for the right to
// create one even where it exists.
const historyText = `do $$ begin
	if to_regnamespace('{{schema}}') is null then
		create schema {{schema}};
	end if;
end $$;
create table if not exists {{schema}}.schema_migrations (
	version integer not null,
	name text not null,
	checksum text not null,
	applied_at timestamptz not null default clock_timestamp(),
	constraint schema_migrations_pkey primary key (version)
);
`

// fill puts the quoted schema name into a text. It holds no quote or dollar sign
// of its own, so it fits into a literal as well.
func (p plan) fill(text string) string {
	return strings.ReplaceAll(text, placeholder, p.quoted)
}

// applyText is the migration and the note that it was applied.
func (p plan) applyText(m migration) string {
	note := fmt.Sprintf("insert into {{schema}}.schema_migrations (version, name, checksum) values (%d, '%s', '%s');\n",
		m.version, m.name, m.checksum)
	return p.fill(strings.TrimRight(m.text, "\n") + "\n\n" + note)
}
