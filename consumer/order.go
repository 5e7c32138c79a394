package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/bounds"
)

// Bounds and defaults of an Order.
const (
	// DefaultLeaseTTL is how long an instance that died keeps the durable from
	// the others.
	DefaultLeaseTTL = 6 * time.Second
	// DefaultMaxAhead is how many messages may be handled behind one that is not.
	DefaultMaxAhead = 10_000

	minLeaseTTL = time.Second
	maxLeaseTTL = time.Minute
	minAhead    = 100
	maxAhead    = 1_000_000
	maxShards   = 64
)

// Order makes a consumer handle the messages of one key one at a time and in the
// order of the stream. Its zero value is right for production.
//
// Different keys are handled concurrently. A message that fails is tried again
// in its place: it holds those of its key, and no other key. Those that wait are
// kept in memory and hold one of the durable's MaxAckPending places each, so
// declare more of these than Concurrency: a few hundred. They, up to 1000, and not
// Concurrency then bound memory.
//
// The ctx of a handler ends when the lease is lost, too. What it returns then, nil
// included, settles nothing: the next active instance gets the message again, and
// the inbox absorbs what was committed.
//
// Before a durable gets an Order, stop all instances that read it without one. What
// they take is missing in the active instance's deliveries, and has it reset the
// durable again and again. See the package documentation, Order.
type Order struct {
	// Key returns what a message keeps its order within. It must be a pure
	// function, safe for concurrent use; a panic makes the message a dead letter.
	// Replicas must use the same. Default: the envelope's subject.
	Key func(*envelope.Envelope) string

	// HoldKey keeps a key waiting when one of its messages becomes a dead letter,
	// until an operator replays the letter, and it succeeds, or closes it. The
	// replay goes before those that wait, which are parked meanwhile (see the
	// package documentation, Long delays). A message that contradicts itself or cannot be decoded has no key to hold. Needs a
	// DeadLetterer that is a LetterState, as *dlq.Queue is. Default false: the
	// key goes on.
	HoldKey bool

	// LeaseTTL is how long the active instance may go without renewing its lease
	// before another takes over. It renews every third of that. 1 s to 1 min.
	// Default 6 s.
	LeaseTTL time.Duration

	// MaxAhead is how many messages may be handled behind one that is not yet.
	// At each take-over they come again, and the inbox absorbs them; beyond it
	// nothing is fetched until the oldest message is done. 100 to 1,000,000.
	// Default 10,000.
	MaxAhead int

	// Shard and Shards divide the keys among durables of their own, each with an
	// active instance of its own: this one handles the keys whose hash modulo
	// Shards is Shard, and acknowledges the others untouched. What has no key
	// falls to shard 0. See the package documentation, Shards. Shards is at most
	// 64. Default 0 of 0: all keys.
	Shard, Shards int
}

// OrderedStore is what Config.Store must be for an Order: it also decides which
// instance is active, and knows the keys that wait for an operator. *inbox.Inbox
// is one; its methods are safe for concurrent use.
type OrderedStore interface {
	Store
	// Acquire takes the named lease for ttl if it is free or the holder's own.
	// delivered is the highest value that Reached was given.
	Acquire(ctx context.Context, name, holder string, ttl time.Duration) (f envelope.Fence, delivered uint64, held bool, err error)
	// Renew keeps the lease for ttl from now, if it is still held.
	Renew(ctx context.Context, f envelope.Fence, ttl time.Duration) (held bool, err error)
	// Release lets the next instance take over at once.
	Release(ctx context.Context, f envelope.Fence) error
	// Reached notes the highest stream sequence that was delivered.
	Reached(ctx context.Context, f envelope.Fence, sequence uint64) error
	// ParkBehind parks p if a message of its key is parked, behind all of them, and
	// reports whether it is.
	ParkBehind(ctx context.Context, p *envelope.Parked) (parked bool, err error)
	// ReclaimParked ends the claims that earlier holders of the lease left on parked
	// messages of a durable.
	ReclaimParked(ctx context.Context, durable string) error
	// ParkedKeys returns the keys of which messages of a durable are parked.
	ParkedKeys(ctx context.Context, durable string) ([]string, error)
	// HeldKeys returns the keys that wait for an operator.
	HeldKeys(ctx context.Context, f envelope.Fence) ([]envelope.HeldKey, error)
	// Hold notes that a key waits for an operator.
	Hold(ctx context.Context, f envelope.Fence, k envelope.HeldKey) error
	// Unhold notes that no key waits for the letter any more.
	Unhold(ctx context.Context, f envelope.Fence, letterID string) error
}

// LetterState tells whether an operator has closed a letter. *dlq.Queue is one.
type LetterState interface {
	// Closed reports whether the letter is resolved or discarded.
	Closed(ctx context.Context, letterID string) (bool, error)
}

// withDefaults fills what is zero.
func (o *Order) withDefaults() *Order {
	if o == nil {
		return nil
	}
	filled := *o
	filled.LeaseTTL = cmp.Or(filled.LeaseTTL, DefaultLeaseTTL)
	filled.MaxAhead = cmp.Or(filled.MaxAhead, DefaultMaxAhead)
	return &filled
}

// orderFaults checks what an Order needs.
func (c Config) orderFaults(dead DeadLetterer) []error {
	if c.Order == nil {
		return nil
	}
	var faults []error
	if _, ok := c.Store.(OrderedStore); !ok {
		faults = append(faults, errors.New("consumer: Config.Order: needs a Store that holds leases; set Config.Store to the *inbox.Inbox of the handlers"))
	}
	if _, ok := dead.(LetterState); c.Order.HoldKey && dead != nil && !ok {
		faults = append(faults, errors.New("consumer: Config.Order.HoldKey: dead cannot tell whether a letter is closed; pass the queue of dlq.Open"))
	}
	faults = append(faults, bounds.Check("consumer: Config.Order.",
		bounds.Of("LeaseTTL", c.Order.LeaseTTL, minLeaseTTL, maxLeaseTTL, "it is how long a dead instance holds the durable up"),
		bounds.Of("MaxAhead", c.Order.MaxAhead, minAhead, maxAhead, "so many messages come again at a take-over"),
	)...)
	if o := c.Order; o.Shards < 0 || o.Shards > maxShards || o.Shard < 0 || o.Shard >= max(o.Shards, 1) {
		faults = append(faults, fmt.Errorf("consumer: Config.Order.Shard: %d of %d is out of range; use 0 to Shards-1, and at most %d Shards (each reads the whole stream)", o.Shard, o.Shards, maxShards))
	}
	return faults
}

// skips reports whether a key, or a message without one, is another shard's.
func (o *Order) skips(key string, keyed bool) bool {
	switch {
	case o.Shards <= 1:
		return false
	case !keyed:
		return o.Shard != 0
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, key) // never fails
	return h.Sum64()%uint64(o.Shards) != uint64(o.Shard)
}

// window is how many messages may be held at once: with an Order those that wait
// for their turn too.
func (c Config) window() int {
	if c.Order == nil {
		return c.Concurrency
	}
	return max(c.Concurrency, min(c.Consumer.MaxAckPending, maxConcurrency))
}

// orderKey returns the key of a message that was decoded.
func (o *Order) orderKey(e *envelope.Envelope) (key string, err error) {
	if o.Key == nil {
		return e.Subject, nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = newPanicError(v)
		}
	}()
	return o.Key(e), nil
}
