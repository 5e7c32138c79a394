package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

const (
	clients    = 32
	aggregates = 10_000
	keys       = 1_000
)

// write adds the message about an aggregate to the transaction that changes it.
type write func(ctx context.Context, tx pgx.Tx, aggregate int) error

// writerRows measures what Enqueue costs the business transaction, beside the
// same transaction with a plain INSERT of a row that is already made. What Enqueue
// is given is made in advance, too: encoding the data is the author's on both
// sides. A row of its own says what that costs.
func writerRows(ctx context.Context, b *bench) ([]Row, error) {
	enqueue, err := enqueueDrafts()
	if err != nil {
		return nil, err
	}
	drafting, err := enqueueWriter()
	if err != nil {
		return nil, err
	}
	insert, err := insertWriter(ctx)
	if err != nil {
		return nil, err
	}
	made := madeWriter()
	db, err := b.database(ctx, "writers")
	if err != nil {
		return nil, err
	}
	defer db.drop()
	if err := makeAggregates(ctx, db); err != nil {
		return nil, err
	}
	plain := b.writersAlone(db, "plain INSERT", insert)
	f, err := b.interleaveSlices(ctx, b.sizes.slices, b.writersAlone(db, "Enqueue", enqueue), plain)
	if err != nil {
		return nil, err
	}
	g, err := b.interleaveSlices(ctx, b.sizes.slices/4, b.writersAlone(db, "draft, then Enqueue", drafting), plain,
		b.writersAlone(db, "made, then plain INSERT", made))
	if err != nil {
		return nil, err
	}
	return []Row{
		ratioRow("writers/insert", "writers with Enqueue / with a plain INSERT, 32 clients", "tx/s", 0.95, f[0], f[1]),
		ratioRow("writers/drafting", "the same, the data encoded in the transaction / with a plain INSERT", "tx/s", 0, g[0], g[1]),
		ratioRow("writers/made", "the same / message made in the transaction, then a plain INSERT", "tx/s", 0, g[0], g[2]),
	}, nil
}

// writersAlone measures one kind of transaction without a relay. Now and then it
// begins with an empty outbox: both sides of a row have every place, also behind
// that, and emptying it makes every connection plan anew.
func (b *bench) writersAlone(db *database, name string, w write) side {
	windows := 0
	return side{name, func(ctx context.Context) (float64, error) {
		if windows++; windows%20 == 1 {
			if _, err := db.Exec(ctx, "truncate messaging.outbox_events"); err != nil {
				return 0, err
			}
			if err := settle(ctx, db); err != nil {
				return 0, err
			}
		}
		return writersTPS(ctx, db, b.sizes.slice, w)
	}}
}

func makeAggregates(ctx context.Context, db *database) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`
create table aggregate (id int primary key, n bigint not null default 0) with (fillfactor = 50);
insert into aggregate (id) select generate_series(0, %d)`, aggregates))
	if err != nil {
		return err
	}
	return settle(ctx, db)
}

// enqueueDrafts sends drafts that are made already.
func enqueueDrafts() (write, error) {
	out, err := newOutbox()
	drafts := make([]envelope.Draft, keys)
	for i := range drafts {
		drafts[i] = draft(key(i), i)
	}
	return func(ctx context.Context, tx pgx.Tx, aggregate int) error {
		return out.Enqueue(ctx, tx, drafts[aggregate%keys])
	}, err
}

// enqueueWriter makes the draft of each message and sends it, as services do.
func enqueueWriter() (write, error) {
	out, err := newOutbox()
	return func(ctx context.Context, tx pgx.Tx, aggregate int) error {
		return out.Enqueue(ctx, tx, draft(key(aggregate), aggregate))
	}, err
}

// insertWriter writes the same row into the same table, without making it: all but
// the id is there, in the types that the driver takes as they are.
func insertWriter(ctx context.Context) (write, error) {
	m, data, err := sample(ctx)
	to, headers := m.Subject.String(), envelope.MarshalHeader(m.Header())
	made := make([]string, keys)
	for i := range made {
		made[i] = key(i)
	}
	plainly := insertPlainly()
	return func(ctx context.Context, tx pgx.Tx, aggregate int) error {
		return plainly(ctx, tx, uuid.New(), to, made[aggregate%keys], headers, data)
	}, err
}

// madeWriter makes each message as Enqueue does, and inserts it plainly: it tells
// what of Enqueue's cost lies in the client and what in the statement.
func madeWriter() write {
	plainly := insertPlainly()
	return func(ctx context.Context, tx pgx.Tx, aggregate int) error {
		m, err := envelope.New(ctx, subject.Maskin, draft(key(aggregate), aggregate))
		if err != nil {
			return err
		}
		data, err := m.Envelope.Encode()
		if err != nil {
			return err
		}
		id, err := uuid.Parse(m.Envelope.ID)
		if err != nil {
			return err
		}
		return plainly(ctx, tx, id, m.Subject.String(), m.OrderingKey, envelope.MarshalHeader(m.Header()), data)
	}
}

// insertPlainly returns the INSERT of a row, as somebody writes it by hand.
func insertPlainly() func(ctx context.Context, tx pgx.Tx, id [16]byte, to, key, headers string, data []byte) error {
	name := stream().Name
	return func(ctx context.Context, tx pgx.Tx, id [16]byte, to, key, headers string, data []byte) error {
		_, err := tx.Exec(ctx, `
insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
values ($1, $2, $3, $4, $5, $6)`, name, pgtype.UUID{Bytes: id, Valid: true}, to, key, headers, data)
		return err
	}
}

func key(aggregate int) string { return fmt.Sprintf("key-%d", aggregate%keys) }

// writersTPS runs the clients for a while, after a warm-up of a tenth of it, and
// returns committed transactions per second.
func writersTPS(ctx context.Context, db *database, d time.Duration, w write) (float64, error) {
	ctx, cancel := context.WithCancel(origin(ctx))
	defer cancel()
	var committed atomic.Int64
	var writers sync.WaitGroup
	faults := make(chan error, clients)
	for range clients {
		writers.Go(func() { faults <- writeUntil(ctx, db, w, &committed) })
	}
	err := pause(ctx, d/10)
	before, began := committed.Load(), time.Now()
	err = errors.Join(err, pause(ctx, d))
	n, elapsed := committed.Load()-before, time.Since(began)
	cancel()
	writers.Wait()
	for range clients {
		err = errors.Join(err, <-faults)
	}
	return float64(n) / elapsed.Seconds(), err
}

// writeUntil commits one transaction after the other until ctx ends.
func writeUntil(ctx context.Context, db *database, w write, committed *atomic.Int64) error {
	for ctx.Err() == nil {
		aggregate := rand.IntN(aggregates)
		// The last transaction is finished: cancelling it would close its connection.
		work := context.WithoutCancel(ctx)
		err := pgx.BeginFunc(work, db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(work, "update aggregate set n = n + 1 where id = $1", aggregate); err != nil {
				return err
			}
			return w(work, tx, aggregate)
		})
		if err != nil {
			return err
		}
		committed.Add(1)
	}
	return nil
}
