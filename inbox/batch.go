package inbox

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"codeberg.org/dataverket/messaging/envelope"
)

// Batch tunes [OnBatch]. The zero value is good for most.
type Batch struct {
	// Size is how many messages share a transaction at most. More than the
	// consumer's Concurrency never come together. At most 1,000; default 100.
	Size int
	// Wait is how long the first message of a batch waits for others at most. It
	// need not be tuned: a batch begins at once when as many messages wait as were
	// lately under way at the same time, and when it did not grow for a tenth of
	// Wait. So a lone message does not wait, and the first after a crowd waits that
	// tenth. At most 1 s; default 20 ms.
	Wait time.Duration

	quiet time.Duration // without growth, until a batch begins
	exact bool          // a batch begins at Size only: for tests
}

// Bounds of Batch, and the share of Wait after which a batch that stopped growing
// begins.
const (
	defaultSize = 100
	maxSize     = 1000
	defaultWait = 20 * time.Millisecond
	maxWait     = time.Second
	quietShare  = 10
)

// withDefaults fills what was left zero and holds the rest to its bounds.
func (c Batch) withDefaults() Batch {
	if c.Size <= 0 {
		c.Size = defaultSize
	}
	if c.Wait <= 0 {
		c.Wait = defaultWait
	}
	if !c.exact {
		c.Wait = min(c.Wait, maxWait)
	}
	c.quiet = c.Wait / quietShare
	c.Size = min(c.Size, maxSize)
	return c
}

// OnBatch routes messages of type t to h, which applies the effects of many in one
// transaction: one commit instead of a hundred. It is for handlers whose work is a
// statement or two, which a commit costs more than; such a handler writes all rows
// in one statement or one pgx.Batch.
//
// The messages are those that the consumer holds at the same time, in the order of
// the stream. Each has its effect once, and its own verdict, as with [On]:
//
//   - What was handled before is left out, and acknowledged.
//   - If h fails or panics, or the commit does, nothing has happened, and each
//     message is handled again at once in a transaction of its own, by h with a
//     slice of one. So a message that cannot be handled fails alone, with the
//     error that h returns for it alone.
//   - A message of which a copy is being handled elsewhere delays the others for a
//     second, and is then waited for alone.
//   - What was delivered before, and a replay of a dead letter, is never put among
//     others: what once failed, or ended its process, has company no second time.
//
// ctx carries no origin, since it would be that of one message only: pass
// m.Context(ctx) to outbox.Enqueue. It ends when the contexts of all messages have;
// a message whose own context ends before its batch begins leaves it, later it
// stays. Otherwise h follows the rules of [Inbox.Once].
//
// With Config.TenantSetting a batch holds messages of one tenant, and what follows
// holds for each tenant.
//
// h is called for one batch at a time, and beside it for messages that are alone;
// what comes meanwhile is the next batch, which begins while the one before commits.
// So a consumer gains from a Concurrency of two or three times Size.
func OnBatch[T any](in *Inbox, t envelope.Type[T], cfg Batch, h func(context.Context, pgx.Tx, []envelope.Received[T]) error) envelope.Route {
	route := envelope.Route{Type: t.Name(), Version: t.Version(), Older: t.Older()}
	if in == nil || h == nil {
		return route // without a handler, so that consumer.New refuses it by name
	}
	apply := func(ctx context.Context, tx pgx.Tx, members []*member) error {
		all := make([]envelope.Received[T], len(members))
		for i, m := range members {
			all[i] = envelope.Received[T]{Delivery: m.delivery, Data: m.data.(T)}
		}
		return h(ctx, tx, all)
	}
	gather := func() *gatherer { return newGatherer(in, cfg.withDefaults(), apply) }
	handle := gather().handle
	if in.tenants != "" {
		handle = (&gatherers{make: gather, of: map[string]*calls{}}).handle
	}
	route.Handle = func(ctx context.Context, d *envelope.Delivery) error {
		data, err := t.Decode(d.Envelope)
		if err != nil {
			return envelope.Permanent(err)
		}
		return handle(ctx, d, data)
	}
	route.MarkDead, route.Gathers = in.buried, true
	return route
}

// beginAll opens a transaction and claims all messages, in one round trip. It
// returns the identities of those that were not handled before.
func (in *Inbox) beginAll(ctx context.Context, members []*member) (pgx.Tx, map[identity]bool, error) {
	sources, ids, buckets := claims(members)
	fresh := make(map[identity]bool, len(members))
	var batch pgx.Batch
	batch.BeginTx(pgx.TxOptions{})
	in.queueTenant(&batch, members[0].scope) // all have the same, see gatherers
	for _, f := range fences(members) {
		in.queueFence(&batch, f)
	}
	batch.Queue(impatientText)
	batch.Queue(in.claimAll, in.consumer, sources, ids, buckets).Query(func(rows pgx.Rows) error {
		var source string
		var id pgtype.UUID
		_, err := pgx.ForEachRow(rows, []any{&source, &id, nil}, func() error {
			fresh[identity{source, id.Bytes}] = true
			return nil
		})
		return err
	})
	batch.Queue(patientText)
	results := in.pool.SendBatch(ctx, &batch)
	tx, err := results.Tx(), results.Close()
	if err != nil {
		in.rollback(ctx, tx)
		return nil, nil, in.explain("claim a batch", err)
	}
	return tx, fresh, nil
}

// fences are the leases that the messages of a batch came under: one, but around
// a take-over.
func fences(members []*member) (distinct []envelope.Fence) {
	for _, m := range members {
		if !slices.Contains(distinct, m.fence) {
			distinct = append(distinct, m.fence)
		}
	}
	return distinct
}

// claims lists what is to be claimed. The order is the same in every process, so
// that two batches with the same messages wait for one another and never both.
func claims(members []*member) (sources []string, ids []pgtype.UUID, buckets []int16) {
	sorted := slices.SortedFunc(slices.Values(members), func(a, b *member) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), bytes.Compare(a.id.Bytes[:], b.id.Bytes[:]))
	})
	for _, m := range sorted {
		sources, ids, buckets = append(sources, m.Source), append(ids, m.id), append(buckets, int16(bucketOf(m.id.Bytes)))
	}
	return sources, ids, buckets
}

// answered tells whether PostgreSQL or a fence refused a claim, which may be for one
// message's sake. Otherwise there is no database to ask again.
func answered(err error) bool { return code(err) != "" || errors.Is(err, envelope.ErrFenced) }
