package envelope

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// newID returns a UUIDv7 (RFC 9562, section 6.2, method 3): time-ordered, so that
// tables keyed by it can be partitioned by time, and increasing within a process.
//
// uuid.NewV7 asks the system for random bits, or keeps some under a lock. Those of
// the runtime are ChaCha8 with a seed from the system for each thread: the bits of
// an id need to be no secret, only never the same.
func newID() (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:8], ticks(time.Now()))
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	id[8] = id[8]&0x3f | 0x80 // variant
	return id
}

// lastTick is the latest of this process.
var lastTick atomic.Int64

// ticks returns the first half of an id: the milliseconds, the version, and 12 bits
// that count steps of 256 ns within them. Where the clock has not moved on, or went
// back, it is counted on.
func ticks(now time.Time) uint64 {
	const version = 7
	nanos := now.UnixNano()
	tick := nanos/1e6<<12 + nanos%1e6>>8
	for {
		last := lastTick.Load()
		tick = max(tick, last+1)
		if lastTick.CompareAndSwap(last, tick) {
			return uint64(tick>>12<<16 | version<<12 | tick&0xfff)
		}
	}
}
