package dlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Replay is what became of a replay.
type Replay struct {
	LetterID string `json:"letter_id"`
	// Round is which replay of the letter it is, from 1.
	Round int `json:"round"`
	// Durable is who receives it, Subject what it is published on.
	Durable string `json:"durable"`
	Subject string `json:"subject"`
	// MessageID is the id it was published with, and Sequence where it is stored;
	// a dry run has neither.
	MessageID string `json:"message_id,omitempty"`
	Sequence  uint64 `json:"sequence,omitempty"`
	// State is replayed, or what the consumer made of it meanwhile; after a dry
	// run what the letter is.
	State State `json:"state"`
	// TookOver says that the claim of somebody who did not finish was taken
	// over, and Found that this somebody had published it already.
	TookOver bool `json:"took_over,omitempty"`
	Found    bool `json:"found,omitempty"`
	// Edit says what became of the data; nil where it is the letter's own.
	Edit *Edited `json:"edit,omitempty"`
	// By, Reason and At are the request's, and when it was claimed.
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at,omitzero"`
}

// Replay hands the letter's message to its durable once more: same envelope id,
// same bytes, on dv.<service>.replay.<durable>, which only that durable's second
// pull reads. Whoever handled the original hears nothing of it. With
// Request.Edit the data is another, and nothing else.
//
// The letter is claimed with a mark first, so of two operators exactly one
// replays; the other gets a [*ConflictError] that says who and when. A claim
// that was never carried out is taken over after Config.ClaimLease, with the
// same round and so the same message id; a replay that its owner had published
// before it died is found and only marked. If that one had other data than this
// one would have, it is a [*ConflictError] all the same.
//
// A letter that is closed is a [*ResolvedError], one that failed or was replayed
// before Config.Horizon matches [ErrForgotten], one of class security is a
// [*SecurityError], one whose durable or original subject is no address an
// [*AddressError], one without data matches [ErrNoData], one whose durable has no
// second pull matches [ErrNoDurable], and an edit that cannot be made is an
// [*EditError].
//
// If the outcome of a request stays unknown, for example because ctx ends, the
// error says at which step; trying again is always safe. Once the replay is
// published, the returned Replay is filled even when marking it failed. It is
// safe for concurrent use.
func (q *Queue) Replay(ctx context.Context, letterID string, r Request) (Replay, error) {
	a := q.replays()
	if err := r.validate(a); err != nil {
		return Replay{}, err
	}
	at, err := q.locate(ctx, letterID)
	if err != nil {
		return Replay{}, err
	}
	_, done, err := a.do(ctx, pick{id: letterID, place: at}, order{Request: r})
	if done == nil {
		return Replay{}, err
	}
	return *done, err
}

// ReplayAll replays the letters that f means, as Replay does each of them, at
// Request.Rate: durable by durable, in the order of their originals in the stream,
// so that letters of one ordering key keep its order. A letter that is refused
// keeps nobody from the others; see [Report] for how to tell what became of each.
//
// Two operators may do so at once: each letter is replayed by one of them. After
// a crash, do it again: what was replayed is refused with a [*ConflictError]
// while it is outstanding, the one letter that was in the middle is taken over
// when its claim is older than Config.ClaimLease, and the rest follows. Such a
// letter is meant by StateOpen too.
//
// An error means that it stopped early; the report says how far it came. More
// letters than Request.Max are a [*TooManyError], and nothing was done.
func (q *Queue) ReplayAll(ctx context.Context, f Filter, r Request) (Report, error) {
	return q.all(ctx, f, r, q.replays())
}

// replays is the act of replaying.
func (q *Queue) replays() act {
	return act{name: "replay", rate: DefaultRate, takesOver: true, mayEdit: true, do: q.replay}
}

// replaying is a replay under way.
type replaying struct {
	order
	letter Letter
	data   []byte          // what is published
	to     subject.Subject // where it is published
	on     subject.Subject // where it is marked
	former *Mark           // the last one before our claim
	claim  Mark
	result Replay
	// differs says that what somebody else had published has other data.
	differs bool
}

// replay acts on one letter. The Replay is nil when there was none.
func (q *Queue) replay(ctx context.Context, p pick, o order) (State, *Replay, error) {
	r, err := q.newReplaying(ctx, p, o)
	if err == nil {
		err = q.admit(ctx, r)
	}
	if err != nil {
		return r.letter.State, nil, err
	}
	if o.DryRun {
		r.result.State = r.letter.State
		return r.letter.State, &r.result, nil
	}
	if err := q.mark(ctx, r); err != nil {
		return r.letter.State, nil, err
	}
	if err := q.deliver(ctx, r); err != nil {
		return r.letter.State, nil, err
	}
	err = q.conclude(ctx, r)
	q.logReplay(ctx, r, err)
	if err == nil && r.differs {
		was := *r.former
		was.State = StateReplayed
		return r.result.State, nil, conflict(p.id, &was)
	}
	return r.result.State, &r.result, err
}

// newReplaying reads the letter and its last mark. What it returns is never nil.
func (q *Queue) newReplaying(ctx context.Context, p pick, o order) (*replaying, error) {
	r := &replaying{order: o}
	on, last, err := q.markOf(ctx, p.id)
	if err != nil {
		return r, err
	}
	at := p.place
	// A replay that went out since, or that was outstanding, may have failed since: what
	// is replayed is the newest copy, whose data somebody may have corrected.
	if last != nil && (last.Sequence != p.mark || o.Again) {
		if at, err = q.locate(ctx, p.id); err != nil {
			return r, err
		}
	}
	if r.letter, _, err = q.read(ctx, p.id, at.sequence); err != nil {
		return r, err
	}
	r.letter.settle(last)
	r.on, r.data = on, r.letter.Data
	return r, nil
}

// admit decides whether there is a replay, and which.
func (q *Queue) admit(ctx context.Context, r *replaying) (err error) {
	l := &r.letter
	if l.Class == envelope.ClassSecurity {
		return &SecurityError{LetterID: l.ID, Reason: l.Error}
	}
	if l.DataOmitted {
		return fmt.Errorf("dlq: replay letter %s: %w: its %d bytes are message %d of stream %s",
			l.ID, ErrNoData, l.Size, l.Sequence, l.Stream)
	}
	// A consumer refuses a replay of something that no letter could be about.
	_, originalErr := subject.DLQ(q.service, l.Subject)
	to, durableErr := subject.Replay(q.service, l.Durable)
	if err := errors.Join(durableErr, originalErr); err != nil {
		return &AddressError{LetterID: l.ID, Err: err}
	}
	info, err := q.info(ctx, q.ops)
	if err != nil {
		return err
	}
	round, err := q.nextRound(ctx, r, info.TimeStamp)
	if err != nil {
		return err
	}
	if err := errors.Join(q.receives(ctx, l), q.room(info, l)); err != nil {
		return err
	}
	r.to = to
	r.result = Replay{
		LetterID: l.ID, Round: round, Durable: l.Durable, Subject: to.String(),
		State: StateReplayed, TookOver: l.State == StateClaimed, By: r.By, Reason: r.Reason,
	}
	return r.edit()
}

// receives returns an error unless the durable has its second pull. Without one the
// replay would be stored all the same, and skipped: a pull that is made later begins
// with what is replayed after it.
func (q *Queue) receives(ctx context.Context, l *Letter) error {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	_, err := q.ops.Consumer(ctx, l.Durable+replaySuffix)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("dlq: replay letter %s: %w: nobody would receive it: have the service of %s run topology.Ensure",
			l.ID, ErrNoDurable, l.Durable)
	}
	if err != nil {
		return fmt.Errorf("dlq: replay letter %s: look up replay durable of %s: %w", l.ID, l.Durable, err)
	}
	return nil
}

// replayShare is how much of their stream replays may fill, with the marks that are
// there. What is left is for marks: without room for them no letter could be
// resolved, discarded or purged, and consumers would wait for that.
const replayShare = 0.8

// room returns an error when the stream has none for a replay of the letter.
// Replays are whole messages and stay until their letters are purged, so that many
// of them would otherwise fill it.
func (q *Queue) room(info *jetstream.StreamInfo, l *Letter) error {
	full := func(have uint64, more int, limit int64) bool {
		return limit > 0 && float64(have)+float64(more) > replayShare*float64(limit)
	}
	if !full(info.State.Bytes, l.Size, info.Config.MaxBytes) && !full(info.State.Msgs, 1, info.Config.MaxMsgs) {
		return nil
	}
	return fmt.Errorf("dlq: replay letter %s: %s: %w but for marks: purge closed letters, or raise its limit", l.ID, q.opsName, ErrFull)
}

// edit makes the data another one, if that was asked for.
func (r *replaying) edit() error {
	if r.Edit == nil {
		return nil
	}
	data, edited, err := r.Edit.apply(r.letter.Data)
	if err != nil {
		return &EditError{LetterID: r.letter.ID, Err: err}
	}
	if edited != nil && !r.DryRun {
		edited.Changes = nil // they are data: nobody has asked to see them
	}
	r.data, r.result.Edit = data, edited
	return nil
}

// mark claims the letter for us, and nobody else.
func (q *Queue) mark(ctx context.Context, r *replaying) error {
	m, err := r.order.mark(StateClaimed, r.result.Round, r.letter.place().stored)
	if err != nil {
		return err
	}
	m.OldData, m.NewData = r.result.Edit.hashes()
	expected := uint64(0)
	if last := r.letter.Mark; last != nil {
		expected = last.Sequence
	}
	r.claim, err = q.write(ctx, r.on, m, expected)
	if overtaken, ok := errors.AsType[*overtakenError](err); ok {
		r.letter.settle(overtaken.last)
		return refusal(r.letter.ID, overtaken.last)
	}
	if err != nil {
		return err
	}
	r.former = r.letter.Mark
	r.letter.settle(&r.claim)
	r.result.MessageID, r.result.At = r.letter.ID+"/r"+strconv.Itoa(r.result.Round), m.At
	return nil
}

// nextRound returns which replay of the letter this is, or why there is none. An
// abandoned claim keeps its number: its owner may have published under it. now is
// the server's clock.
func (q *Queue) nextRound(ctx context.Context, r *replaying, now time.Time) (int, error) {
	last := r.letter.Mark
	if err := q.remembered(ctx, r, now); err != nil {
		return 0, err
	}
	switch r.letter.State {
	case StateOpen:
		if last == nil {
			return r.letter.Round + 1, nil
		}
		return max(last.Round, r.letter.Round) + 1, nil
	case StateClaimed:
		return last.Round, q.abandoned(ctx, r.letter.ID, last)
	case StateReplayed:
		if r.Again {
			return last.Round + 1, nil
		}
	}
	return 0, refusal(r.letter.ID, last)
}

// remembered returns an error when the message failed, or was replayed, longer ago
// than the inbox remembers: that replay, or another copy of the message, may have had
// its effect, and nothing would know any more. A consumer that dies between storing
// a letter and marking the message dead leaves such a letter when the copy that comes
// again succeeds. The first replay counts, since any of them may have been the one.
func (q *Queue) remembered(ctx context.Context, r *replaying, now time.Time) error {
	l := r.letter
	if r.Again || l.State != StateOpen && l.State != StateClaimed {
		return nil
	}
	first := l.StoredAt
	if l.Mark != nil {
		marks, err := q.allMarks(ctx, r.on)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(marks, func(m Mark) bool { return m.Round > 0 })
		if at >= 0 && marks[at].StoredAt.Before(first) {
			first = marks[at].StoredAt
		}
	}
	if now.Sub(first) < q.config.Horizon {
		return nil
	}
	return fmt.Errorf("dlq: replay letter %s: %w: at %s: look whether its effect is there; Request.Again replays it all the same",
		l.ID, ErrForgotten, first.UTC().Format(time.RFC3339))
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

// refusal is the error of who finds a mark that leaves nothing to do, or no mark
// where there was one.
func refusal(letterID string, last *Mark) error {
	if last == nil {
		return &ConflictError{LetterID: letterID, State: StateRemoved}
	}
	if last.State.Closed() {
		return &ResolvedError{LetterID: letterID, State: last.State, By: last.By, At: last.StoredAt}
	}
	return conflict(letterID, last)
}

// conflict is the error of who finds another's mark.
func conflict(letterID string, last *Mark) error {
	return &ConflictError{LetterID: letterID, State: last.State, By: last.By, At: last.StoredAt}
}

// logReplay writes the one line that says who replayed what.
func (q *Queue) logReplay(ctx context.Context, r *replaying, err error) {
	level, outcome := slog.LevelInfo, "published"
	if err != nil {
		level, outcome = slog.LevelWarn, "published, not marked"
	}
	q.config.Logger.LogAttrs(ctx, level, "dead letter replayed",
		slog.Any("letter", r.letter), slog.Int("replay", r.result.Round), slog.String("outcome", outcome),
		slog.String("by", r.By), slog.String("reason", r.Reason), slog.String("batch", r.batch),
		slog.Bool("took_over", r.result.TookOver), slog.Bool("edited", r.result.Edit != nil))
}
