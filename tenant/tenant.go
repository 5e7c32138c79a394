package tenant

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// ErrNoTenant: nobody said for which tenant the work is, nor that it is for none, or
// both was said. It is the programmer's to mend; trying again does not help.
var ErrNoTenant = errors.New("tenant: the origin in ctx names neither a tenant nor platform scope, or both: " +
	"set it with envelope.WithOrigin, or edge.Edge.Wrap; the ctx of a handler carries it")

// Setting is the name of the PostgreSQL setting that policies read, such as
// "app.tenant_id": two to four names of a-z, 0-9 and _, joined by dots, at most 63
// bytes. PostgreSQL needs no declaration of it.
type Setting string

// settingName demands a dot: a name without one may be a setting of PostgreSQL's.
var settingName = regexp.MustCompile(`^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*){1,3}$`)

const maxSetting = 63

// Validate returns what is wrong with the name, or nil.
func (s Setting) Validate() error {
	if len(s) > maxSetting || !settingName.MatchString(string(s)) {
		return fmt.Errorf("tenant: setting: %.80q is no name; use one with a prefix of the service's, such as app.tenant_id", string(s))
	}
	return nil
}

// Set says for the rest of tx that the work is for the tenant of ctx's origin, or in
// platform scope for none (the empty text). Call it before anything else in tx; it
// takes a round trip. Without an origin it returns ErrNoTenant, and changes nothing.
func (s Setting) Set(ctx context.Context, tx pgx.Tx) error {
	if err := s.Validate(); err != nil {
		return err
	}
	id, err := Of(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, setText, string(s), id); err != nil {
		return fmt.Errorf("tenant: set %s: %w", s, err)
	}
	return nil
}

// setText sets until the end of the transaction.
const setText = `select set_config($1, $2, true)`

// Queue adds to a batch that begins a transaction what Set does, for a tenant that is
// known; "" is platform scope. s must be valid.
func (s Setting) Queue(batch *pgx.Batch, id string) { batch.Queue(setText, string(s), id) }

// Of returns the tenant of ctx's origin, "" in platform scope, or ErrNoTenant.
func Of(ctx context.Context) (string, error) {
	o, ok := envelope.OriginFrom(ctx)
	if !ok || (o.TenantID == "") != o.PlatformScope {
		return "", ErrNoTenant
	}
	return o.TenantID, nil
}
