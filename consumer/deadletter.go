package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/backoff"
)

// letterTimeout bounds one call of the DeadLetterer with those of a route's OnDead
// and MarkDead.
const letterTimeout = 10 * time.Second

// refusalDelays paces the attempts to bury a message.
func refusalDelays() backoff.Policy {
	return backoff.Policy{Initial: 200 * time.Millisecond, Max: 5 * time.Second}
}

// bury makes a message a dead letter: the letter is acknowledged by its stream,
// then its route is told, the handler's store marks the message dead, and only then
// the original is terminated (requirement I3). A crash between two of these steps repeats them;
// the letter's id makes that harmless.
//
// While a step fails, the message stays in progress, nothing new but replays
// is asked for, and Ready says why. Only a shutdown ends that: then the message is given
// back.
func (c *Consumer) bury(ctx context.Context, j *job, v verdict, beat *heartbeat) {
	ctx = c.traceBurial(ctx, j)
	b := burial{c: c, j: j, failure: c.failure(j, v)}
	err := b.step(ctx)
	if err != nil {
		err = c.held(ctx, err, b.step)
	}
	beat.stop()
	if err != nil {
		c.logFailure(ctx, j, "consumer: stopped before the dead letter was stored; the message is given back", verdict{err: err})
		c.release(j.m)
		j.traced(verdict{action: release})
		return
	}
	c.count.deadLetters.Add(1)
	c.measured.buried(v.class)
	c.logFailure(ctx, j, "consumer: dead letter", v, "class", v.class, "letter", b.letter)
	c.ended(ctx, j, v)
	c.sent(j.m, j.m.term(fmt.Sprintf("dead letter %s, class %s", b.letter, v.class)))
	j.span.DeadLetter(b.letter, string(v.class))
	c.traceSettlement(j, v)
	j.traced(v)
}

// held repeats a step that the dead-letter store refused with err, while the
// consumer is held, until it succeeds or ctx ends.
func (c *Consumer) held(ctx context.Context, err error, step func(context.Context) error) error {
	c.gate.pause()
	c.hold.begin(err)
	defer func() {
		c.hold.end()
		c.gate.resume()
	}()
	for attempt := 1; err != nil && ctx.Err() == nil; attempt++ {
		timer := time.NewTimer(refusalDelays().Delay(attempt))
		select {
		case <-timer.C:
			if err = step(ctx); err != nil {
				c.hold.update(err)
			}
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return err
}

// burial is how far a message's burial has come.
type burial struct {
	c       *Consumer
	j       *job
	failure *envelope.Failure
	letter  string // id, once acknowledged
}

// step does what is left to do.
func (b *burial) step(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, letterTimeout)
	defer cancel()
	if b.letter == "" {
		err := protect(func() (err error) {
			b.letter, err = b.c.dead.DeadLetter(ctx, b.failure)
			return err
		})
		if err == nil && b.letter == "" {
			err = errors.New("the store returned no letter id")
		}
		if err != nil {
			b.letter = ""
			return fmt.Errorf("store dead letter: %w", err)
		}
	}
	if b.j.hold != nil {
		if err := b.j.hold(ctx, b.letter); err != nil {
			return err
		}
	}
	route := b.j.route
	if hears := b.hears(); hears != nil {
		if err := protect(func() error { return hears(ctx, b.j.delivery, b.failure, b.letter) }); err != nil {
			return fmt.Errorf("tell of dead letter %s: %w", b.letter, err)
		}
	}
	if route == nil || route.MarkDead == nil {
		return nil
	}
	err := protect(func() error { return route.MarkDead(ctx, b.j.delivery, b.letter) })
	switch {
	case errors.Is(err, envelope.ErrAlreadyProcessed):
		return b.close(ctx)
	case err != nil:
		return fmt.Errorf("mark message dead as letter %s: %w", b.letter, err)
	}
	return nil
}

// hears returns who is told of the letter, nil for nobody: the message's route, or, of
// a version that has none, that of another version.
func (b *burial) hears() func(context.Context, *envelope.Delivery, *envelope.Failure, string) error {
	route := b.j.route
	if route == nil && b.j.delivery != nil {
		route = b.c.routes.kin(b.j.envelope)
	}
	if route == nil {
		return nil
	}
	return route.OnDead
}

// close resolves the letter of a message whose effect is there after all: another
// copy of it was handled, or another durable that has the same store. An operator
// who replays it would change nothing, or, once the store has forgotten the
// message, apply the effect again.
func (b *burial) close(ctx context.Context) error {
	err := protect(func() error {
		return b.c.dead.Resolve(ctx, b.letter, "the effect is there: another copy of the message was handled")
	})
	if err == nil || envelope.IsPermanent(err) {
		return nil
	}
	return fmt.Errorf("resolve letter %s, whose effect is there: %w", b.letter, err)
}

// failure tells everything that is known about a message that could not be
// handled.
func (c *Consumer) failure(j *job, v verdict) *envelope.Failure {
	f := &envelope.Failure{
		Durable: c.cfg.Consumer.Durable, Stream: j.stream, Sequence: j.seq, StoredAt: j.m.storedAt,
		Subject: j.subject, Header: j.m.header(), Data: j.m.raw.Data, Envelope: j.envelope,
		Class: v.class, Err: v.err, Attempts: c.attempts(j),
		LastAt: time.Now(), LetterID: j.letter,
	}
	if j.m.replay {
		f.StoredAt = time.Time{} // known to the letter, not to its replay
	}
	if !j.begun.IsZero() {
		f.LastAt = j.begun
	}
	// Earlier attempts may have been made elsewhere; none was made before the
	// message was stored.
	f.FirstAt = f.LastAt
	if j.again {
		f.FirstAt = j.m.storedAt
	}
	return f
}

// attempts is how often a handler was started for a message, as far as is known.
func (c *Consumer) attempts(j *job) int {
	if j.delivery != nil && c.cfg.Store != nil {
		return min(j.delivery.Attempt, c.cfg.MaxAttempts)
	}
	return min(j.m.delivered, c.cfg.MaxAttempts)
}

// hold is why the consumer asks for nothing new: messages that cannot be buried,
// and replays whose letter cannot be resolved.
// The zero value with a logger is ready to use.
type hold struct {
	log *slog.Logger

	mu       sync.Mutex
	messages int
	err      error // the latest
}

// begin counts a message in; the first one is logged.
func (h *hold) begin(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	if h.messages++; h.messages == 1 {
		h.log.Error("consumer: a dead letter cannot be stored or resolved; nothing new but replays is fetched until it can", "error", clip(err.Error(), maxErrorText))
	}
}

func (h *hold) update(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

// end counts a message out; the last one is logged.
func (h *hold) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.messages--; h.messages == 0 {
		h.err = nil
		h.log.Info("consumer: no message waits for the dead-letter store any more; messages are fetched again")
	}
}

// ready returns why nothing new is fetched, or nil.
func (h *hold) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.messages == 0 {
		return nil
	}
	return &NotReadyError{Err: fmt.Errorf("%d messages wait to become dead letters or to resolve theirs, nothing new but replays is fetched: %w", h.messages, h.err)}
}
