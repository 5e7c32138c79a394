package consumer

import "slices"

// fate is what becomes of a delivery of an ordered consumer.
type fate uint8

const (
	// taken: it is new here.
	taken fate = iota + 1
	// ignored: it came before the durable was reset, and comes again.
	ignored
	// missed: deliveries before it went elsewhere.
	missed
	// twin: the message is held already.
	twin
	// known: the message was settled in this term, and is acknowledged again.
	known
)

// track proves that one term gets every delivery of its durable, and knows what
// it has seen. Its owner locks it.
//
// The server numbers its deliveries. A number that is missing went to another
// client: an instance that asked for messages and then lost the lease, or this
// one before its connection broke. Those behind it must not be handled first, so
// nothing is taken until the durable was reset to its ack floor. The reset makes
// the server deliver everything that is open again, in the order of the stream.
// What is held here stays held, and is recognised when it comes.
type track struct {
	from string // subscription whose deliveries count, "" for none
	next uint64 // number that the next delivery must have
	back bool   // what came shows that somebody else has reset the durable

	floor   uint64              // ack floor at the last reset: what comes is behind it
	high    uint64              // highest sequence delivered before the last reset
	held    map[uint64]struct{} // sequences that are held
	low     uint64              // first sequence that came, 0 before
	done    uint64              // all that came up to here is settled
	window  []uint64            // what came behind, ascending
	settled map[uint64]struct{} // of the window
	room    func(ahead int)
}

func newTrack(high uint64, room func(int)) track {
	return track{high: high, held: map[uint64]struct{}{}, settled: map[uint64]struct{}{}, room: room}
}

// arrive decides on a delivery; again says that a handler may have been started
// for it before.
func (t *track) arrive(m *message, from string) (f fate, again bool) {
	switch {
	case t.from == "" || from != t.from:
		return ignored, false
	case m.consumerSeq != t.next || m.sequence <= t.floor:
		t.from, t.back = "", m.consumerSeq < t.next || m.sequence <= t.floor
		return missed, false
	}
	t.next++
	seq := m.sequence
	if t.low == 0 {
		t.low, t.done = seq, seq-1
	}
	_, held := t.held[seq]
	if _, ok := t.settled[seq]; !held && (ok || seq >= t.low && seq <= t.done) {
		return known, false
	}
	// One that is not behind all others came before this term; it does not count
	// as ahead of anything. One that is held counts anew after a foreign reset.
	if n := len(t.window); seq > t.done && (n == 0 || seq > t.window[n-1]) {
		t.window = append(t.window, seq)
		t.room(len(t.window))
	}
	if held {
		return twin, false
	}
	t.held[seq] = struct{}{}
	return taken, m.delivered > 1 || seq <= t.high
}

// settle notes that a message was acknowledged or terminated.
func (t *track) settle(seq uint64) {
	delete(t.held, seq)
	if _, found := slices.BinarySearch(t.window, seq); !found {
		return
	}
	t.settled[seq] = struct{}{}
	n := 0
	for ; n < len(t.window); n++ {
		if _, ok := t.settled[t.window[n]]; !ok {
			break
		}
		delete(t.settled, t.window[n])
		t.done = t.window[n]
	}
	if n > 0 {
		t.window = t.window[n:]
		t.room(len(t.window))
	}
}

// fruitless reports whether nothing was accepted since the last reset.
func (t *track) fruitless() bool { return t.next == 1 }

// shut takes nothing until reset, and returns the number of the last delivery.
func (t *track) shut() (last uint64) {
	t.from = ""
	return max(t.next, 1) - 1
}

// reset takes the deliveries of a subscription, which the server counts from 1
// again. high is the highest sequence that it had delivered, and floor its ack
// floor. If somebody else had reset the durable before, as foreign says or a floor
// that went back, it is their wish that what was settled is delivered, and nothing
// is known of it.
func (t *track) reset(from string, floor, high uint64, foreign bool) {
	foreign = foreign || t.back || floor < t.floor
	t.from, t.next, t.back, t.floor, t.high = from, 1, false, floor, max(t.high, high)
	if foreign {
		t.low, t.done, t.window = 0, 0, nil
		clear(t.settled)
		t.room(0)
	}
}
