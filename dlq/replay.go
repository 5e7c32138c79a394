package dlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// ReplayRequest says who wants a letter replayed and why (requirement Q3). Both
// are stored with the letter for good.
type ReplayRequest struct {
	// By is who, as <kind>:<id>, such as "operator:ola"; see [envelope.Actor].
	// Required.
	By string
	// Reason is why, in at most 1 KiB, such as "hostname fixed, DV-412".
	// Required.
	Reason string
	// Again replays a letter whose last replay is still outstanding: nobody has
	// said whether it was handled. If it was, only the inbox keeps the effect
	// from being applied twice, and it remembers for its horizon (45 days by
	// default) and not at all where a handler has none. Default: false, which
	// makes an outstanding replay a [*ConflictError].
	Again bool
}

// validate returns every fault of r at once.
func (r ReplayRequest) validate() error {
	var faults []error
	by := envelope.Actor(r.By)
	if _, err := envelope.NewActor(by.Kind(), by.ID()); err != nil {
		faults = append(faults, &FieldError{"ReplayRequest.By", "must say who, as <kind>:<id> like operator:ola: " + err.Error()})
	}
	switch {
	case strings.TrimSpace(r.Reason) == "":
		faults = append(faults, &FieldError{"ReplayRequest.Reason", "must say why: it is the audit trail"})
	case len(r.Reason) > maxReason || !utf8.ValidString(r.Reason):
		faults = append(faults, &FieldError{"ReplayRequest.Reason", "must be UTF-8 of at most 1024 bytes: refer to a ticket"})
	}
	return errors.Join(faults...)
}

// Replay is what became of a replay.
type Replay struct {
	LetterID string `json:"letter_id"`
	// Round is which replay of the letter it is, from 1.
	Round int `json:"round"`
	// Durable is who receives it, Subject what it was published on, MessageID
	// the id it was published with, and Sequence where it is stored.
	Durable   string `json:"durable"`
	Subject   string `json:"subject"`
	MessageID string `json:"message_id"`
	Sequence  uint64 `json:"sequence"`
	// State is replayed, or what the consumer made of it meanwhile.
	State State `json:"state"`
	// TookOver says that the claim of somebody who did not finish was taken
	// over, and Found that this somebody had published it already.
	TookOver bool `json:"took_over,omitempty"`
	Found    bool `json:"found,omitempty"`
	// By, Reason and At are the request's, and when it was claimed.
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Replay hands the letter's message to its durable once more: same envelope id,
// same bytes, on dv.<service>.replay.<durable>, which only that durable's second
// pull reads. Whoever handled the original hears nothing of it.
//
// The letter is claimed with a mark first, so of two operators exactly one
// replays; the other gets a [*ConflictError] that says who and when. A claim
// that was never carried out is taken over after Config.ClaimLease, with the
// same round and so the same message id; a replay that its owner had published
// before it died is found and only marked. A letter that is resolved or
// discarded is a [*ResolvedError], one of class security a [*SecurityError].
//
// If the outcome of a request stays unknown, for example because ctx ends, the
// error says at which step; trying again is always safe. Once the replay is
// published, the returned Replay is filled even when marking it failed. It is
// safe for concurrent use.
func (q *Queue) Replay(ctx context.Context, letterID string, req ReplayRequest) (Replay, error) {
	if err := req.validate(); err != nil {
		return Replay{}, err
	}
	l, _, err := q.read(ctx, letterID)
	if err != nil {
		return Replay{}, err
	}
	r, err := q.newReplaying(l, req)
	if err != nil {
		return Replay{}, err
	}
	if err := q.claim(ctx, r); err != nil {
		return Replay{}, err
	}
	if err := q.deliver(ctx, r); err != nil {
		return Replay{}, err
	}
	err = q.conclude(ctx, r)
	q.logReplay(ctx, r, err)
	return r.result, err
}

// replaying is a replay under way.
type replaying struct {
	letter  Letter
	request ReplayRequest
	to      subject.Subject // where it is published
	on      subject.Subject // where it is marked
	claim   Mark
	result  Replay
}

// newReplaying checks what can be checked without asking anybody.
func (q *Queue) newReplaying(l Letter, req ReplayRequest) (*replaying, error) {
	to, toErr := subject.Replay(q.service, l.Durable)
	on, onErr := subject.DLQMark(q.service, l.ID)
	if err := errors.Join(toErr, onErr); err != nil {
		return nil, fmt.Errorf("dlq: address replay of letter %s: %w", l.ID, err)
	}
	if l.Class == envelope.ClassSecurity {
		return nil, &SecurityError{LetterID: l.ID, Reason: l.Error}
	}
	if l.DataOmitted {
		return nil, fmt.Errorf("dlq: replay letter %s: %w: its %d bytes are message %d of stream %s",
			l.ID, ErrNoData, l.Size, l.Sequence, l.Stream)
	}
	return &replaying{letter: l, request: req, to: to, on: on}, nil
}

// claim marks the letter as being replayed by us, and nobody else.
func (q *Queue) claim(ctx context.Context, r *replaying) error {
	last, err := q.lastMark(ctx, r.on)
	if err != nil {
		return err
	}
	r.letter.settle(last)
	round, err := q.nextRound(ctx, r)
	if err != nil {
		return err
	}
	m, err := newMark(StateClaimed, round, r.request.By, r.request.Reason, r.letter.stored())
	if err != nil {
		return err
	}
	expected := uint64(0)
	if last != nil {
		expected = last.Sequence
	}
	r.claim, err = q.write(ctx, r.on, m, expected)
	if overtaken, ok := errors.AsType[*overtakenError](err); ok {
		return conflict(r.letter.ID, overtaken.last)
	}
	r.result = Replay{
		LetterID: r.letter.ID, Round: round, Durable: r.letter.Durable, Subject: r.to.String(),
		MessageID: r.letter.ID + "/r" + strconv.Itoa(round), State: StateReplayed,
		TookOver: r.letter.State == StateClaimed,
		By:       r.request.By, Reason: r.request.Reason, At: m.At,
	}
	return err
}

// nextRound returns which replay of the letter this is, or why there is none. An
// abandoned claim keeps its number: its owner may have published under it.
func (q *Queue) nextRound(ctx context.Context, r *replaying) (int, error) {
	last := r.letter.Mark
	switch state := r.letter.State; state {
	case StateOpen:
		if last == nil {
			return r.letter.Round + 1, nil
		}
		return max(last.Round, r.letter.Round) + 1, nil
	case StateClaimed:
		return last.Round, q.abandoned(ctx, r.letter.ID, last)
	case StateReplayed:
		if r.request.Again {
			return last.Round + 1, nil
		}
	case StateResolved, StateDiscarded:
		return 0, &ResolvedError{LetterID: r.letter.ID, State: state, By: last.By, At: last.StoredAt}
	}
	return 0, conflict(r.letter.ID, last)
}

// abandoned returns nil when the claim is older than the lease. Both times are
// the server's, so the operator's clock does not matter.
func (q *Queue) abandoned(ctx context.Context, letterID string, claim *Mark) error {
	info, err := q.info(ctx, q.ops)
	if err != nil {
		return err
	}
	if info.TimeStamp.Sub(claim.StoredAt) < q.config.ClaimLease {
		return conflict(letterID, claim)
	}
	return nil
}

// conflict is the error of who finds another's mark.
func conflict(letterID string, last *Mark) error {
	return &ConflictError{LetterID: letterID, State: last.State, By: last.By, At: last.StoredAt}
}

// deliver publishes the replay, unless the owner of a claim that was taken over
// did so already.
func (q *Queue) deliver(ctx context.Context, r *replaying) error {
	if r.result.TookOver {
		sequence, err := q.findReplay(ctx, r)
		if err != nil {
			return err
		}
		if sequence > 0 {
			r.result.Sequence, r.result.Found = sequence, true
			return nil
		}
	}
	return q.publishReplay(ctx, r)
}

// findReplay returns where the replay is stored, 0 for nowhere. It reads up to
// our own claim: the server stores a replay only while its owner's claim is the
// last mark, so behind ours nothing of the former owner can come.
func (q *Queue) findReplay(ctx context.Context, r *replaying) (sequence uint64, err error) {
	reached := false
	err = q.run(ctx, pass{
		stream:      q.ops,
		filters:     []string{r.to.String(), r.on.String()},
		policy:      jetstream.DeliverAllPolicy,
		headersOnly: true,
	}, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		if m.Subject() == r.to.String() && m.Headers().Get(envelope.HeaderMsgID) == r.result.MessageID {
			sequence = meta.Sequence.Stream
		}
		reached = reached || meta.Sequence.Stream >= r.claim.Sequence
		return !reached, nil
	})
	if err == nil && !reached {
		err = fmt.Errorf("dlq: read replays of %s: the claim is not there yet: try again", r.to.Durable())
	}
	return sequence, err
}

// publishReplay stores the replay on condition that our claim is still the last
// mark: whoever lost it to somebody else cannot publish any more, however long
// it was asleep. The condition is on another subject than the message, so that a
// repetition of the same publish still satisfies it.
func (q *Queue) publishReplay(ctx context.Context, r *replaying) error {
	doing := "publish replay " + r.result.MessageID
	for try := 1; ; try++ {
		m := &nats.Msg{Subject: r.to.String(), Header: nats.Header(replayHeader(r.letter, r.result.Round)), Data: r.letter.Data}
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
	return false, conflict(r.letter.ID, last)
}

// conclude marks the letter replayed. That another mark came first is no
// failure, since the replay is out: its durable was quicker and resolved it, or
// somebody took the claim over and will find what was published.
func (q *Queue) conclude(ctx context.Context, r *replaying) error {
	m, err := newMark(StateReplayed, r.result.Round, r.request.By, r.request.Reason, r.letter.stored())
	if err != nil {
		return err
	}
	if r.result.State == StateResolved {
		return nil
	}
	_, err = q.write(ctx, r.on, m, r.claim.Sequence)
	if overtaken, ok := errors.AsType[*overtakenError](err); ok {
		if overtaken.last.Round == r.result.Round && overtaken.last.State == StateResolved {
			r.result.State = StateResolved
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("dlq: letter %s was replayed but is not marked; a later Replay finds it: %w", r.letter.ID, err)
	}
	return nil
}

// logReplay writes the one line that says who replayed what.
func (q *Queue) logReplay(ctx context.Context, r *replaying, err error) {
	level, outcome := slog.LevelInfo, "published"
	if err != nil {
		level, outcome = slog.LevelWarn, "published, not marked"
	}
	q.config.Logger.LogAttrs(ctx, level, "dead letter replayed",
		slog.Any("letter", r.letter), slog.Int("replay", r.result.Round), slog.String("outcome", outcome),
		slog.String("by", r.request.By), slog.String("reason", r.request.Reason),
		slog.Bool("took_over", r.result.TookOver))
}

// replayHeader returns the headers of a replay: the original's as they were, as
// far as isReplayed knows them, and what leads back to the letter. Original
// headers that contradicted the envelope are restored too: a replay must not
// pass a check that the original failed.
func replayHeader(l Letter, round int) envelope.Header {
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
	return h
}
