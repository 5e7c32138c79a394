package sites

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pass"
)

const (
	// catchUpTime bounds one reading of an index; it goes on with the next.
	catchUpTime = 2 * time.Second
	// indexPage is how many headers wait in memory while one is built.
	indexPage = 1000
	// rebuildAfter is when an index is made anew: it does not see that a single
	// message was deleted.
	rebuildAfter = time.Hour
	// maxID is the longest id that is compared; ids of the platform have 36 bytes.
	maxID = 128
)

// kind is which windows a message is in.
type kind string

const (
	// byID are the windows of the time in the id, which is the same at both sites.
	// Both have them, so that digests are compared.
	byID kind = "id"
	// byStore are the windows of the time at which the origin stored a message whose
	// id has no time, or one that is far from it. Only the origin has them; their
	// ids are looked for one by one, once.
	byStore kind = "store"
)

// window is what an index knows of a minute.
type window struct {
	digest
	low, high uint64 // between these sequences its messages are
}

func (w *window) add(id string, seq uint64) {
	w.digest = w.digest.plus(digest{1, hashOf(id)})
	if w.low == 0 {
		w.low = seq
	}
	w.high = seq
}

// index is what a flow has in a stream, by windows. It reads headers when it is
// asked to, in a pass that leaves nothing behind on the server, so that there is no
// consumer that could be lost. Its memory is that of its windows: a few hundred
// bytes for each minute of the horizon, whatever the stream holds. It is safe for
// concurrent use.
type index struct {
	stream  string
	filters []string
	arrival *arrival // where the flow ends; nil at its origin
	horizon time.Duration

	mu      sync.Mutex
	built   time.Time // when it was begun anew
	since   time.Time // what was stored before is not in it
	created time.Time // of the stream
	state   jetstream.StreamState
	whole   bool // all of state was read

	anchor   uint64 // the newest message that was read
	anchorID string
	position uint64 // at the destination: the origin's sequence of what came last
	resent   uint64 // the same, of what was resent
	windows  map[kind]map[int64]*window
}

// catchUp reads what came since the last time, for a bounded time. done says that it
// has all that the stream held at the beginning of the call. A stream that was made
// anew, or put back to an earlier state, is read from the beginning.
func (x *index) catchUp(ctx context.Context, js jetstream.JetStream) (done bool, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	// A request that was lost with a stream's leader is never answered, and who asks
	// meanwhile waits behind it.
	short, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	stream, err := js.Stream(short, x.stream)
	if err != nil {
		return false, fmt.Errorf("read stream %s: %w", x.stream, err)
	}
	info := stream.CachedInfo()
	if x.whole && info.Created.Equal(x.created) && info.State.LastSeq == x.state.LastSeq && info.State.LastTime.Equal(x.state.LastTime) && !x.old() {
		x.state = info.State // its beginning may have moved
		return true, nil
	}
	holds, err := x.holds(short, stream)
	if err != nil {
		return false, err
	}
	if !holds {
		if err := x.begin(ctx, stream); err != nil {
			return false, err
		}
	}
	x.whole = false
	if done, err = x.read(ctx, stream); err != nil || !done {
		return false, err
	}
	x.state, x.whole = info.State, true
	x.prune()
	return true, nil
}

func (x *index) old() bool { return time.Since(x.built) >= rebuildAfter }

// holds reports whether the stream still is the one that was read: the message that
// was read last is where it was. One that was removed since proves nothing.
func (x *index) holds(ctx context.Context, stream jetstream.Stream) (bool, error) {
	info := stream.CachedInfo()
	if x.windows == nil || x.old() || !info.Created.Equal(x.created) || info.State.LastSeq < x.anchor {
		return false, nil
	}
	if x.anchor == 0 {
		return true, nil
	}
	m, err := stream.GetMsg(ctx, x.anchor)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read message %d of %s: %w", x.anchor, x.stream, err)
	}
	return m.Header.Get(envelope.HeaderMsgID) == x.anchorID, nil
}

// begin empties the index for a stream.
func (x *index) begin(ctx context.Context, stream jetstream.Stream) error {
	now := time.Now()
	x.built, x.since, x.created = now, now.Add(-x.horizon-2*clockSlack), stream.CachedInfo().Created
	x.anchor, x.anchorID, x.position, x.resent = 0, "", 0, 0
	x.windows = map[kind]map[int64]*window{byID: {}, byStore: {}}
	if x.arrival == nil {
		return nil
	}
	// What came last may be older than the horizon.
	var last position
	err := last.update(ctx, stream, *x.arrival)
	x.position = last.seq
	return err
}

// read adds what is behind the anchor.
func (x *index) read(ctx context.Context, stream jetstream.Stream) (done bool, err error) {
	p := pass.Pass{
		Stream: stream, Purpose: passPurpose, Filters: x.filters, HeadersOnly: true, Page: indexPage, Timeout: localTimeout,
		Policy: jetstream.DeliverByStartSequencePolicy, From: x.anchor + 1,
	}
	if x.anchor == 0 {
		p.Policy, p.From, p.Since = jetstream.DeliverByStartTimePolicy, 0, x.since
	}
	until, n := time.Now().Add(catchUpTime), 0
	done = true
	err = p.Run(ctx, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		x.add(m.Headers(), meta.Sequence.Stream, meta.Timestamp)
		n++
		done = n%indexPage != 0 || time.Now().Before(until)
		return done, nil
	})
	return done && err == nil, err
}

// add takes one message.
func (x *index) add(h nats.Header, seq uint64, stored time.Time) {
	id := h.Get(envelope.HeaderMsgID)
	x.anchor, x.anchorID = seq, id
	if !x.came(h) || !plainID(id) {
		return
	}
	named, timed := idTime(id)
	if off := named.Sub(stored); timed && off > -2*maxHorizon && off < 2*maxHorizon {
		x.window(byID, minute(named)).add(id, seq)
		timed = off >= -clockSlack && off <= clockSlack
	} else {
		timed = false
	}
	if !timed && x.arrival == nil {
		x.window(byStore, minute(stored)).add(id, seq)
	}
}

// came reports whether a message is the flow's, and keeps how far the flow came.
func (x *index) came(h nats.Header) bool {
	if x.arrival == nil {
		return true
	}
	if seq := x.arrival.sequence(h); seq > 0 {
		x.position = seq
		return true
	}
	if seq := x.arrival.sequenceAgain(h); seq > 0 {
		x.resent = seq
		return true
	}
	return false
}

// plainID reports whether an id is one that sites tell each other: 1 to maxID
// visible characters that need no escape in JSON, so that a page of them has a bound.
// WIRE.md demands more of an id.
func plainID(id string) bool {
	return id != "" && len(id) <= maxID && !strings.ContainsFunc(id, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"\\<>&", r)
	})
}

func (x *index) window(k kind, at int64) *window {
	w := x.windows[k][at]
	if w == nil {
		w = &window{}
		x.windows[k][at] = w
	}
	return w
}

// prune forgets what is before the horizon.
func (x *index) prune() {
	oldest := minute(time.Now().Add(-x.horizon - 2*clockSlack))
	for _, windows := range x.windows {
		for at := range windows {
			if at < oldest {
				delete(windows, at)
			}
		}
	}
}

// complete is the window from which on the index has all that came by the flow: what
// is older may have been removed from the stream, or is before the horizon.
func (x *index) complete() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	from := x.since
	if x.state.FirstSeq > 1 {
		removed := x.state.FirstTime
		if x.state.Msgs == 0 {
			removed = x.state.LastTime
		}
		if removed.After(from) {
			from = removed
		}
	}
	return minute(from.Add(clockSlack)) + 1
}

// digests returns the digests of windows of width minutes, by their first minute,
// that begin in [from, until).
func (x *index) digests(k kind, width, from, until int64) map[int64]digest {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := map[int64]digest{}
	for at, w := range x.windows[k] {
		if start := at - at%width; at >= from && start < until {
			all[start] = all[start].plus(w.digest)
		}
	}
	return all
}

// at returns one window, as far as it is known.
func (x *index) at(k kind, at int64) window {
	x.mu.Lock()
	defer x.mu.Unlock()
	if w := x.windows[k][at]; w != nil {
		return *w
	}
	return window{}
}

// mark is how far an index has come.
type mark struct {
	anchor   uint64    // the newest message of it
	position uint64    // the origin's sequence of the newest that came
	resent   uint64    // the same of what was resent
	built    time.Time // when it was begun anew
}

func (x *index) mark() mark {
	x.mu.Lock()
	defer x.mu.Unlock()
	return mark{x.anchor, x.position, x.resent, x.built}
}

// starts are the first minutes of windows that are in a or in b, in order.
func starts(a, b map[int64]digest) []int64 {
	var all []int64
	for at := range a {
		all = append(all, at)
	}
	for at := range b {
		if _, both := a[at]; !both {
			all = append(all, at)
		}
	}
	slices.SortFunc(all, cmp.Compare[int64])
	return all
}
