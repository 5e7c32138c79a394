// Package migrate creates and checks the library's tables in a service's
// PostgreSQL database. The SQL is embedded in the library, numbered, and applied
// in order into a schema of its own.
//
// # Usage
//
// At the start of a service whose role may create tables:
//
//	if err := migrate.Up(ctx, pool, migrate.Config{}); err != nil {
//		return err
//	}
//
// Where the tables are an operator's matter, the service only checks, and the
// operator runs "dvmsg migrate up" or takes the SQL into a migration tool:
//
//	if err := migrate.Verify(ctx, pool, migrate.Config{}); err != nil {
//		return err // names the command that mends it
//	}
//	script, err := migrate.Export(migrate.Config{Schema: "billing_messages"})
//
// # Guarantees
//
// Each migration runs in a transaction of its own together with its row in
// schema_migrations (version, name, checksum, applied_at): it is applied and
// noted, or neither. A crash between two migrations leaves the first, and the
// next Up goes on behind it.
//
// Any number of services may call Up at the same time: an advisory lock, keyed by
// the schema, lets them pass one after the other, and each migration runs once.
//
// A released migration never changes. The checksum of what was applied is
// compared with what the library holds, and a difference is an error before
// anything is done.
//
// There are no down migrations. Undoing one would drop messages that are
// committed and not yet published, or the memory of which ones were handled, and
// that is the loss the library exists to prevent. A migration that turns out
// wrong is mended by the next one.
//
// # Concurrency
//
// All functions are safe for concurrent use, by any number of processes.
//
// # Errors
//
// [*VersionError] when the database is older or newer than the library,
// [*ChecksumError] when an applied migration is not the one the library holds;
// both through errors.AsType. All others are configuration faults or errors of
// PostgreSQL.
//
// # Configuration
//
// The role that calls Up needs CREATE on the database (or on the schema, where
// that exists already); Verify, and an Up that finds nothing to do, need SELECT
// on schema_migrations.
//
// # Security
//
// The schema name is the one configured value that becomes part of an SQL text.
// It is held to lower-case letters, digits and underscores, and quoted.
package migrate
