package migrate

import "fmt"

// VersionError says that the database and the library do not belong together.
type VersionError struct {
	// Schema is the schema that was looked at.
	Schema string
	// Have is the newest migration in the database, 0 where there is none.
	Have int
	// Want is the newest migration of the library.
	Want int
}

// Error names the versions and what to do.
func (e *VersionError) Error() string {
	if e.Have > e.Want {
		return fmt.Sprintf("migrate: verify schema %q: it is at version %d and this library knows %d at most: upgrade the service", e.Schema, e.Have, e.Want)
	}
	return fmt.Sprintf("migrate: verify schema %q: it is at version %d and this library needs %d: run \"dvmsg migrate up\"", e.Schema, e.Have, e.Want)
}

// ChecksumError says that a migration was applied with other contents than the
// library holds under its number: the file was changed after its release, or the
// tables come from another library. Nothing was done.
type ChecksumError struct {
	// Schema is the schema that was looked at.
	Schema string
	// Version is the migration's number.
	Version int
	// Name is the migration's name in the library.
	Name string
	// Have is the checksum noted in the database, Want the library's; SHA-256
	// in hex.
	Have, Want string
}

// Error names the migration and what to do.
func (e *ChecksumError) Error() string {
	return fmt.Sprintf("migrate: verify schema %q: migration %04d_%s was applied with other contents (checksum %.12s, here %.12s): "+
		"a released migration never changes; use the library version that applied it, or compare the tables with \"dvmsg migrate export\"",
		e.Schema, e.Version, e.Name, e.Have, e.Want)
}
