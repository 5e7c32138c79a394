// Package tenant keeps the rows of tenants apart in PostgreSQL: it tells row-level
// security, in each transaction, for which tenant the work is (requirement X4).
//
// # Usage
//
// The policies read a setting:
//
//	alter table node enable row level security;
//	alter table node force row level security; -- for the table's owner, too
//	create policy tenant on node
//	  using (tenant_id = nullif(current_setting('app.tenant_id', true), ''));
//
// A handler's transaction is told by the inbox, in the round trip of the inbox row;
// one of a request by the service:
//
//	const rows tenant.Setting = "app.tenant_id"
//
//	in, err := inbox.New(pool, "plattform__servers", inbox.Config{TenantSetting: rows})
//
//	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
//		if err := rows.Set(ctx, tx); err != nil {
//			return err
//		}
//		…
//	})
//
// # Guarantees
//
//   - A transaction has one tenant: that of the message, or of ctx's origin, which
//     package edge makes for a request. inbox.OnBatch makes batches for each tenant.
//   - The setting ends with the transaction, so that a connection of a pool, or of a
//     pooler in transaction mode, takes no tenant to its next user.
//   - Work without an origin is refused with [ErrNoTenant]. In platform scope the
//     setting is empty.
//
// What the policy must do: a setting that is empty, or was never made, must match no
// row, as above; after the first use of a connection PostgreSQL says the empty text where it
// said null before. So a forgotten Set shows nothing instead of everything, and work
// in platform scope sees no tenant's rows. What has to see all of them, such as a
// clean-up, uses a role and a pool of its own, with a policy for that role (or
// BYPASSRLS), never an empty setting that means everybody.
//
// Superusers, roles with BYPASSRLS and, without FORCE, the table's owner pass all
// policies: the service's role must be none of them. The library's own tables have
// no policies. Whoever can run SQL of their own choice can change the setting: it
// holds back what is forgotten, not what is injected.
//
// # What else holds tenants apart
//
//   - outbox.Enqueue refuses a message whose origin names neither a tenant nor
//     platform scope, or both.
//   - A message whose tenant-id header, or subject, contradicts its envelope is a
//     dead letter of class security; no handler sees it.
//   - Package edge refuses a request whose tenant-id header names another tenant than
//     its authenticated caller's.
//
// # Concurrency
//
// A Setting is a constant and safe for concurrent use.
package tenant
