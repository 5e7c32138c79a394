package sites

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"time"
)

// Windows are minutes since 1970. Digests of several minutes add up.
const (
	// coarse is how many minutes one window has in the first look; what differs
	// there is looked at minute by minute.
	coarse = 60
	// clockSlack is how far the clocks of two sites, or of an author and a broker,
	// may differ without a message being looked for in the wrong place.
	clockSlack = 5 * time.Minute
)

// sum is a sum of hashes of ids, modulo 2^128. It does not depend on order. It is
// no xor, in which what is there twice would vanish.
type sum struct{ hi, lo uint64 }

// hashOf is the share of one id in a sum.
func hashOf(id string) sum {
	h := sha256.Sum256([]byte(id))
	return sum{binary.BigEndian.Uint64(h[:8]), binary.BigEndian.Uint64(h[8:16])}
}

func (s sum) plus(t sum) sum {
	lo, carry := bits.Add64(s.lo, t.lo, 0)
	hi, _ := bits.Add64(s.hi, t.hi, carry)
	return sum{hi, lo}
}

// digest is how many messages a window has, and the sum of their ids.
type digest struct {
	count uint64
	sum   sum
}

func (d digest) plus(e digest) digest { return digest{d.count + e.count, d.sum.plus(e.sum)} }

// text is the sum on the wire.
func (s sum) text() string { return fmt.Sprintf("%016x%016x", s.hi, s.lo) }

func parseSum(text string) (sum, error) {
	if len(text) != 32 {
		return sum{}, strconv.ErrSyntax
	}
	hi, err := strconv.ParseUint(text[:16], 16, 64)
	if err != nil {
		return sum{}, err
	}
	lo, err := strconv.ParseUint(text[16:], 16, 64)
	return sum{hi, lo}, err
}

// minute is the window of a time.
func minute(t time.Time) int64 { return t.Unix() / 60 }

// timeOf is the begin of a window.
func timeOf(minute int64) time.Time { return time.Unix(minute*60, 0) }

// idTime returns the time in an id that is a UUID of version 7. Both sites read it
// alike, whatever their clocks say; other ids have none.
func idTime(id string) (time.Time, bool) {
	const length, version = 36, 14
	if len(id) != length || id[8] != '-' || id[version] != '7' {
		return time.Time{}, false
	}
	ms, err := strconv.ParseUint(id[:8]+id[9:13], 16, 64)
	if err != nil {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(ms)), true
}
