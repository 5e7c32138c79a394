package envelope

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// newID returns a UUIDv7: time-ordered, so that tables keyed by it can be
// partitioned by time, and increasing within a process.
//
// It is what uuid.NewV7 makes, without a read from the system and a lock in every
// transaction that sends a message. The 62 random bits need to be no secret, only
// never the same: they come from the generator of the runtime, ChaCha8 with a seed
// from the system for each thread.
func newID() (id uuid.UUID) {
	ticks := nextTicks()
	millis, fraction := ticks>>fractionBits, ticks&(1<<fractionBits-1)
	binary.BigEndian.PutUint64(id[:8], uint64(millis)<<16|7<<12|uint64(fraction))
	binary.BigEndian.PutUint64(id[8:], 1<<63|rand.Uint64()>>2)
	return id
}

// fractionBits is how much of an id tells the part of a millisecond, in units of
// 256 ns: what stands between the version and the variant.
const fractionBits = 12

// lastTicks is the time in the last id of this process.
var lastTicks atomic.Int64

// nextTicks returns the time in milliseconds and their fraction, and one more than
// before where the clock has not moved or was set back.
func nextTicks() int64 {
	now := time.Now().UnixNano()
	millis := now / int64(time.Millisecond)
	ticks := millis<<fractionBits | now%int64(time.Millisecond)>>8
	for {
		last := lastTicks.Load()
		next := max(ticks, last+1)
		if lastTicks.CompareAndSwap(last, next) {
			return next
		}
	}
}
