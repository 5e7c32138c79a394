package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/telemetry"
	"codeberg.org/dataverket/messaging/topology"
)

// Enqueue stores the drafts in the caller's transaction: they are published if
// and only if tx commits (requirement O1).
//
// Each draft gets its id, time and source, and takes correlation, causation,
// actor, tenant and trace from the origin in ctx (envelope.WithOrigin; inside
// a handler the origin is already there); where spans are made
// (Config.TracerProvider), the trace is that of a span of its own, a child of the
// span in ctx. Everything is validated first: an
// error that says so left the transaction untouched, and it lists the faults
// of all drafts. The insert is one round trip for any number of drafts, or two of
// them for a single one where synchronous_commit is off.
//
// Order: drafts of one call keep their order. Messages of one ordering key
// from different transactions are published in commit order if the writers
// exclude each other before they enqueue, as the row lock on the aggregate
// does; enqueue after taking that lock. See docs/DESIGN.md, "Order".
//
// Durability: where synchronous_commit is off, Enqueue raises it to on for
// this transaction. Otherwise a row could be published and then lost with its
// state in a crash of the database.
//
// Sites: a command that envelope.ToSite sends to another site waits at this one, in
// the stream of the declared flow, until the other fetches it; it arrives on the
// subject that a local one has.
//
// Errors: *envelope.FieldError for bad fields, envelope.ErrTooLarge,
// *topology.UndeclaredError for a subject without a declared stream,
// *topology.NoFlowError for a site to which no declared flow takes the command,
// *BackpressureError for a stream that is late (Config.MaxLag),
// ErrNotMigrated where the tables are missing, else the error of PostgreSQL,
// after which tx is aborted as after any failed statement.
func (o *Outbox) Enqueue(ctx context.Context, tx pgx.Tx, drafts ...envelope.Draft) error {
	if len(drafts) == 0 {
		return nil
	}
	var one [1]entry // the usual case needs no memory of its own
	entries := one[:]
	if len(drafts) > 1 {
		entries = make([]entry, len(drafts))
	}
	err := o.seal(ctx, drafts, entries)
	if err == nil {
		err = o.brake.admit(entries)
	}
	if err == nil {
		err = o.store(ctx, tx, entries)
	}
	for i := range entries {
		entries[i].span.End(enqueueFault(err))
	}
	return err
}

// entry is what Enqueue stores of one message.
type entry struct {
	envelope.Sealed
	stream string
	span   telemetry.Span
}

// seal makes an entry of each draft, or reports the faults of all.
func (o *Outbox) seal(ctx context.Context, drafts []envelope.Draft, entries []entry) error {
	var faults []error
	for i := range drafts {
		if err := o.sealOne(ctx, drafts[i], &entries[i]); err != nil {
			faults = append(faults, fmt.Errorf("outbox: message %d of %d: %w", i+1, len(drafts), err))
		}
	}
	return errors.Join(faults...)
}

func (o *Outbox) sealOne(ctx context.Context, d envelope.Draft, e *entry) (err error) {
	ctx, e.span = o.tracer.Create(ctx, d.Subject())
	if e.Sealed, err = envelope.Seal(ctx, o.set.Service, d); err != nil {
		return err
	}
	on, stream, err := o.set.StreamAt(d.Site(), e.Subject)
	if err != nil {
		return err
	}
	e.Subject, e.stream = on, stream.Name
	e.span.Created(ctx, e.ID, len(e.Envelope), e.stream, telemetry.Place{Site: o.set.Site, ToSite: d.Site(), Datacenter: d.DatacenterID()})
	if size := len(e.Envelope); size > o.cfg.MaxSize {
		return fmt.Errorf("%w: envelope %s of %s has %d bytes, at most %d; put large data elsewhere and send an envelope.Artifact",
			envelope.ErrTooLarge, e.ID, e.Subject, size, o.cfg.MaxSize)
	}
	if o.cfg.LegacyCorrelationHeader {
		e.Header, err = withLegacyCorrelation(e.Header)
	}
	return err
}

// withLegacyCorrelation adds the older name of the correlation header.
func withLegacyCorrelation(text string) (string, error) {
	h, err := envelope.UnmarshalHeader(text)
	if err != nil {
		return "", err
	}
	h[envelope.HeaderLegacyCorrelationID] = h[envelope.HeaderCorrelationID]
	return envelope.MarshalHeader(h), nil
}

// store inserts the entries in one round trip.
func (o *Outbox) store(ctx context.Context, tx pgx.Tx, entries []entry) error {
	if err := o.insert(ctx, tx, entries); err != nil {
		return fmt.Errorf("outbox: enqueue %d message(s), the first %s: %w", len(entries), entries[0].ID, explain(err))
	}
	return nil
}

func (o *Outbox) insert(ctx context.Context, tx pgx.Tx, entries []entry) error {
	if len(entries) == 1 { // the usual case, and the cheaper statement
		return o.insertEntry(ctx, tx, &entries[0])
	}
	n := len(entries)
	streams, ids, subjects := make([]string, n), make([]pgtype.UUID, n), make([]string, n)
	keys, headers, envelopes := make([]string, n), make([]string, n), make([][]byte, n)
	for i := range entries {
		e := &entries[i]
		streams[i], ids[i], subjects[i] = e.stream, pgtype.UUID{Bytes: e.UUID, Valid: true}, e.Subject.String()
		keys[i], headers[i], envelopes[i] = e.OrderingKey, e.Header, e.Envelope
	}
	_, err := tx.Exec(ctx, o.insertMany, streams, ids, subjects, keys, headers, envelopes)
	return err
}

// insertEntry inserts one entry: by the short statement if its connection knows that
// the relay is awake, and by the full one, which looks, if it does not, or if the
// short one has found that synchronous_commit has to be raised.
func (o *Outbox) insertEntry(ctx context.Context, tx pgx.Tx, e *entry) error {
	insert := o.insertOne[e.stream]
	args := [...]any{pgtype.UUID{Bytes: e.UUID, Valid: true}, e.Subject.String(), e.OrderingKey, e.Header, e.Envelope}
	now, seen := time.Now(), o.glimpseOf(tx)
	if now.Before(seen.awakeUntil) {
		tag, err := tx.Exec(ctx, insert.short, args[:]...)
		if err != nil || tag.RowsAffected() == 1 {
			return err
		}
	}
	var awake bool
	err := tx.QueryRow(ctx, insert.full, args[:]...).Scan(&awake)
	if awake {
		seen.awakeUntil = now.Add(o.trustFor)
	}
	return err
}

// The statements of Enqueue, for one message and for many. The stream of one message
// is part of its statement: a service has few of them, and each parameter is
// written, sent and read in every transaction.
//
// xid stands before seq, in the statements and in the table, whose defaults are
// evaluated in that order: the transaction id must exist before the sequence number
// is drawn, which is what lets the relay bound its reads by seq
// (docs/decisions/0003).
const (
	// What is not written costs nothing: this one inserts no row where there is
	// more to do than to insert it.
	insertShortSQL = `
insert into {{schema}}.outbox_events (stream, id, subject, ordering_key, headers, envelope)
select '{{stream}}', $1, $2, $3, $4, $5 where current_setting('synchronous_commit') <> 'off'`

	insertFullSQL = `
insert into {{schema}}.outbox_events (xid, stream, id, subject, ordering_key, headers, envelope)
values ({{xid}}, '{{stream}}', $1, $2, $3, $4, $5)
returning case when {{asleep}} then pg_notify('` + channel + `', '') is null else true end`

	// The sub-select runs once for all rows.
	insertManySQL = `
insert into {{schema}}.outbox_events (xid, stream, id, subject, ordering_key, headers, envelope)
select (select {{xid and wake}}), t.stream, t.id, t.subject, t.key, t.headers, t.envelope
from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[])
     with ordinality as t (stream, id, subject, key, headers, envelope, n)
order by t.n`

	// The transaction id, and what else is to happen in the transaction. It stands
	// among the values, since PostgreSQL does not run a CTE that nothing refers to.
	// CASE, and not AND, decides what is run: AND fixes no order, and goes on after
	// null. The functions never return null, so the nulls here, which the column
	// would refuse, stay away.
	raiseSQL = `case when current_setting('synchronous_commit') = 'off'
            then set_config('synchronous_commit', 'on', true) is null end`
	xidSQL     = `case when ` + raiseSQL + ` then null else pg_current_xact_id() end`
	xidWakeSQL = `case when ` + raiseSQL + ` then null
  when case when {{asleep}} then pg_notify('` + channel + `', '') is null end then null
  else pg_current_xact_id() end`

	// A relay that sleeps is notified, once per transaction; one that is dead is
	// not, see wake.go.
	asleepSQL = `to_timestamp(pg_sequence_last_value('{{schema}}.outbox_asleep_until')) > clock_timestamp()`
)

// oneSQL are the statements for one message of a stream.
type oneSQL struct{ short, full string }

// insertOnes returns the statements for one message of each stream. The name of a
// valid stream has nothing to escape.
func insertOnes(set topology.Set, schema string, pollOnly bool) map[string]oneSQL {
	statements := make(map[string]oneSQL, len(set.Streams))
	for _, s := range set.Streams {
		complete := func(sql string) string {
			return insertSQL(strings.ReplaceAll(sql, "{{stream}}", s.Name), schema, pollOnly)
		}
		statements[s.Name] = oneSQL{short: complete(insertShortSQL), full: complete(insertFullSQL)}
	}
	return statements
}

// insertSQL completes a statement for a schema.
func insertSQL(sql, schema string, pollOnly bool) string {
	asleep := asleepSQL
	if pollOnly {
		asleep = "false" // nobody asks, and nobody is notified
	}
	for _, part := range [...][2]string{{"{{xid}}", xidSQL}, {"{{xid and wake}}", xidWakeSQL}, {"{{asleep}}", asleep}, {"{{schema}}", schema}} {
		sql = strings.ReplaceAll(sql, part[0], part[1])
	}
	return sql
}

// explain turns the two errors that every new service meets into their remedy.
func explain(err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch pgErr.Code {
	case "42P01", "3F000": // undefined_table, invalid_schema_name
		return fmt.Errorf("%w: %w", ErrNotMigrated, err)
	case "23505": // unique_violation
		return fmt.Errorf("this message is already stored: %w", err)
	}
	return err
}
