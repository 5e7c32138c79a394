package main

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/natsconn"
)

const (
	// watermillTopic is the forwarder's topic; Watermill's table is named after it.
	watermillTopic = "events"
	// watermillBacklog is smaller than ours, in Watermill's favour: its query
	// sorts what is left of the backlog for each batch.
	watermillBacklog = 100_000
)

// fillWatermill stores one message as Watermill's own publisher does in a
// transaction, and copies it inside the database as fill does.
func fillWatermill(ctx context.Context, db *database, n int) error {
	schema := wmsql.DefaultPostgreSQLSchema{}
	queries, err := schema.SchemaInitializingQueries(wmsql.SchemaInitializingQueriesParams{Topic: watermillTopic})
	if err != nil {
		return err
	}
	offsets, err := wmsql.DefaultPostgreSQLOffsetsAdapter{}.SchemaInitializingQueries(
		wmsql.OffsetsSchemaInitializingQueriesParams{Topic: watermillTopic})
	if err != nil {
		return err
	}
	for _, q := range append(queries, offsets...) {
		if _, err := db.Exec(ctx, q.Query, q.Args...); err != nil {
			return err
		}
	}
	if err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return publishWatermill(ctx, tx, schema) }); err != nil {
		return err
	}
	return copyWatermill(ctx, db, n-1)
}

// publishWatermill is Watermill's outbox as its documentation shows it: the SQL
// publisher on the caller's transaction, decorated by the forwarder's.
func publishWatermill(ctx context.Context, tx pgx.Tx, schema wmsql.SchemaAdapter) error {
	m, data, err := sample(ctx)
	if err != nil {
		return err
	}
	publisher, err := wmsql.NewPublisher(wmsql.TxFromPgx(tx), wmsql.PublisherConfig{SchemaAdapter: schema}, nil)
	if err != nil {
		return err
	}
	msg := message.NewMessage(m.Envelope.ID, data)
	msg.SetContext(ctx)
	for name, values := range m.Header() {
		msg.Metadata.Set(name, values[0])
	}
	return forwarder.NewPublisher(publisher, forwarder.PublisherConfig{ForwarderTopic: watermillTopic}).Publish(m.Subject.String(), msg)
}

// copyWatermill gives every copy an id of its own, also in the wrapped message,
// where it becomes the id that JetStream deduplicates by.
func copyWatermill(ctx context.Context, db *database, n int) error {
	return inChunks(ctx, db, n, `
insert into watermill_events (uuid, payload, metadata, transaction_id)
select gen_random_uuid()::text, replace(e.payload::text, e.payload->>'uuid', c.id::text)::json, e.metadata, pg_current_xact_id()
from (select * from watermill_events order by "offset" limit 1) e,
     (select gen_random_uuid() as id from generate_series(1, $1::int)) c`)
}

// watermill measures the forwarder from the SQL subscriber to JetStream for a
// while, or until its backlog is done. Its publisher is the one that Watermill recommends
// for production, and waits for each acknowledgement; larger batches than the
// default of 100 are in its favour.
func (b *bench) watermill(db *database, batch int) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		if _, err := db.Exec(ctx, "truncate watermill_offsets_events"); err != nil {
			return 0, err
		}
		conn, err := b.broker(ctx)
		if err != nil {
			return 0, err
		}
		defer conn.NATS().Close()
		fwd, err := newForwarder(db, conn, batch)
		if err != nil {
			return 0, err
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		done := make(chan error, 1)
		began := time.Now()
		go func() { done <- fwd.Run(ctx) }()
		n, err := storedWithin(ctx, conn.JetStream(), b.sizes.window, batch, min(b.sizes.backlog, watermillBacklog))
		elapsed := time.Since(began)
		if n == 0 {
			err = errors.Join(err, errors.New("the forwarder published nothing"))
		}
		// The end of the context rather than Close alone: the subscriber would
		// first work off the batch that it has read.
		cancel()
		return float64(n) / elapsed.Seconds(), errors.Join(err, fwd.Close(), <-done)
	}
}

// storedWithin returns how many messages are stored after d, or when all are; at
// least one batch is waited for, a minute at most.
func storedWithin(ctx context.Context, js jetstream.JetStream, d time.Duration, batch, all int) (uint64, error) {
	for began := time.Now(); ; {
		n, err := stored(ctx, js)
		if err != nil || n >= uint64(all) {
			return n, err
		}
		if past := time.Since(began); past > time.Minute || past > d && n >= uint64(batch) {
			return n, nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return n, err
		}
	}
}

func newForwarder(db *database, conn *natsconn.Conn, batch int) (*forwarder.Forwarder, error) {
	subscriber, err := wmsql.NewSubscriber(wmsql.BeginnerFromPgx(db), wmsql.SubscriberConfig{
		SchemaAdapter:  wmsql.DefaultPostgreSQLSchema{SubscribeBatchSize: batch},
		OffsetsAdapter: wmsql.DefaultPostgreSQLOffsetsAdapter{},
		PollInterval:   10 * time.Millisecond,
	}, nil)
	if err != nil {
		return nil, err
	}
	publisher, err := wmnats.NewPublisherWithNatsConn(conn.NATS(), wmnats.PublisherPublishConfig{
		Marshaler:         &wmnats.NATSMarshaler{},
		SubjectCalculator: wmnats.DefaultSubjectCalculator,
		JetStream:         wmnats.JetStreamConfig{TrackMsgId: true},
	}, nil)
	if err != nil {
		return nil, err
	}
	return forwarder.NewForwarder(subscriber, publisher, watermill.NopLogger{}, forwarder.Config{ForwarderTopic: watermillTopic})
}
