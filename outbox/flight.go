package outbox

import "time"

// The states of a row within its page.
const (
	rowWaiting  = iota // behind its key's predecessor, or ready to be sent
	rowInFlight        // sent, not answered
	rowStored          // acknowledged by the stream
)

// flight is the book-keeping of one page: which rows may be sent, which are
// out, which are stored. It knows nothing of the broker.
//
// Rows of one key form a chain; a row becomes ready when its predecessor is
// stored. That is the whole of the ordering rule.
type flight struct {
	rows        []row
	state       []uint8
	sentAt      []time.Time // of the latest attempt
	next        []int32     // the following row of the same key, or -1
	ready       []int32     // rows that may be sent, a stack of resends over a queue
	head        int         // first used element of ready
	out         []attempt   // attempts in the order they were sent
	pending     int
	acked       int
	high        highest
	highRow     int32 // whose message it is, or -1
	pausedUntil time.Time
	reconnects  uint64
}

type attempt struct {
	row int32
	at  time.Time
}

func newFlight(rows []row) *flight {
	f := &flight{
		rows: rows, highRow: -1,
		state:  make([]uint8, len(rows)),
		sentAt: make([]time.Time, len(rows)),
		next:   make([]int32, len(rows)),
		ready:  make([]int32, 0, len(rows)),
	}
	tails := make(map[string]int32, len(rows))
	for i := range rows {
		n := int32(i)
		f.next[i] = -1
		if before, ok := tails[rows[i].key]; ok {
			f.next[before] = n
		} else {
			f.ready = append(f.ready, n)
		}
		tails[rows[i].key] = n
	}
	return f
}

func (f *flight) paused() bool {
	return !f.pausedUntil.IsZero() && time.Now().Before(f.pausedUntil)
}

// pop returns the next row to send. A row that a late answer proved stored
// meanwhile is passed over.
func (f *flight) pop() (int32, bool) {
	for f.head < len(f.ready) {
		i := f.ready[f.head]
		f.head++
		if f.state[i] == rowWaiting {
			return i, true
		}
	}
	return 0, false
}

func (f *flight) sent(i int32) {
	f.state[i] = rowInFlight
	f.pending++
	f.sentAt[i] = time.Now()
	f.out = append(f.out, attempt{i, f.sentAt[i]})
}

// stored takes an acknowledgement and frees the key's next row.
func (f *flight) stored(i int32, sequence uint64) {
	switch f.state[i] {
	case rowStored:
		return
	case rowInFlight:
		f.pending--
	}
	f.state[i] = rowStored
	f.acked++
	if seq := int64(sequence); seq > f.high.sequence {
		f.high, f.highRow = highest{seq, f.rows[i].id}, i
	}
	if f.next[i] >= 0 {
		f.ready = append(f.ready, f.next[i])
	}
}

// failed puts a row that is not known to be stored at the front, before
// everything that was never sent.
func (f *flight) failed(i int32) {
	if f.state[i] == rowInFlight {
		f.pending--
	}
	f.state[i] = rowWaiting
	if f.head > 0 {
		f.head--
		f.ready[f.head] = i
		return
	}
	f.ready = append([]int32{i}, f.ready...)
}

// failOlder fails the rows whose latest attempt was sent before the given time
// and is not answered.
func (f *flight) failOlder(than time.Time) int {
	n, late := 0, 0
	for ; n < len(f.out) && f.out[n].at.Before(than); n++ {
		i := f.out[n].row
		if f.state[i] == rowInFlight && f.sentAt[i].Equal(f.out[n].at) {
			f.failed(i)
			late++
		}
	}
	f.out = f.out[n:]
	return late
}

// failAll fails everything that is in flight.
func (f *flight) failAll() {
	f.failOlder(time.Now().Add(time.Hour))
}
