package outbox

import (
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/internal/telemetry"
)

// The states of a row under way.
const (
	rowWaiting  = iota // behind its key's predecessor, or ready to be sent
	rowInFlight        // sent, not answered
	rowDone            // stored, or passed over
)

// flight is the book-keeping of what is being published: which rows may be
// sent, which are out, which are done. It knows nothing of the broker.
//
// Pages join at its end while older ones are under way, so that the window
// never runs empty between two of them. Rows of one key form a chain, across
// pages; a row becomes ready when its predecessor is done. That is the whole of
// the ordering rule.
type flight struct {
	base    int64 // number of slots[0]
	slots   []slot
	pages   []*flightPage    // the first of them is not done, or nobody has asked yet
	tails   map[string]int64 // key → its last row that is not done
	again   []int64          // rows to be sent again: a stack, emptied before ready
	ready   []int64          // rows that may be sent: a queue
	head    int              // first used element of ready
	pending int              // in flight
	left    int              // not done
	newest  stored           // of all pages

	pausedUntil time.Time
	reconnects  uint64
}

// slot is one row under way. Slots are numbered for the life of a pipeline, so
// that a late answer never meets another row.
type slot struct {
	*row
	page   *flightPage
	next   int64     // the following row of the same key, or -1
	sentAt time.Time // of the latest attempt
	unsure time.Time // of the first attempt that was not answered; zero: none
	state  uint8
}

// flightPage is what is known of a page as a whole.
type flightPage struct {
	rows       int
	left       int   // not done
	last       int64 // seq of its last row: where the cursor may go
	after      int64 // every answer that came before it joined has a stream sequence up to this
	behind     int64 // what has not left when it leaves is stored behind this sequence, if at all
	newest     stored
	duplicates int    // rows that the stream had already
	free       func() // gives the memory of its envelopes back, or nil
	span       telemetry.Span
}

// stored is the newest stored message of some rows.
type stored struct {
	sequence int64
	row      *row
}

// newFlight numbers rows from first on. Everything stored before has a stream
// sequence up to after.
func newFlight(first, after int64) *flight {
	return &flight{base: first, tails: map[string]int64{}, newest: stored{sequence: after}}
}

// end is the number of the row that joins next.
func (f *flight) end() int64 { return f.base + int64(len(f.slots)) }

// at returns a row under way; nil if it is done with its page.
func (f *flight) at(number int64) *slot {
	if i := number - f.base; i >= 0 && i < int64(len(f.slots)) {
		return &f.slots[i]
	}
	return nil
}

// join adds a page. What pass tells to be passed over is done at once.
func (f *flight) join(next page, pass func(*row) bool) *flightPage {
	rows := next.rows
	page := &flightPage{free: next.free, rows: len(rows), left: len(rows), last: rows[len(rows)-1].seq, after: f.newest.sequence}
	f.pages = append(f.pages, page)
	f.left += len(rows)
	for i := range rows {
		number := f.end()
		f.slots = append(f.slots, slot{row: &rows[i], page: page, next: -1})
		if pass(&rows[i]) {
			f.done(number)
			continue
		}
		if before, ok := f.tails[rows[i].key]; ok {
			f.at(before).next = number
		} else {
			f.ready = append(f.ready, number)
		}
		f.tails[rows[i].key] = number
	}
	return page
}

// arrived tells whether a page can leave.
func (f *flight) arrived() bool { return len(f.pages) > 0 && f.pages[0].left == 0 }

// leave returns the oldest page once all of it is done, else nil.
func (f *flight) leave() *flightPage {
	if !f.arrived() {
		return nil
	}
	page := f.pages[0]
	f.pages = f.pages[1:]
	if page.behind = f.newest.sequence; len(f.pages) > 0 {
		page.behind = f.pages[0].after
	}
	if page.free != nil {
		page.free()
	}
	clear(f.slots[:page.rows])
	f.slots, f.base = f.slots[page.rows:], f.base+int64(page.rows)
	f.ready, f.head = append(f.ready[:0], f.ready[f.head:]...), 0
	return page
}

func (f *flight) paused() bool {
	return !f.pausedUntil.IsZero() && time.Now().Before(f.pausedUntil)
}

// pop returns the next row to send. A row that a late answer proved stored
// meanwhile is passed over.
func (f *flight) pop() (int64, bool) {
	for {
		var number int64
		switch {
		case len(f.again) > 0:
			number = f.again[len(f.again)-1]
			f.again = f.again[:len(f.again)-1]
		case f.head < len(f.ready):
			number = f.ready[f.head]
			f.head++
		default:
			return 0, false
		}
		if s := f.at(number); s != nil && s.state == rowWaiting {
			return number, true
		}
	}
}

func (f *flight) sent(number int64, now time.Time) {
	s := f.at(number)
	s.state, s.sentAt = rowInFlight, now
	f.pending++
}

// stored takes an acknowledgement and frees the key's next row.
func (f *flight) stored(number int64, sequence uint64, duplicate bool) {
	s := f.at(number)
	if s == nil || s.state == rowDone {
		return
	}
	if duplicate {
		s.page.duplicates++
	}
	if seq := int64(sequence); seq > s.page.newest.sequence {
		s.page.newest = stored{seq, s.row}
		if seq > f.newest.sequence {
			f.newest = s.page.newest
		}
	}
	f.done(number)
	if s.next >= 0 {
		f.ready = append(f.ready, s.next)
	} else if f.tails[s.key] == number {
		delete(f.tails, s.key)
	}
}

func (f *flight) done(number int64) {
	s := f.at(number)
	if s.state == rowInFlight {
		f.pending--
	}
	s.state = rowDone
	s.page.left--
	f.left--
}

// hold passes over a row and all that follow it in its key.
func (f *flight) hold(number int64) {
	delete(f.tails, f.at(number).key)
	for number >= 0 {
		f.done(number)
		number = f.at(number).next
	}
}

// failed takes a row that is not known to be stored: it goes before everything
// that was never sent.
func (f *flight) failed(number int64) {
	s := f.at(number)
	if s.state == rowInFlight {
		f.pending--
	}
	s.state = rowWaiting
	f.again = append(f.again, number)
}

// failOlder fails the rows whose latest attempt was sent before the given time
// and is not answered.
func (f *flight) failOlder(than time.Time) int {
	late := 0
	for i := len(f.slots) - 1; i >= 0 && f.pending > 0; i-- {
		if s := &f.slots[i]; s.state == rowInFlight && s.sentAt.Before(than) {
			if s.unsure.IsZero() {
				s.unsure = s.sentAt
			}
			f.failed(f.base + int64(i))
			late++
		}
	}
	return late
}

// failAll fails everything that is in flight.
func (f *flight) failAll() {
	f.failOlder(time.Now().Add(time.Hour))
}

// anchor returns what an anchor can remember. A row whose header does not carry
// the row's id could not be recognised in the stream; such rows are not ours,
// and are published without being an anchor.
func (s stored) anchor() highest {
	if s.row == nil || !s.row.recognisable() {
		return highest{}
	}
	return highest{s.sequence, s.row.id}
}

// recognisable tells that the message of a row carries the row's id, whole and
// once, so that it can be told in the stream. Another one would look lost.
func (r *row) recognisable() bool {
	const name = "\r\nNats-Msg-Id: "
	headers := "\r\n" + r.headers + "\r\n"
	return strings.Count(headers, name) == 1 && strings.Contains(headers, name+r.uuid()+"\r\n")
}
