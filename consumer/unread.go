package consumer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/sleep"
)

// Times of the look at what is not read yet.
const (
	lookMost     = 5 * time.Minute  // between two looks
	lookLeast    = time.Second      // the same, for streams of a short age
	lookMeasured = 15 * time.Second // the same, where the figures are collected
	looksPerAge  = 20
	warnAgain    = time.Hour // while it goes on
	limitEvery   = time.Hour // between looks at the stream's age
)

// UnreadAgeError says that a message is not settled although its stream will
// remove it soon: it is half as old as it may become. Consumer.Alarm returns it in
// every instance.
type UnreadAgeError struct {
	// Stream and Durable name whose message it is, Sequence where it is stored.
	Stream, Durable string
	Sequence        uint64
	// Age is that of the message; at Limit its stream removes it.
	Age, Limit time.Duration
}

// Error names the message and the remedy.
func (e *UnreadAgeError) Error() string {
	return fmt.Sprintf("consumer: the oldest message of stream %q that durable %q has not settled, at sequence %d, is %v old; at %v the stream removes it: find out why it is not handled, or raise the stream's MaxAge",
		e.Stream, e.Durable, e.Sequence, e.Age.Round(time.Second), e.Limit)
}

// lookout asks the server now and then how far the durable is behind, and rings
// when its oldest unsettled message has half of its stream's age (requirement Q4).
// Its loop is a single goroutine.
type lookout struct {
	c     *Consumer
	least time.Duration // between looks
	rash  bool          // least is all: for tests
	seen  atomic.Pointer[position]

	limit   time.Duration // of the stream's messages, as far as is known; 0: none
	limited time.Time     // when it was asked for
	oldest  oldest        // as of the last look
	warned  time.Time     // zero: there was no alarm
	failed  bool          // the last look

	mu    sync.Mutex
	alarm error
}

// position is what one look found.
type position struct {
	at                  time.Time // local clock
	every               time.Duration
	pending, ackPending uint64
	age, limit          time.Duration
	known               bool   // what follows
	oldest              uint64 // sequence; 0: there is none
}

// oldest is the oldest unsettled message.
type oldest struct {
	floor  uint64 // all up to here is settled
	seq    uint64 // 0: there is none
	stored time.Time
	ids    []any // for the log
}

// Alarm returns what an operator should hear of although messages may flow: an
// *UnreadAgeError while the oldest message of the durable that is not settled has
// half of its stream's age, or nil. Every instance tells. It is also logged, once an
// hour. The server is asked every twentieth of that age, every 5 min at the least,
// and every 15 s where metrics are collected. It is no readiness: to take instances
// out of service would make it worse. Safe for concurrent use.
func (c *Consumer) Alarm() error {
	c.lookout.mu.Lock()
	defer c.lookout.mu.Unlock()
	return c.lookout.alarm
}

// fresh returns the last look, nil if the next ones did not come.
func (l *lookout) fresh() *position {
	if seen := l.seen.Load(); seen != nil && time.Since(seen.at) < 3*seen.every+lookupTimeout {
		return seen
	}
	return nil
}

// run looks until ctx ends. Instances that were started together do not ask
// together.
func (l *lookout) run(ctx context.Context) {
	sleep.For(ctx, time.Duration(rand.Int64N(int64(min(l.every(), lookMeasured)))))
	for ctx.Err() == nil {
		err := l.look(ctx)
		if err != nil && !l.failed && ctx.Err() == nil {
			l.c.log.Warn("consumer: no telling how old what is unread is", "durable", l.c.cfg.Consumer.Durable,
				"stream", l.c.cfg.Consumer.Stream.Name, "error", clip(err.Error(), maxErrorText))
		}
		l.failed = err != nil
		sleep.For(ctx, l.every())
	}
}

// every is the pause between two looks.
func (l *lookout) every() time.Duration {
	every := max(l.least, min(l.limit/looksPerAge, lookMost))
	switch {
	case l.rash:
		return l.least
	case l.limit <= 0:
		every = lookMost // nothing is removed by age
	}
	if l.c.measured.collected() {
		every = min(every, lookMeasured)
	}
	return every
}

// look asks once.
func (l *lookout) look(ctx context.Context) error {
	if !l.c.js.Conn().IsConnected() {
		return nil // Ready tells
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	l.learnLimit(ctx)
	declared := l.c.cfg.Consumer
	l.c.count.requests.Add(1)
	found, err := l.c.js.Consumer(ctx, declared.Stream.Name, declared.Durable)
	if err != nil {
		return fmt.Errorf("look up durable: %w", err)
	}
	info := found.CachedInfo()
	seen := &position{
		at: time.Now(), every: l.every(), limit: l.limit,
		pending: info.NumPending, ackPending: uint64(max(info.NumAckPending, 0)),
	}
	err = l.findOldest(ctx, info)
	if seen.known = err == nil; seen.known && l.oldest.seq > 0 {
		seen.oldest = l.oldest.seq
		seen.age = max(info.TimeStamp.Sub(l.oldest.stored), 0) // both of the servers' clocks
	}
	l.seen.Store(seen)
	if seen.known {
		l.judge(seen)
	}
	return err
}

// learnLimit asks for the age of the stream, which is the owner's to change. Where
// there is no answer the declaration holds.
func (l *lookout) learnLimit(ctx context.Context) {
	if time.Since(l.limited) < limitEvery {
		return
	}
	l.c.count.requests.Add(1)
	if stream, err := l.c.js.Stream(ctx, l.c.cfg.Consumer.Stream.Name); err == nil {
		l.limit = stream.CachedInfo().Config.MaxAge
	}
	l.limited = time.Now()
}

// findOldest finds the oldest message that is not settled: the first behind the
// durable's ack floor that it reads.
func (l *lookout) findOldest(ctx context.Context, info *jetstream.ConsumerInfo) error {
	floor := info.AckFloor.Stream
	if info.NumPending == 0 && info.NumAckPending == 0 {
		l.oldest = oldest{floor: floor}
		return nil
	}
	expired := l.limit > 0 && info.TimeStamp.Sub(l.oldest.stored) >= l.limit
	if l.oldest.seq > 0 && l.oldest.floor == floor && !expired {
		return nil // the same as before
	}
	filters := info.Config.FilterSubjects
	if len(filters) == 0 {
		filters = []string{info.Config.FilterSubject}
	}
	first := oldest{floor: floor}
	for _, filter := range filters {
		one, err := l.next(ctx, floor+1, filter)
		if err != nil {
			return err
		}
		if one.seq > 0 && (first.seq == 0 || one.seq < first.seq) {
			first.seq, first.stored, first.ids = one.seq, one.stored, one.ids
		}
	}
	l.oldest = first
	return nil
}

// messageAnswer is as much of the server's answer as is wanted; the payload is not.
type messageAnswer struct {
	Error   *jetstream.APIError `json:"error"`
	Message struct {
		Sequence uint64    `json:"seq"`
		Time     time.Time `json:"time"`
		Header   []byte    `json:"hdrs"`
	} `json:"message"`
}

// next asks the stream's leader for the first message from a sequence on.
func (l *lookout) next(ctx context.Context, from uint64, filter string) (oldest, error) {
	if filter == "" {
		filter = ">"
	}
	body, err := json.Marshal(map[string]any{"seq": from, "next_by_subj": filter})
	if err != nil {
		return oldest{}, fmt.Errorf("encode request: %w", err)
	}
	api := apiPrefix(l.c.js.Options()) + "STREAM.MSG.GET." + l.c.cfg.Consumer.Stream.Name
	l.c.count.requests.Add(1)
	raw, err := l.c.js.Conn().RequestWithContext(ctx, api, body)
	if err != nil {
		return oldest{}, fmt.Errorf("ask for the oldest unread message (needs the right to publish to %s): %w", api, err)
	}
	var answer messageAnswer
	if err := json.Unmarshal(raw.Data, &answer); err != nil {
		return oldest{}, errors.New("ask for the oldest unread message: the answer is not JetStream's")
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return oldest{}, nil // it went meanwhile
	case answer.Error != nil:
		return oldest{}, fmt.Errorf("ask for the oldest unread message: %w", answer.Error)
	}
	m := answer.Message
	found := oldest{seq: m.Sequence, stored: m.Time}
	if header, err := nats.DecodeHeadersMsg(m.Header); err == nil {
		found.ids = idAttrs(nil, envelope.Header(header))
	}
	return found, nil
}

// judge rings, or stops to.
func (l *lookout) judge(seen *position) {
	declared := l.c.cfg.Consumer
	var alarm error
	if seen.limit > 0 && seen.age >= seen.limit/2 {
		alarm = &UnreadAgeError{
			Stream: declared.Stream.Name, Durable: declared.Durable, Sequence: l.oldest.seq, Age: seen.age, Limit: seen.limit,
		}
	}
	l.mu.Lock()
	l.alarm = alarm
	l.mu.Unlock()
	switch {
	case alarm != nil && time.Since(l.warned) >= warnAgain:
		l.warned = time.Now()
		l.c.log.Warn("consumer: the oldest unread message has half of the age at which its stream removes it", append(l.oldest.ids,
			"durable", declared.Durable, "stream", declared.Stream.Name, "sequence", l.oldest.seq,
			"age", seen.age.Round(time.Second), "limit", seen.limit)...)
	case alarm == nil && !l.warned.IsZero():
		l.warned = time.Time{}
		l.c.log.Info("consumer: the oldest unread message is younger again: the one before was handled, or removed",
			"durable", declared.Durable, "stream", declared.Stream.Name, "age", seen.age.Round(time.Second))
	}
}
