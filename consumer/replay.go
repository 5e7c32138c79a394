package consumer

import (
	"context"
	"fmt"
	"strconv"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// readReplay takes from a replay's headers which letter it is and where its
// original was. From there on it is handled like the original: same subject,
// same checks, same verdicts.
//
// Only the replay durable's messages are read so. On any other delivery these
// headers are foreign text: a producer must not be able to revive what an
// operator has buried.
func (j *job) readReplay(s subject.Service) error {
	h := j.m.header()
	letter := h.Get(envelope.HeaderLetterID)
	if _, err := subject.DLQMark(s, letter); err != nil {
		return fmt.Errorf("consumer: replay header %s: %w", envelope.HeaderLetterID, err)
	}
	// It must be a subject that a letter can be about: a replay that fails
	// becomes one, and could otherwise be neither handled nor buried.
	original := h.Get(envelope.HeaderOriginalSubject)
	if _, err := subject.DLQ(s, original); err != nil {
		return fmt.Errorf("consumer: replay header %s: %w", envelope.HeaderOriginalSubject, err)
	}
	// A letter whose original could not be located has no sequence; it is told
	// apart by its id.
	seq, err := strconv.ParseUint(h.Get(envelope.HeaderOriginalSequence), 10, 64)
	if err != nil {
		seq = 0
	}
	j.letter, j.subject, j.seq = letter, original, seq
	j.stream = h.Get(envelope.HeaderOriginalStream)
	return nil
}

// resolve notes that a replay was handled, before the replay is acknowledged: a
// crash in between repeats the replay, which the inbox absorbs, and never leaves
// a letter open that was handled.
//
// A failure is the store's and no attempt of the message: the handler is not run
// again. The replay waits, like a message that cannot be buried, until its letter
// is resolved; only a shutdown ends that with an error.
func (c *Consumer) resolve(ctx context.Context, j *job) error {
	step := func(ctx context.Context) error { return c.resolveOnce(ctx, j) }
	if err := step(ctx); err != nil {
		return c.held(ctx, err, step)
	}
	return nil
}

func (c *Consumer) resolveOnce(ctx context.Context, j *job) error {
	ctx, cancel := context.WithTimeout(ctx, letterTimeout)
	defer cancel()
	err := protect(func() error {
		return c.dead.Resolve(ctx, j.letter, "handled by "+c.cfg.Consumer.Durable)
	})
	if err == nil {
		return nil
	}
	if envelope.IsPermanent(err) {
		// The operator closed the letter meanwhile. The effect is there, and
		// repeating the handler would change nothing.
		c.logFailure(ctx, j, "consumer: handled a replay whose letter can no longer be resolved", verdict{err: err})
		return nil
	}
	return fmt.Errorf("consumer: resolve letter %s: %w", j.letter, err)
}
