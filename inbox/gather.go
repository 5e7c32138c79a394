package inbox

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// How single messages come together.
//
// Each message arrives in a call of its own, on a goroutine of the consumer's, and
// waits there for its verdict. There is no other goroutine: the call whose message
// has waited longest leads. It waits until the batch is full or does not grow any
// more, runs it, names its successor before it commits, and tells everybody the
// verdict.
//
//	arrives ──▶ waiting ──▶ in a batch ──▶ done: handled, or handled before
//	               │             └───────▶ alone: the batch failed; once more, by itself
//	               ├──▶ leads, and is in its own batch
//	               └──▶ its context ended: leaves

// applyFunc applies the effects of some messages in a transaction.
type applyFunc func(context.Context, pgx.Tx, []*member) error

// member is one message on its way through a batch.
type member struct {
	key
	delivery *envelope.Delivery
	data     any
	ctx      context.Context
	since    time.Time
	told     chan verdict // has room for two: of those that follow, the first counts
}

// identity is what makes two members copies of one message.
type identity struct {
	source string
	id     [16]byte
}

func (m *member) identity() identity { return identity{m.Source, m.id.Bytes} }

// verdict is what a waiting call is told.
type verdict struct {
	what word
	err  error // of done
}

type word uint8

const (
	leads word = iota // the batch is its to gather and run
	alone             // its batch failed
	done              // the verdict of the message
)

// gatherer makes batches of what is handled concurrently.
type gatherer struct {
	in    *Inbox
	cfg   Batch
	apply applyFunc
	grown chan struct{} // signalled when a message arrives

	mu      sync.Mutex
	waiting []*member // in the order of arrival
	leader  *member   // nil while nobody waits
	here    int       // calls from their arrival to their verdict
	most    [2]int    // of those at the same time, since the last batch began and before that
}

func newGatherer(in *Inbox, cfg Batch, apply applyFunc) *gatherer {
	return &gatherer{in: in, cfg: cfg, apply: apply, grown: make(chan struct{}, 1)}
}

// handle takes a delivery from its arrival to its verdict.
func (g *gatherer) handle(ctx context.Context, d *envelope.Delivery, data any) error {
	k, err := g.in.key(messageOf(d))
	if err != nil {
		return err
	}
	m := &member{key: k, delivery: d, data: data, ctx: ctx, since: time.Now(), told: make(chan verdict, 2)}
	if d.Redelivered || d.Attempt > 1 || d.LetterID != "" || d.Claim != "" {
		return g.single(m)
	}
	g.join(m)
	defer g.part()
	for {
		v, err := g.hear(m)
		switch {
		case err != nil:
			return err
		case v.what == leads:
			g.lead(m)
		case v.what == alone:
			return g.single(m)
		default:
			return v.err
		}
	}
}

// single handles a message in a transaction of its own.
func (g *gatherer) single(m *member) (err error) {
	ctx, span := traceOne(m.ctx, m.delivery)
	returned := false
	defer func() { endOne(span, err, returned) }()
	err = g.in.Once(withoutOrigin(ctx), m.Message, func(ctx context.Context, tx pgx.Tx) error {
		return g.apply(ctx, tx, []*member{m})
	})
	returned = true
	return err
}

// join lets m wait.
func (g *gatherer) join(m *member) {
	g.mu.Lock()
	g.waiting = append(g.waiting, m)
	g.here++
	g.most[0] = max(g.most[0], g.here)
	if g.leader == nil {
		g.appoint()
	}
	g.mu.Unlock()
	select {
	case g.grown <- struct{}{}:
	default: // a signal that is pending is enough
	}
}

// part ends what join began.
func (g *gatherer) part() {
	g.mu.Lock()
	g.here--
	g.mu.Unlock()
}

// appoint makes the message that has waited longest the leader, if there is one.
func (g *gatherer) appoint() {
	g.leader = nil
	if len(g.waiting) > 0 {
		g.leader = g.waiting[0]
		g.leader.told <- verdict{what: leads}
	}
}

// hear waits for what m is told, or for the end of its context if that comes while
// it only waits.
func (g *gatherer) hear(m *member) (verdict, error) {
	select {
	case v := <-m.told:
		return v, nil
	case <-m.ctx.Done():
	}
	if g.leave(m) {
		return verdict{}, fmt.Errorf("inbox: consumer %s: wait for a batch: %w", g.in.consumer, context.Cause(m.ctx))
	}
	return <-m.told, nil // it is in a batch, or was
}

// leave takes m away while it waits. It is false once m is in a batch.
func (g *gatherer) leave(m *member) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, m)
	if i < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	if g.leader == m {
		g.appoint()
	}
	return true
}

// lead gathers a batch and runs it. Every message of it is told something, that of
// the leader too, also if the handler ends this goroutine.
func (g *gatherer) lead(m *member) {
	g.gather(m)
	if m.ctx.Err() != nil {
		return // hear makes it leave, and that appoints another
	}
	batch := g.take()
	rest := verdict{what: alone}
	succeed := sync.OnceFunc(func() {
		g.mu.Lock()
		g.appoint()
		g.mu.Unlock()
	})
	defer func() {
		succeed()
		for _, m := range batch {
			m.told <- rest // the first that it is told counts
		}
	}()
	if len(batch) > 1 { // alone needs no batch
		rest = g.run(batch, succeed)
	}
}

// run handles a batch in one transaction. It tells those that were handled before,
// and returns what the others are to be told. Once the handler is done it lets the
// next batch begin, which need not wait for a disk.
func (g *gatherer) run(batch []*member, succeed func()) (rest verdict) {
	ctx, cancel := together(batch)
	defer cancel()
	tx, fresh, err := g.in.beginAll(ctx, batch)
	if err != nil && !answered(err) {
		return verdict{done, err}
	}
	if err == nil {
		var todo []*member
		for _, m := range batch {
			if fresh[m.identity()] {
				todo = append(todo, m)
			} else {
				m.told <- verdict{done, g.in.processed(m.key)}
			}
		}
		err = g.traced(ctx, tx, todo, succeed)
	}
	switch {
	case err == nil:
		return verdict{what: done}
	case ctx.Err() == nil:
		first := batch[0].delivery.Envelope
		g.in.log.Warn("inbox: a batch failed; its messages are handled one by one", "consumer", g.in.consumer,
			"type", first.Type, "messages", len(batch), "first_id", first.ID, "correlation_id", first.CorrelationID,
			"error", fmt.Sprintf("%.512s", err))
	}
	return verdict{what: alone}
}

// traced is transact with a span for all of them.
func (g *gatherer) traced(ctx context.Context, tx pgx.Tx, todo []*member, applied func()) (err error) {
	if len(todo) == 0 {
		return g.transact(ctx, tx, todo, applied)
	}
	fault := faultBatch // also of a handler that ends its goroutine
	ctx, span := traceBatch(ctx, todo)
	defer func() { span.End(fault) }()
	if err = g.transact(ctx, tx, todo, applied); err == nil {
		fault = ""
	}
	return err
}

// transact applies the effects of some messages and commits. A panic is an error
// here: if it was for one message's sake, that will panic again alone, where the
// consumer deals with it.
func (g *gatherer) transact(ctx context.Context, tx pgx.Tx, todo []*member, applied func()) (err error) {
	open := true
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
		if open {
			g.in.rollback(ctx, tx)
		}
	}()
	if len(todo) == 0 {
		return nil
	}
	if err := g.apply(ctx, tx, todo); err != nil {
		return err
	}
	applied()
	open = false // Commit gives the connection back, whatever becomes of it
	return g.in.commit(ctx, tx, "batch")
}

// gather waits until the batch is full or as large as can be expected, has not
// grown for a while, or its first message has waited long enough.
func (g *gatherer) gather(first *member) {
	still := time.NewTimer(g.cfg.quiet)
	defer still.Stop()
	enough := time.NewTimer(time.Until(first.since.Add(g.cfg.Wait)))
	defer enough.Stop()
	for !g.full() {
		select {
		case <-g.grown:
			still.Reset(g.cfg.quiet)
		case <-still.C:
			return
		case <-enough.C:
			return
		case <-first.ctx.Done():
			return
		}
	}
}

// full tells whether there is nobody to wait for. A consumer has so many workers
// and no more; when as many wait as were ever here at the same time, since before
// the last batch, the others would come only after this one.
func (g *gatherer) full() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	most := max(g.most[0], g.most[1])
	return len(g.waiting) >= g.cfg.Size || !g.cfg.exact && len(g.waiting) >= most
}

// take makes a batch of those who have waited longest, and puts it into the order
// of the stream. A second copy of a message stays for the next batch, which finds
// the first handled, or not.
func (g *gatherer) take() []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.most = [2]int{g.here, g.most[0]}
	var batch []*member
	seen := map[identity]bool{}
	g.waiting = slices.DeleteFunc(g.waiting, func(m *member) bool {
		if len(batch) == g.cfg.Size || seen[m.identity()] || m.ctx.Err() != nil {
			return false
		}
		seen[m.identity()] = true
		batch = append(batch, m)
		return true
	})
	slices.SortFunc(batch, inStreamOrder)
	return batch
}

// inStreamOrder is the order of the stream, as far as one process sees it.
func inStreamOrder(a, b *member) int {
	return cmp.Or(cmp.Compare(a.delivery.Stream, b.delivery.Stream), cmp.Compare(a.delivery.Sequence, b.delivery.Sequence))
}

// together is the context of a batch: it ends when those of all messages have. A
// consumer cancels all of them at once when it stops.
func together(batch []*member) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(withoutOrigin(context.WithoutCancel(batch[0].ctx)))
	var left atomic.Int64
	left.Store(int64(len(batch)))
	stops := make([]func() bool, len(batch))
	for i, m := range batch {
		stops[i] = context.AfterFunc(m.ctx, func() {
			if left.Add(-1) == 0 {
				cancel(context.Cause(m.ctx))
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}

// withoutOrigin keeps what is sent for one message of a batch from being
// correlated with another.
func withoutOrigin(ctx context.Context) context.Context {
	return envelope.WithOrigin(ctx, envelope.Origin{})
}
