package migrate

import (
	"fmt"
	"strings"

	"codeberg.org/dataverket/messaging/internal/pgschema"
)

// Config says where the tables live.
type Config struct {
	// Schema holds the library's tables and nothing else. Lower-case letters,
	// digits and underscores, 63 bytes at most. Several services that share a
	// database need one each.
	// Default: "messaging".
	Schema string
}

// placeholder stands for the quoted schema name in the SQL files.
const placeholder = "{{schema}}"

// plan is what a call works with: the migrations and the schema they go to.
type plan struct {
	schema     string // as configured, for messages and catalog look-ups
	quoted     string // as it stands in SQL
	migrations []migration
}

// newPlan checks the configuration and loads the embedded migrations.
func newPlan(cfg Config) (plan, error) {
	quoted, err := pgschema.Quote(cfg.Schema)
	if err != nil {
		return plan{}, fmt.Errorf("migrate: Config.Schema: %w", err)
	}
	migrations, err := embedded()
	if err != nil {
		return plan{}, err
	}
	return plan{schema: strings.Trim(quoted, `"`), quoted: quoted, migrations: migrations}, nil
}

// latest is the version that the library needs.
func (p plan) latest() int { return len(p.migrations) }
