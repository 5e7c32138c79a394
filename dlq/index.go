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

// index remembers where the newest copy of each letter is stored, since the
// server finds a letter by sequence and by subject but not by its id. It is
// filled on first use and from then on reads only what is new. It costs about
// 60 bytes for each letter, and nothing in a process that only writes letters.
type index struct {
	// turn is held while the index is read or changed; a channel, so that
	// waiting for it ends with a context.
	turn chan struct{}

	newest map[key]uint64
	last   uint64    // the last sequence that was read
	lastAt time.Time // when that message was stored
}

func newIndex() *index {
	return &index{turn: make(chan struct{}, 1), newest: map[key]uint64{}}
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
	x.newest, x.last, x.lastAt = map[key]uint64{}, 0, time.Time{}
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
		x.newest, x.last, x.lastAt = maps.Clone(g.newest), g.last, g.lastAt
	}
}

// locate returns where the newest copy of a letter is stored, 0 for nowhere.
func (q *Queue) locate(ctx context.Context, k key) (uint64, error) {
	if err := q.index.lock(ctx); err != nil {
		return 0, err
	}
	defer q.index.unlock()
	if err := q.refresh(ctx); err != nil {
		return 0, err
	}
	return q.index.newest[k], nil
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
	fresh.policy, fresh.from = jetstream.DeliverByStartSequencePolicy, x.last+1
	return q.run(ctx, fresh, x.add)
}

// add takes one letter into the index. What is no letter only moves the
// position.
func (x *index) add(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
	if k, ok := keyOf(m.Headers().Get(envelope.HeaderLetterID)); ok {
		x.newest[k] = meta.Sequence.Stream
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
