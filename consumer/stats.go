package consumer

import "sync/atomic"

// Stats is a snapshot of what a Consumer did since it was made. The numbers are
// read one after the other, so a message may be in two of them or in none.
type Stats struct {
	// Handled is the number of messages acknowledged after their handler
	// succeeded.
	Handled uint64
	// Duplicates is the number acknowledged because the effect was already
	// there (envelope.ErrAlreadyProcessed), or the message is parked.
	Duplicates uint64
	// Retried is the number of failed attempts that will be tried again.
	Retried uint64
	// Parked is the number of messages moved to the Store because of a long delay.
	Parked uint64
	// Waiting is how many parked messages of the durable wait in the Store, those
	// of other replicas included, as of a few seconds ago.
	Waiting int
	// DeadLetters is the number of messages that became a dead letter.
	DeadLetters uint64
	// Released is the number of messages given back untried or interrupted by a
	// shutdown.
	Released uint64
	// Rejected is the number of malformed replay instructions that were
	// terminated: they name no letter.
	Rejected uint64
	// Skipped is the number acknowledged untouched because another shard handles
	// them (Order.Shards).
	Skipped uint64
	// Requests is the number of requests to the broker: pulls and look-ups.
	Requests uint64
	// InFlight is the number of messages that were received and are not
	// settled.
	InFlight int
	// Active says that this instance of a consumer with an Order holds the lease:
	// it is the one that fetches. It is false without an Order.
	Active bool
}

// counters are the live numbers behind Stats.
type counters struct {
	handled, duplicates, retried, parked, deadLetters, released, rejected, skipped, requests atomic.Uint64
	delivered, redelivered                                                                   atomic.Uint64
}

// arrived counts a delivery.
func (c *counters) arrived(m *message) {
	c.delivered.Add(1)
	if m.delivered > 1 {
		c.redelivered.Add(1)
	}
}

// Stats returns a snapshot. It is safe for concurrent use and does not block.
func (c *Consumer) Stats() Stats {
	return Stats{
		Handled:     c.count.handled.Load(),
		Duplicates:  c.count.duplicates.Load(),
		Retried:     c.count.retried.Load(),
		Parked:      c.count.parked.Load(),
		Waiting:     c.lot.waiting(),
		DeadLetters: c.count.deadLetters.Load(),
		Released:    c.count.released.Load(),
		Rejected:    c.count.rejected.Load(),
		Skipped:     c.count.skipped.Load(),
		Requests:    c.count.requests.Load(),
		InFlight:    c.gate.inFlight(),
		Active:      c.order != nil && c.order.current.Load() != nil,
	}
}
