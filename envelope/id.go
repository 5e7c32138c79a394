package envelope

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/google/uuid"
)

// newID returns a UUIDv7: time-ordered, so that tables keyed by it can be
// partitioned by time, and increasing within a process.
func newID() uuid.UUID {
	// The error is the reader's, which has none.
	return uuid.Must(uuid.NewV7FromReader(runtimeRandom{}))
}

// runtimeRandom reads from the generator of the runtime, ChaCha8 with a seed from
// the system for each thread. Asking the system itself costs more, in every
// transaction that sends a message, and the bits of an id need to be no secret,
// only never the same.
type runtimeRandom struct{}

// Read fills p; it never fails.
func (runtimeRandom) Read(p []byte) (int, error) {
	n := len(p)
	var word [8]byte
	for len(p) > 0 {
		binary.LittleEndian.PutUint64(word[:], rand.Uint64())
		p = p[copy(p, word[:]):]
	}
	return n, nil
}
