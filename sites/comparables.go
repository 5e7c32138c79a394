package sites

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pass"
)

// passPurpose begins the names of the consumers with which the headers of a stream
// are read.
const passPurpose = "sites"

// pageTime bounds the reading for one page of ids.
const pageTime = 2 * time.Second

// current brings the index of a flow that begins here up to date.
func (w *Watcher) current(ctx context.Context, d departure) error {
	done, err := d.index.catchUp(ctx, w.conn.JetStream())
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return refuse(RefusedStream, "%s does not exist", d.stream)
	case err != nil:
		return fmt.Errorf("sites: %w", err)
	case !done:
		return refuse(RefusedBusy, "the ids of %s are being read", d.stream)
	}
	return nil
}

func (k kind) valid() bool { return k == byID || k == byStore }

// answerDigest tells the digests of a flow that begins here.
func (w *Watcher) answerDigest(ctx context.Context, d departure, q digestQuestion) (digestAnswer, error) {
	if !q.Kind.valid() || q.Width != 1 && q.Width != coarse {
		return digestAnswer{}, refuse(RefusedMalformed, "the kind or the width of the windows is unknown")
	}
	if err := w.current(ctx, d); err != nil {
		return digestAnswer{}, err
	}
	a := digestAnswer{answer: w.answer(nil), Last: d.index.mark().anchor, Complete: d.index.complete(), Windows: []windowAnswer{}}
	all := d.index.digests(q.Kind, q.Width, q.From, q.Until)
	for _, at := range starts(all, nil) {
		if len(a.Windows) == maxWindows {
			a.Next = at
			break
		}
		a.Windows = append(a.Windows, windowAnswer{at, all[at].count, all[at].sum.text()})
	}
	again, err := w.conn.JetStream().Stream(ctx, d.again)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return a, nil // the comparison is good all the same
	}
	if err != nil {
		return digestAnswer{}, fmt.Errorf("sites: read stream %s: %w", d.again, err)
	}
	state := again.CachedInfo().State
	a.Resends = state.LastSeq
	if state.Msgs > 0 {
		a.Resent = state.LastSeq
	}
	return a, nil
}

// answerIDs tells the ids of a window of a flow that begins here, as they are in the
// stream now.
func (w *Watcher) answerIDs(ctx context.Context, d departure, q idsQuestion) (idsAnswer, error) {
	if !q.Kind.valid() {
		return idsAnswer{}, refuse(RefusedMalformed, "the kind of the window is unknown")
	}
	if err := w.current(ctx, d); err != nil {
		return idsAnswer{}, err
	}
	a := idsAnswer{answer: w.answer(nil), IDs: []heldID{}}
	in := d.index.at(q.Kind, q.Start)
	from := max(in.low, q.After+1)
	if from > in.high {
		return a, nil
	}
	stream, err := w.conn.JetStream().Stream(ctx, d.stream)
	if err != nil {
		return idsAnswer{}, fmt.Errorf("sites: read stream %s: %w", d.stream, err)
	}
	until, n := time.Now().Add(pageTime), 0
	p := pass.Pass{
		Stream: stream, Purpose: passPurpose, Filters: d.filters, HeadersOnly: true, Timeout: localTimeout,
		Policy: jetstream.DeliverByStartSequencePolicy, From: from,
	}
	err = p.Run(ctx, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		seq := meta.Sequence.Stream
		if seq > in.high {
			return false, nil
		}
		if id := m.Headers().Get(envelope.HeaderMsgID); inWindow(q.Kind, q.Start, id, meta.Timestamp) {
			a.IDs = append(a.IDs, heldID{id, seq})
		}
		n++
		if seq < in.high && (len(a.IDs) == maxIDs || n%pass.DefaultPage == 0 && time.Now().After(until)) {
			a.Next = seq
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return idsAnswer{}, fmt.Errorf("sites: %w", err)
	}
	return a, nil
}

// inWindow reports whether a message may be in a window of a minute. Of the windows
// of kind byStore some are in one of byID, too, and that does no harm.
func inWindow(k kind, at int64, id string, stored time.Time) bool {
	if !plainID(id) {
		return false
	}
	if k == byStore {
		return minute(stored) == at
	}
	named, ok := idTime(id)
	return ok && minute(named) == at
}
