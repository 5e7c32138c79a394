package dlq

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
)

// key is a letter id without its prefix, in the size that it needs.
type key [idDigits / 2]byte

// keyOf returns the key of a letter id; ok is false for what is none.
func keyOf(id string) (k key, ok bool) {
	if !isLetterID(id) {
		return key{}, false
	}
	_, err := hex.Decode(k[:], []byte(id[len(idPrefix):]))
	return k, err == nil
}

// letterID is the reverse of keyOf.
func (k key) letterID() string { return idPrefix + hex.EncodeToString(k[:]) }

// place is where one copy of a letter is stored, and which failure it is.
type place struct {
	stored
	round int
}

// placeOf reads the round from the headers of a stored letter; one that cannot
// be read counts as the first failure.
func placeOf(h envelope.Header, meta *jetstream.MsgMetadata) place {
	round, _ := count(h.Get(HeaderRound))
	return place{stored{meta.Sequence.Stream, meta.Timestamp}, max(round, 0)}
}

// beats reports whether p is a newer failure than other: that of a later replay,
// or the later writing of the same one. A late second writing of an earlier
// failure is history, whenever it was stored: it would hide that a replay failed,
// and the data that an operator corrected for it.
func (p place) beats(other place) bool {
	if p.round != other.round {
		return p.round > other.round
	}
	return p.sequence > other.sequence
}

// index remembers where the newest copy of each letter is stored, since the
// server finds a letter by sequence and by subject but not by its id. It is
// filled on first use and from then on reads only what is new. It costs about
// 100 bytes for each letter, and nothing in a process that only writes letters.
type index struct {
	// turn is held while the index is read or changed; a channel, so that
	// waiting for it ends with a context.
	turn chan struct{}

	newest map[key]place
	// doubted are letters with a later copy of an earlier round. Either that copy
	// is late, or the letter was removed and its message has failed anew.
	doubted map[key]bool
	last    uint64    // the last sequence that was read
	lastAt  time.Time // when that message was stored
}

func newIndex() *index {
	return &index{turn: make(chan struct{}, 1), newest: map[key]place{}, doubted: map[key]bool{}}
}

// lock waits for the index's turn.
func (x *index) lock(ctx context.Context) error {
	select {
	case x.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (x *index) unlock() { <-x.turn }

// reset forgets everything that was read so far.
func (x *index) reset() {
	x.newest, x.doubted, x.last, x.lastAt = map[key]place{}, map[key]bool{}, 0, time.Time{}
}

// adopt takes over what a listing has learned, if nobody knows more already and
// nobody is at it: it only saves the next Show a pass.
func (q *Queue) adopt(g *gathering) {
	x := q.index
	select {
	case x.turn <- struct{}{}:
		defer x.unlock()
	default:
		return
	}
	if g.last > x.last {
		x.newest, x.doubted, x.last, x.lastAt = maps.Clone(g.newest), map[key]bool{}, g.last, g.lastAt
	}
}

// locate returns where the newest copy of a letter is stored. An id that no
// letter has is an error that matches ErrNotFound.
func (q *Queue) locate(ctx context.Context, letterID string) (place, error) {
	all, err := q.places(ctx, []string{letterID})
	switch {
	case err != nil:
		return place{}, err
	case all[0].sequence == 0:
		return place{}, q.notFound(letterID)
	}
	return all[0], nil
}

// places returns where the newest copy of each letter is stored, the zero place
// for none.
func (q *Queue) places(ctx context.Context, letterIDs []string) ([]place, error) {
	if err := q.index.lock(ctx); err != nil {
		return nil, err
	}
	defer q.index.unlock()
	if err := q.refresh(ctx); err != nil {
		return nil, err
	}
	all := make([]place, len(letterIDs))
	for i, id := range letterIDs {
		k, ok := keyOf(id)
		if !ok {
			return nil, &FieldError{"letter id", "must be l and 40 lower-case hex digits, as List and the log give it"}
		}
		if err := q.settleDoubt(ctx, k); err != nil {
			return nil, err
		}
		all[i] = q.index.newest[k]
	}
	return all, nil
}

// settleDoubt looks whether the newest copy of a doubted letter is still there,
// and reads everything anew if it is not.
func (q *Queue) settleDoubt(ctx context.Context, k key) error {
	x := q.index
	if !x.doubted[k] {
		return nil
	}
	_, err := q.get(ctx, x.newest[k].sequence)
	switch {
	case err == nil:
		delete(x.doubted, k)
		return nil
	case errors.Is(err, jetstream.ErrMsgNotFound):
		x.reset()
		return q.refresh(ctx)
	}
	return fmt.Errorf("dlq: read message %d of %s: %w", x.newest[k].sequence, q.lettersName, err)
}

func (q *Queue) notFound(letterID string) error {
	return fmt.Errorf("dlq: letter %s in %s: %w", letterID, q.lettersName, ErrNotFound)
}

// refresh reads what was stored since the last time, or everything when the
// stream is not the one that was read.
func (q *Queue) refresh(ctx context.Context) error {
	x := q.index
	info, err := q.info(ctx, q.letters)
	if err != nil {
		return err
	}
	same, err := q.isSame(ctx)
	if err != nil {
		return err
	}
	if !same {
		x.reset()
	}
	if info.State.LastSeq <= x.last {
		return nil
	}
	fresh := q.allLetters()
	fresh.Policy, fresh.From = jetstream.DeliverByStartSequencePolicy, x.last+1
	return q.run(ctx, fresh, x.add)
}

// add takes one letter into the index. What is no letter only moves the
// position.
func (x *index) add(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
	h := envelope.Header(m.Headers())
	if k, ok := keyOf(h.Get(envelope.HeaderLetterID)); ok {
		if at := placeOf(h, meta); at.beats(x.newest[k]) {
			x.newest[k] = at
		} else {
			x.doubted[k] = true
		}
	}
	x.last, x.lastAt = meta.Sequence.Stream, meta.Timestamp
	return true, nil
}

// isSame reports whether the stream still holds what the index was made from:
// the last message that was read is still the same. A stream that was created
// anew, or that lost its tail, gives the sequences out again, so a number alone
// proves nothing.
func (q *Queue) isSame(ctx context.Context) (bool, error) {
	x := q.index
	if x.last == 0 {
		return true, nil
	}
	raw, err := q.get(ctx, x.last)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("dlq: read message %d of %s: %w", x.last, q.lettersName, err)
	}
	return raw.Time.Equal(x.lastAt), nil
}
