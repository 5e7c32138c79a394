package dlq

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pass"
)

// deliver publishes the replay, unless the owner of a claim that was taken over
// did so already.
func (q *Queue) deliver(ctx context.Context, r *replaying) error {
	if r.result.TookOver {
		if err := q.findReplay(ctx, r); err != nil || r.result.Found {
			return err
		}
	}
	return q.publishReplay(ctx, r)
}

// findReplay looks whether the replay is stored already. It reads up to our own
// claim: the server stores a replay only while its owner's claim is the last
// mark, so behind ours nothing of the former owner can come.
func (q *Queue) findReplay(ctx context.Context, r *replaying) error {
	reached := false
	err := q.run(ctx, pass.Pass{
		Stream:      q.ops,
		Filters:     []string{r.to.String(), r.on.String()},
		Policy:      jetstream.DeliverAllPolicy,
		HeadersOnly: true,
	}, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		if m.Subject() == r.to.String() && m.Headers().Get(envelope.HeaderMsgID) == r.result.MessageID {
			r.found(meta.Sequence.Stream, m.Headers().Get(HeaderEdited))
		}
		reached = reached || meta.Sequence.Stream >= r.claim.Sequence
		return !reached, nil
	})
	if err == nil && !reached {
		err = fmt.Errorf("dlq: read replays of %s: the claim is not there yet: try again", r.to.Durable())
	}
	return err
}

// found takes over what the former owner had published, whose data may be other
// than ours.
func (r *replaying) found(sequence uint64, edited string) {
	r.result.Sequence, r.result.Found = sequence, true
	old, ours := r.result.Edit.hashes()
	if r.differs = edited != ours; !r.differs {
		return
	}
	r.result.Edit = nil
	if edited != "" {
		r.result.Edit = &Edited{Old: old, New: edited}
	}
}

// publishReplay stores the replay on condition that our claim is still the last
// mark: whoever lost it to somebody else cannot publish any more, however long
// it was asleep. The condition is on another subject than the message, so that a
// repetition of the same publish still satisfies it.
func (q *Queue) publishReplay(ctx context.Context, r *replaying) error {
	doing := "publish replay " + r.result.MessageID
	_, edited := r.result.Edit.hashes()
	for try := 1; ; try++ {
		m := &nats.Msg{Subject: r.to.String(), Header: nats.Header(replayHeader(r.letter, r.result.Round, edited)), Data: r.data}
		ack, err := q.publish(ctx, m, q.opsName, jetstream.WithMsgID(r.result.MessageID),
			jetstream.WithExpectLastSequenceForSubject(r.claim.Sequence, r.on.String()))
		switch {
		case err == nil && ack.Duplicate && try == 1:
			return fmt.Errorf("dlq: %s: %w: nothing was stored: try again after the duplicate window of %s", doing, ErrDuplicate, q.opsName)
		case err == nil:
			r.result.Sequence = ack.Sequence
			return nil
		}
		o := outcomeOf(err)
		if o == refused {
			done, err := q.overtaken(ctx, r, try)
			if done || err != nil {
				return err
			}
		}
		if (o != refused && o != unknown) || try == tries {
			return publishError(doing, q.opsName, err)
		}
		if err := pause(ctx, try); err != nil {
			return publishError(doing, q.opsName, err)
		}
	}
}

// overtaken asks why the server refused. The durable may have handled an earlier
// try whose answer was lost, which is done; somebody may have taken the claim
// over, which is a conflict; or a mark is just being stored, and we try again.
func (q *Queue) overtaken(ctx context.Context, r *replaying, try int) (done bool, err error) {
	last, err := q.lastMark(ctx, r.on)
	switch {
	case err != nil:
		return false, err
	case last == nil || last.Op == r.claim.Op:
		return false, nil
	case try > 1 && last.Round == r.claim.Round && last.State == StateResolved:
		r.result.State = last.State
		return true, nil
	}
	r.letter.settle(last)
	return false, conflict(r.letter.ID, last)
}

// conclude marks the letter replayed. That another mark came first is no
// failure, since the replay is out: its durable was quicker and resolved it, or
// somebody took the claim over and will find what was published.
func (q *Queue) conclude(ctx context.Context, r *replaying) error {
	m, err := r.order.mark(StateReplayed, r.result.Round, r.letter.place().stored)
	if err != nil {
		return err
	}
	m.OldData, m.NewData = r.result.Edit.hashes()
	if r.result.State == StateResolved {
		return nil
	}
	_, err = q.write(ctx, r.on, m, r.claim.Sequence)
	if overtaken, ok := errors.AsType[*overtakenError](err); ok {
		if last := overtaken.last; last != nil && last.Round == r.result.Round && last.State == StateResolved {
			r.result.State = StateResolved
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("dlq: letter %s was replayed but is not marked; a later Replay finds it: %w", r.letter.ID, err)
	}
	return nil
}

// replayHeader returns the headers of a replay: the original's as they were, as
// far as isReplayed knows them, and what leads back to the letter. Original
// headers that contradicted the envelope are restored too: a replay must not
// pass a check that the original failed. edited is the hash of data that is not
// the letter's, or "".
func replayHeader(l Letter, round int, edited string) envelope.Header {
	h := make(envelope.Header, len(repeated)+len(reserved))
	for _, name := range repeated {
		set(h, name, l.header.Get(name))
	}
	for name, values := range l.OriginalHeader {
		if isReplayed(name) {
			h[name] = values
			continue
		}
		for _, v := range values {
			h[HeaderOriginalHeader] = append(h[HeaderOriginalHeader], value{name, v}.String())
		}
	}
	for _, name := range [...]string{
		envelope.HeaderLetterID, envelope.HeaderOriginalSubject, envelope.HeaderOriginalStream,
		envelope.HeaderOriginalSequence, HeaderOriginalStoredAt, HeaderOriginalID, HeaderOriginalHeaderCut,
	} {
		set(h, name, l.header.Get(name))
	}
	set(h, HeaderRound, strconv.Itoa(round))
	set(h, HeaderEdited, edited)
	return h
}
