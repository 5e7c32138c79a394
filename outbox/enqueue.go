package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"codeberg.org/dataverket/messaging/envelope"
)

// Enqueue stores the drafts in the caller's transaction: they are published if
// and only if tx commits (requirement O1).
//
// Each draft gets its id, time and source, and takes correlation, causation,
// actor, tenant and trace from the origin in ctx (envelope.WithOrigin; inside
// a handler the origin is already there). Everything is validated first: an
// error that says so left the transaction untouched, and it lists the faults
// of all drafts. The insert is one round trip for any number of drafts.
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
// Errors: *envelope.FieldError for bad fields, envelope.ErrTooLarge,
// *topology.UndeclaredError for a subject without a declared stream,
// ErrNotMigrated where the tables are missing, else the error of PostgreSQL,
// after which tx is aborted as after any failed statement.
func (o *Outbox) Enqueue(ctx context.Context, tx pgx.Tx, drafts ...envelope.Draft) error {
	if len(drafts) == 0 {
		return nil
	}
	rows, err := o.prepare(ctx, drafts)
	if err != nil {
		return err
	}
	if err := o.store(ctx, tx, rows); err != nil {
		return fmt.Errorf("outbox: enqueue %d message(s), the first %s: %w", len(drafts), rows.ids[0], explain(err))
	}
	return nil
}

// store inserts the rows in one round trip.
func (o *Outbox) store(ctx context.Context, tx pgx.Tx, c columns) error {
	if len(c.ids) == 1 { // the usual case, and the cheaper statement
		_, err := tx.Exec(ctx, o.insertOne, c.streams[0], c.ids[0], c.subjects[0], c.keys[0], c.headers[0], c.envelopes[0])
		return err
	}
	_, err := tx.Exec(ctx, o.insertMany, c.streams, c.ids, c.subjects, c.keys, c.headers, c.envelopes)
	return err
}

// columns are the rows of one insert, column by column as unnest takes them.
type columns struct {
	streams, ids, subjects, keys, headers []string
	envelopes                             [][]byte
}

func (o *Outbox) prepare(ctx context.Context, drafts []envelope.Draft) (columns, error) {
	var c columns
	var faults []error
	for i, d := range drafts {
		if err := o.appendRow(ctx, &c, d); err != nil {
			faults = append(faults, fmt.Errorf("outbox: message %d of %d: %w", i+1, len(drafts), err))
		}
	}
	return c, errors.Join(faults...)
}

func (o *Outbox) appendRow(ctx context.Context, c *columns, d envelope.Draft) error {
	m, err := envelope.New(ctx, o.set.Service, d)
	if err != nil {
		return err
	}
	stream, err := o.set.StreamFor(m.Subject)
	if err != nil {
		return err
	}
	data, err := m.Envelope.Encode()
	if err != nil {
		return err
	}
	if len(data) > o.cfg.MaxSize {
		return fmt.Errorf("%w: envelope %s of %s has %d bytes, at most %d; put large data elsewhere and send an envelope.Artifact",
			envelope.ErrTooLarge, m.Envelope.ID, m.Subject, len(data), o.cfg.MaxSize)
	}
	c.streams = append(c.streams, stream.Name)
	c.ids = append(c.ids, m.Envelope.ID)
	c.subjects = append(c.subjects, m.Subject.String())
	c.keys = append(c.keys, m.OrderingKey)
	c.headers = append(c.headers, envelope.MarshalHeader(o.header(m)))
	c.envelopes = append(c.envelopes, data)
	return nil
}

func (o *Outbox) header(m envelope.Message) envelope.Header {
	h := m.Header()
	if o.cfg.LegacyCorrelationHeader {
		h["correlation-id"] = []string{m.Envelope.CorrelationID}
	}
	return h
}

// The statements of Enqueue, for one message and for many.
//
// xid stands before seq, here and in the table: the transaction id must exist
// before the sequence number is drawn, which is what lets the relay bound its
// reads by seq (docs/decisions/0003).
const (
	insertOneSQL = `
insert into {{schema}}.outbox_events (xid, stream, id, subject, ordering_key, headers, envelope)
values (pg_current_xact_id(), $1, $2::text::uuid, $3, $4, $5, $6)` + returningSQL

	insertManySQL = `
insert into {{schema}}.outbox_events (xid, stream, id, subject, ordering_key, headers, envelope)
select pg_current_xact_id(), t.stream, t.id::uuid, t.subject, t.key, t.headers, t.envelope
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[])
     with ordinality as t (stream, id, subject, key, headers, envelope, n)
order by t.n` + returningSQL

	// set_config stands in RETURNING, because PostgreSQL does not run a CTE that
	// nothing refers to.
	returningSQL = `
returning case when current_setting('synchronous_commit') = 'off'
          then set_config('synchronous_commit', 'on', true) end`

	// A relay that sleeps is notified, once per transaction; one that is dead is
	// not, see wake.go.
	wakeSQL = `,
          case when (select s.asleep and l.expires_at > clock_timestamp()
                       from {{schema}}.outbox_sleep s, {{schema}}.outbox_lease l)
          then pg_notify('` + channel + `', '')::text end`
)

// insertSQL completes a statement for a schema.
func insertSQL(sql, schema string, wake bool) string {
	if wake {
		sql += wakeSQL
	}
	return strings.ReplaceAll(sql, "{{schema}}", schema)
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
