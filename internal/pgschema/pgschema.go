package pgschema

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Default is the schema that is used where none is configured.
const Default = "messaging"

// name is deliberately narrower than what PostgreSQL allows between quotes: such
// a name needs no quoting in a psql session and is at most as long (63 bytes)
// as PostgreSQL keeps, which would otherwise cut it without an error.
var name = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// Quote checks a schema name and returns it as a quoted SQL identifier. An empty
// name is [Default]. Names are lower-case letters, digits and underscores, 63
// bytes at most, and none that PostgreSQL keeps for itself.
func Quote(schema string) (string, error) {
	if schema == "" {
		schema = Default
	}
	if !name.MatchString(schema) {
		return "", fmt.Errorf("pgschema: schema name %.80q: use lower-case letters, digits and underscores, a letter or underscore first, 63 bytes at most", schema)
	}
	if strings.HasPrefix(schema, "pg_") || schema == "information_schema" {
		return "", fmt.Errorf("pgschema: schema name %q: belongs to PostgreSQL itself; choose another, such as %q", schema, Default)
	}
	// The pattern leaves nothing to escape, but words such as "user" need the
	// quotes.
	return pgx.Identifier{schema}.Sanitize(), nil
}
