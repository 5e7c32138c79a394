package consumer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// surveyEvery is how often a consumer looks for parked messages that it does
	// not know of: those of a replica that died, and those that an operator made
	// due.
	surveyEvery = 5 * time.Second
	// claimAgain is the pause after a claim that got nothing although something
	// is due: another replica handles it.
	claimAgain = time.Second
	// parkedBatch is how many parked messages are claimed at once.
	parkedBatch = 16
)

// lot hands parked messages that are due to the workers. Its loop is a single
// goroutine with one statement at a time: a survey at intervals, and a claim when
// something is due and a worker is free.
type lot struct {
	c     *Consumer
	lane  *lane
	every time.Duration // surveyEvery, shorter in tests
	log   *slog.Logger
	kick  chan struct{} // something is due earlier than was known

	mu       sync.Mutex
	count    int       // parked, as far as is known
	due      time.Time // when the next is, zero for none
	surveyed time.Time
	counted  time.Time
	failures int
	trouble  error // why nothing can be read, nil if it can
	crowded  bool  // as many are parked as may be
}

func newLot(c *Consumer) *lot {
	return &lot{
		c: c, lane: c.gate.lanes[2], every: surveyEvery, kick: make(chan struct{}, 1),
		log: c.log.With("durable", c.cfg.Consumer.Durable),
	}
}

// run loops until ctx ends. work is the workers' ctx.
func (l *lot) run(ctx, work context.Context) {
	for ctx.Err() == nil {
		switch pause, due := l.next(); {
		case pause > 0:
			l.wait(ctx, pause)
		case due:
			l.note(ctx, l.claim(ctx, work))
		default:
			l.note(ctx, l.survey(ctx))
		}
	}
}

// next tells how long nothing is to be done, or else whether something is due.
func (l *lot) next() (pause time.Duration, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failures > 0 {
		return time.Until(l.surveyed), false
	}
	pause = time.Until(l.surveyed.Add(l.every))
	if !l.due.IsZero() && time.Until(l.due) < pause {
		return time.Until(l.due), true
	}
	return pause, false
}

func (l *lot) wait(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.kick:
	case <-ctx.Done():
	}
}

// survey learns when the next message is due, and at intervals how many are
// parked, which takes longer the more there are.
func (l *lot) survey(ctx context.Context) error {
	begun := time.Now()
	limit := l.look()
	return l.c.ask(ctx, func(ctx context.Context) error {
		count, next, err := l.c.cfg.Store.SurveyParked(ctx, l.c.cfg.Consumer.Durable, limit, l.c.order != nil)
		if err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.surveyed = begun
		if due := begun.Add(next); count > 0 && (l.due.IsZero() || due.Before(l.due)) {
			l.due = due
		}
		if limit == l.c.cfg.MaxParked {
			l.count, l.counted = count, begun
			l.setCrowded(count >= limit)
		}
		return nil
	})
}

// look forgets when the next message is due, before the store is asked: what is
// parked while it answers is told by expect. It returns how many are to be
// counted.
func (l *lot) look() (limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = time.Time{}
	if time.Since(l.counted) < l.every {
		return 1
	}
	return l.c.cfg.MaxParked
}

// claim hands out what is due, as far as workers are free.
func (l *lot) claim(ctx, work context.Context) error {
	n := l.reserve(ctx)
	if n == 0 {
		return nil
	}
	l.look()
	got := 0
	// A claim whose answer nobody waits for would last until its lease ends.
	err := l.c.ask(context.WithoutCancel(ctx), func(ctx context.Context) error {
		rows, err := l.c.cfg.Store.ClaimParked(ctx, l.c.cfg.Consumer.Durable, n, l.c.cfg.Consumer.AckWait, l.c.order != nil)
		for _, row := range rows {
			if row.ReleasedBy != "" {
				l.log.Info("consumer: an operator made a parked message due", append(idAttrs(nil, row.Header), "id", row.MessageID, "key", row.Key,
					"by", row.ReleasedBy, "reason", clip(row.ReleaseReason, maxErrorText))...)
			}
			l.hand(work, l.c.newParkedMessage(row))
		}
		got = len(rows)
		return err
	})
	l.c.gate.forgo(l.lane, n-got)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch now := time.Now(); got {
	case n:
		l.due = now // there may be more
	case 0:
		l.surveyed = now.Add(claimAgain - l.every)
	default:
		l.surveyed = time.Time{} // when is the next?
	}
	return err
}

// reserve waits for free workers, as long as no survey is due.
func (l *lot) reserve(ctx context.Context) int {
	timer := time.NewTimer(surveyEvery)
	defer timer.Stop()
	for {
		if n := l.c.gate.reserve(l.lane); n > 0 {
			return n
		}
		select {
		case <-l.lane.wake:
		case <-timer.C:
			l.look()
			return 0
		case <-ctx.Done():
			return 0
		}
	}
}

// hand gives a message to a worker, or back to the store during a drain.
func (l *lot) hand(work context.Context, m *message) {
	if l.c.order != nil {
		l.c.receiveParked(l.lane, m)
		return
	}
	if l.c.gate.arrive(l.lane) {
		l.c.crew.run(func() { l.c.work(work, m) })
		return
	}
	l.c.release(m)
}

// note keeps the outcome of a statement. Each trouble is logged once.
func (l *lot) note(ctx context.Context, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err == nil:
		if l.trouble != nil {
			l.log.Info("consumer: parked messages can be read again")
		}
		l.failures, l.trouble = 0, nil
	default:
		if l.trouble == nil || l.trouble.Error() != err.Error() {
			l.log.Warn("consumer: parked messages cannot be read", "error", clip(err.Error(), maxErrorText))
		}
		l.failures++
		l.trouble = err
		l.surveyed = time.Now().Add(recovery().Delay(l.failures))
	}
}

// parked notes that a message was parked here.
func (l *lot) parked(delay time.Duration) {
	l.c.count.parked.Add(1)
	l.mu.Lock()
	l.count++
	l.setCrowded(l.count >= l.c.cfg.MaxParked)
	l.mu.Unlock()
	l.expect(delay)
}

// expect notes that a parked message is due after delay.
func (l *lot) expect(delay time.Duration) {
	due := time.Now().Add(delay)
	l.mu.Lock()
	sooner := l.due.IsZero() || due.Before(l.due)
	if sooner {
		l.due = due
	}
	l.mu.Unlock()
	if !sooner {
		return
	}
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// setCrowded notes whether anything more may be parked, and logs a change.
func (l *lot) setCrowded(crowded bool) {
	if crowded && !l.crowded {
		l.log.Error("consumer: as many messages are parked as may be; long delays are cut, and hold places of the durable", "parked", l.count)
	}
	if !crowded && l.crowded {
		l.log.Info("consumer: messages can be parked again", "parked", l.count)
	}
	l.crowded = crowded
}

// full returns why nothing more may be parked, or nil.
func (l *lot) full() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.crowded {
		return nil
	}
	return fmt.Errorf("%d messages are parked, as many as Config.MaxParked allows; delays are cut to %v and hold places of the durable", l.count, MaxRetryAfter)
}

// ready returns what is wrong with the parked messages, or nil.
func (l *lot) ready() error {
	if l == nil {
		return nil
	}
	err := l.full()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.trouble != nil {
		err = fmt.Errorf("parked messages cannot be read: %w", l.trouble)
	}
	if err == nil {
		return nil
	}
	return &NotReadyError{Err: err}
}

// waiting is how many messages are parked, as far as is known.
func (l *lot) waiting() int {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}
