package topology

import (
	"fmt"
	"strconv"
	"time"
)

// bound is one row of the limits that Validate holds values against.
type bound struct {
	field    string
	value    int64
	min, max int64
	unit     func(int64) string
	reason   string // why there is a limit
}

// fault returns what is wrong with the value, or "".
func (b bound) fault() string {
	switch {
	case b.value < b.min:
		return fmt.Sprintf("%s is below %s: %s", b.unit(b.value), b.unit(b.min), b.reason)
	case b.value > b.max:
		return fmt.Sprintf("%s is above %s: %s", b.unit(b.value), b.unit(b.max), b.reason)
	}
	return ""
}

func number(n int64) string   { return strconv.FormatInt(n, 10) }
func size(n int64) string     { return strconv.FormatInt(n, 10) + " bytes" }
func duration(n int64) string { return time.Duration(n).String() }

const (
	year     = int64(365 * 24 * time.Hour)
	anything = int64(1) << 60
)

// streamBounds are the limits of a stream's settings.
func streamBounds(s Stream) []bound {
	minSize := int64(MaxMsgSize)
	if s.Class.dead() {
		minSize = MaxLetterSize
	}
	bounds := []bound{
		{"MaxBytes", s.MaxBytes, max(1<<20, int64(s.MaxMsgSize)), anything, size,
			"a message of the allowed size must fit, or its key is blocked for ever; the server accepts no limit, and then the disk is it"},
		{"MaxMsgs", s.MaxMsgs, 0, anything, number,
			"0 is no limit"},
		{"MaxMsgSize", int64(s.MaxMsgSize), minSize, 8 << 20, size,
			"an envelope of 512 KiB with 64 KiB of headers must fit, in a dead letter 64 KiB more; above 8 MiB belongs in an object store"},
		{"Replicas", int64(s.Replicas), 1, 5, number,
			"1 is for development, 3 for production; the server takes no more than 5"},
		{"Duplicates", int64(s.Duplicates), int64(100 * time.Millisecond), int64(time.Hour), duration,
			"it must cover a resend, and costs memory for each message in it; 2m0s is meant"},
	}
	if s.Class.dead() {
		return append(bounds, bound{"MaxAge", int64(s.MaxAge), 0, 0, duration,
			"an unresolved dead letter may not age out; leave it 0"})
	}
	return append(bounds, bound{"MaxAge", int64(s.MaxAge), max(int64(time.Second), int64(s.Duplicates)), 10 * year, duration,
		"it must cover the duplicate window, and a stream without age only ends when it is full"})
}

// consumerBounds are the limits of a consumer's settings, after defaults.
func consumerBounds(c Consumer) []bound {
	return []bound{
		{"AckWait", int64(c.AckWait), int64(100 * time.Millisecond), int64(24 * time.Hour), duration,
			"too short repeats work that is under way, too long delays what a crash left; 2m0s is meant"},
		{"MaxAckPending", int64(c.MaxAckPending), 1, 10_000, number,
			"it bounds the work in flight of all replicas together; 50 is meant"},
	}
}
