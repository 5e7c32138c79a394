package dlq

import (
	"context"
	"errors"
	"log/slog"
)

// Discard gives a letter's message up: the letter is closed, and removed by
// [Queue.Purge] after a while. Until then it can be restored. It is a mark only,
// so any letter can be discarded, also one that cannot be replayed.
//
// Of two operators one discards, the other gets a [*ResolvedError] that says who
// and when. A letter that is being replayed is a [*ConflictError]; one whose
// replay is outstanding too, unless Request.Again. A failure that is stored later
// opens the letter again: nothing is hidden that nobody has seen. It is safe for
// concurrent use.
func (q *Queue) Discard(ctx context.Context, letterID string, r Request) (Mark, error) {
	return q.decide(ctx, letterID, r, StateDiscarded)
}

// DiscardAll discards the letters that f means, as Discard does each of them. The
// report and the error are as for [Queue.ReplayAll].
func (q *Queue) DiscardAll(ctx context.Context, f Filter, r Request) (Report, error) {
	return q.all(ctx, f, r, q.marking(StateDiscarded))
}

// Restore opens a discarded letter again. A letter that is not discarded is a
// [*ConflictError], or a [*ResolvedError] if it is resolved. It is safe for
// concurrent use.
func (q *Queue) Restore(ctx context.Context, letterID string, r Request) (Mark, error) {
	return q.decide(ctx, letterID, r, StateOpen)
}

// RestoreAll restores the letters that f means, as Restore does each of them. A
// filter without a state, ids or batch means the discarded ones. The report and
// the error are as for [Queue.ReplayAll].
func (q *Queue) RestoreAll(ctx context.Context, f Filter, r Request) (Report, error) {
	if f.State == "" && f.IDs == nil && f.Batch == "" && !f.isZero() {
		f.State = StateDiscarded
	}
	return q.all(ctx, f, r, q.marking(StateOpen))
}

// decide marks a single letter.
func (q *Queue) decide(ctx context.Context, letterID string, r Request, to State) (Mark, error) {
	if err := r.validate(q.marking(to)); err != nil {
		return Mark{}, err
	}
	at, err := q.locate(ctx, letterID)
	if err != nil {
		return Mark{}, err
	}
	// The index may remember what somebody else has removed.
	if _, _, err := q.read(ctx, letterID, at.sequence); err != nil {
		return Mark{}, err
	}
	_, m, err := q.setState(ctx, pick{id: letterID, place: at}, order{Request: r}, to)
	return m, err
}

// marking is the act of marking letters as to.
func (q *Queue) marking(to State) act {
	name := "discard"
	if to == StateOpen {
		name = "restore"
	}
	return act{name: name, do: func(ctx context.Context, p pick, o order) (State, *Replay, error) {
		state, _, err := q.setState(ctx, p, o, to)
		return state, nil, err
	}}
}

// setState marks one letter as to, if its state allows that and nobody else is
// first. The state is what the letter is in the end.
func (q *Queue) setState(ctx context.Context, p pick, o order, to State) (State, Mark, error) {
	on, last, err := q.markOf(ctx, p.id)
	if err != nil {
		return "", Mark{}, err
	}
	state := derive(p.place, last)
	if err := q.mayBecome(ctx, p.id, to, state, last, o.Again); err != nil {
		return state, Mark{}, err
	}
	round, expected := p.round, uint64(0)
	if last != nil {
		round, expected = max(round, last.Round), last.Sequence
	}
	m, err := o.mark(to, round, p.stored)
	if err != nil || o.DryRun {
		return state, m, err
	}
	m, err = q.write(ctx, on, m, expected)
	if overtaken, ok := errors.AsType[*overtakenError](err); ok {
		return derive(p.place, overtaken.last), Mark{}, refusal(p.id, overtaken.last)
	}
	if err != nil {
		return state, Mark{}, err
	}
	q.config.Logger.InfoContext(ctx, "dead letter "+string(to), slog.String("letter", p.id),
		slog.String("by", o.By), slog.String("reason", o.Reason), slog.String("batch", o.batch))
	return to, m, nil
}

// mayBecome returns why a letter in state cannot become to.
func (q *Queue) mayBecome(ctx context.Context, id string, to, state State, last *Mark, again bool) error {
	switch {
	case state == StateOpen && to == StateDiscarded, state == StateDiscarded && to == StateOpen:
		return nil
	case state == StateReplayed && to == StateDiscarded && again:
		return nil
	case state == StateClaimed && to == StateDiscarded && again:
		// The owner of an abandoned claim cannot publish any more, but may have.
		return q.abandoned(ctx, id, last)
	case last == nil || last.State != state:
		return &ConflictError{LetterID: id, State: state} // nobody's mark made it so
	}
	return refusal(id, last)
}
