package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// rawPublish is the limit: the client's own PublishAsync with a message id, the
// same headers and the same envelope, from memory and in no order. It returns
// messages per second.
func (b *bench) rawPublish(pending int) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		conn, err := b.broker(ctx)
		if err != nil {
			return 0, err
		}
		defer conn.NATS().Close()
		var failed atomic.Int64
		js, err := jetstream.New(conn.NATS(), jetstream.WithPublishAsyncMaxPending(pending),
			jetstream.WithPublishAsyncErrHandler(func(jetstream.JetStream, *nats.Msg, error) { failed.Add(1) }))
		if err != nil {
			return 0, err
		}
		rate, err := publishAll(ctx, js, b.sizes.backlog)
		if n := failed.Load(); n > 0 {
			err = errors.Join(err, fmt.Errorf("%d messages were refused", n))
		}
		return rate, err
	}
}

func publishAll(ctx context.Context, js jetstream.JetStream, n int) (float64, error) {
	m, data, err := sample(ctx)
	if err != nil {
		return 0, err
	}
	ids := make([]string, n) // made beforehand, as the relay finds them in the table
	for i := range ids {
		ids[i] = uuid.NewString()
	}
	header, to := nats.Header(m.Header()), m.Subject.String()
	began := time.Now()
	for _, id := range ids {
		msg := &nats.Msg{Subject: to, Header: maps.Clone(header), Data: data}
		msg.Header[jetstream.MsgIDHeader] = []string{id}
		if _, err := js.PublishMsgAsync(msg, jetstream.WithStallWait(time.Minute)); err != nil {
			return 0, err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	elapsed := time.Since(began)
	if got, err := stored(ctx, js); err != nil || got != uint64(n) {
		return 0, errors.Join(err, fmt.Errorf("%d of %d messages are stored", got, n))
	}
	return float64(n) / elapsed.Seconds(), nil
}

// rawRead is the other limit: the rows of the backlog read in pages and scanned,
// and not published. It returns rows per second.
func (b *bench) rawRead(db *database) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		const page = 2000
		began := time.Now()
		total, last := 0, int64(0)
		for {
			n, err := readPage(ctx, db, &last, page)
			if err != nil {
				return 0, err
			}
			if total += n; n < page {
				return float64(total) / time.Since(began).Seconds(), nil
			}
		}
	}
}

func readPage(ctx context.Context, db *database, last *int64, page int) (n int, err error) {
	rows, err := db.Query(ctx, `
select seq, id, subject, ordering_key, headers, envelope from messaging.outbox_events
where stream = $1 and seq > $2 order by seq limit $3`, stream().Name, *last, page)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		var id [16]byte
		var subject, key, headers string
		var envelope []byte
		if err := rows.Scan(last, &id, &subject, &key, &headers, &envelope); err != nil {
			return n, err
		}
	}
	return n, rows.Err()
}
