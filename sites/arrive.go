package sites

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// arrivalTime is how long one comparison waits for what is on its way.
	arrivalTime = 5 * time.Second
	// arrivalLook is the pause between two looks for it.
	arrivalLook = 50 * time.Millisecond
	// calm is how long nothing may move before what seems to be on its way is taken
	// for what will not come. The copy may have dropped a repeat, which is then the
	// last message of the origin for ever.
	calm = 30 * time.Second
	// longAsks is how many times Config.AskTimeout a question of a comparison may
	// take. The origin reads, or sends again, for a few seconds before it answers.
	longAsks = 5
	// busyPause is when an origin that is reading is asked again.
	busyPause = 250 * time.Millisecond
)

// stillness is since when the same is waited for.
type stillness struct {
	last, resent uint64
	at           mark
	since        time.Time
}

// arrive waits until the own index has all that the origin had: up to last of the
// stream that the flow begins in, and up to resent of the one of what is resent. An
// origin that was put back to an earlier state is behind what came from it, and there
// is nothing to wait for. The error is errOnItsWay if it takes too long.
func (o *compared) arrive(ctx context.Context, last, resent uint64) error {
	deadline := time.Now().Add(arrivalTime)
	for {
		if err := o.catchUp(ctx); err != nil {
			return err
		}
		at := o.own.mark()
		if at.position >= last && at.resent >= resent {
			return nil
		}
		if at != o.still.at || last > o.still.last || resent > o.still.resent {
			o.still = stillness{last, resent, at, time.Now()}
		}
		if time.Since(o.still.since) >= o.w.calm && o.idle(ctx) {
			return nil
		}
		if time.Now().After(deadline) {
			return errOnItsWay
		}
		wait(ctx, arrivalLook)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// idle reports whether the own server hears of the origin's streams, has all that
// they have to give, and takes more.
func (o *compared) idle(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	stream, err := o.w.conn.JetStream().Stream(ctx, o.stream.Name)
	if err != nil || full(stream.CachedInfo()) {
		return false
	}
	for _, name := range []string{o.source.Stream, o.again} {
		s := o.sourceIn(stream.CachedInfo(), name)
		if s == nil || s.Active < 0 || s.Active >= o.w.cfg.Silent || s.Lag > 0 {
			return false
		}
	}
	return true
}

// full reports whether a stream takes no more, or may not take the next message.
func full(info *jetstream.StreamInfo) bool { return fill(info) > 0.99 }

func (o *compared) question() question { return question{V: protocolVersion, To: o.To} }

func (o *compared) malformed(reason string) error {
	return &MalformedError{Site: o.From, Stream: o.source.Stream, Reason: reason}
}

// ask asks the origin, again while it is busy.
func (o *compared) ask(ctx context.Context, verb string, q, into any) error {
	for {
		one, cancel := context.WithTimeout(ctx, longAsks*o.w.cfg.AskTimeout)
		err := o.w.asker.ask(one, o.From, verb, o.source.Stream, q, into)
		cancel()
		if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Why != RefusedBusy {
			return err
		}
		wait(ctx, busyPause)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// errFull says why nothing is sent again.
func (o *compared) errFull() error {
	return fmt.Errorf("stream %s is full; what is missing is sent again when it takes more", o.stream.Name)
}

// resend has the origin send messages again. It returns what became of them.
func (c *comparison) resend(ctx context.Context, lacking []heldID) (sent, gone int, err error) {
	stream, err := c.w.conn.JetStream().Stream(ctx, c.stream.Name)
	if err != nil {
		return 0, 0, fmt.Errorf("read stream %s: %w", c.stream.Name, err)
	}
	if full(stream.CachedInfo()) {
		return 0, 0, c.errFull()
	}
	slices.SortFunc(lacking, func(a, b heldID) int { return int(min(1, max(-1, int64(a.Seq)-int64(b.Seq)))) })
	beyond := c.beyond(lacking)
	for len(lacking) > 0 {
		var a resendAnswer
		some := lacking[:min(len(lacking), maxResend)]
		if err := c.ask(ctx, verbResend, resendQuestion{question: c.question(), Messages: some, Beyond: beyond}, &a); err != nil {
			return sent, gone, err
		}
		if a.Done < 1 || a.Done > len(some) || a.Sent < 0 || a.Gone < 0 || a.Sent+a.Gone > a.Done {
			return sent, gone, c.malformed("it counts more than was asked for, or nothing")
		}
		sent, gone, lacking = sent+a.Sent, gone+a.Gone, lacking[a.Done:]
	}
	return sent, gone, nil
}

// beyond is the sequence behind which what is resent has to be. It is where the own
// copy is; the server remembers that also where all that came that way is gone, and
// then it shows by what was sent and did not come. So the stream is moved, ever
// further.
func (c *comparison) beyond(lacking []heldID) uint64 {
	const firstJump = 1000
	again := slices.ContainsFunc(lacking, func(h heldID) bool { return h.ID == c.sent })
	c.sent = lacking[0].ID
	at := c.own.mark().resent
	if !again {
		c.jump = 0
		return at
	}
	c.jump = max(firstJump, min(2*c.jump, maxJump/4))
	return min(max(at, c.resends)+c.jump, maxJump)
}
