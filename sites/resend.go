package sites

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
)

// pace spreads what is resent over time. It is safe for concurrent use.
type pace struct {
	each time.Duration // for each message

	mu   sync.Mutex
	next time.Time
}

// take waits for the turn of one message, or until ctx ends.
func (p *pace) take(ctx context.Context) {
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	turn := p.next.Sub(now)
	p.next = p.next.Add(p.each)
	p.mu.Unlock()
	wait(ctx, turn)
}

// answerResend sends messages of a flow that begins here again: what is in its
// stream now, with the same bytes and headers, if its id is the one that was asked
// for. Asked twice it sends twice at most, which the destination's duplicate window
// and the inboxes there absorb.
func (w *Watcher) answerResend(ctx context.Context, d departure, q resendQuestion) (resendAnswer, error) {
	if len(q.Messages) > maxResend || q.Beyond > maxJump {
		return resendAnswer{}, refuse(RefusedMalformed, "more than %d messages, or a sequence beyond all", maxResend)
	}
	turn := time.NewTimer(resendTime)
	defer turn.Stop()
	select {
	case w.resending <- struct{}{}: // one at a time: the rate is that of the watcher
		defer func() { <-w.resending }()
	case <-turn.C:
		return resendAnswer{}, refuse(RefusedBusy, "messages are being sent again")
	case <-ctx.Done():
		return resendAnswer{}, context.Cause(ctx)
	}
	js, a := w.conn.JetStream(), resendAnswer{answer: w.answer(nil)}
	from, err := js.Stream(ctx, d.stream)
	if err != nil {
		return resendAnswer{}, fmt.Errorf("sites: read stream %s: %w", d.stream, err)
	}
	if err := w.clear(ctx, d, q.Beyond); err != nil {
		return resendAnswer{}, err
	}
	until := time.Now().Add(resendTime)
	for _, wanted := range q.Messages {
		if a.Done > 0 && time.Now().After(until) || ctx.Err() != nil {
			break
		}
		msg, err := w.again(ctx, d, from, wanted)
		if err != nil {
			return resendAnswer{}, err
		}
		if a.Done++; msg == nil {
			a.Gone++
			continue
		}
		w.pace.take(ctx)
		if _, err := js.PublishMsg(ctx, msg, jetstream.WithExpectStream(d.again)); err != nil {
			return resendAnswer{}, refuse(RefusedFailed, "%s takes no more: %v", d.again, err)
		}
		a.Sent++
	}
	w.log.Info("sites: messages were sent again", "flow", d.Flow.String(), "stream", d.again, "sent", a.Sent, "gone", a.Gone)
	return a, nil
}

// clear removes from the stream of what is resent what the destination has, and, if
// the stream was put back to an earlier state, moves it to where the destination
// is: from sequences below, nothing would be fetched.
func (w *Watcher) clear(ctx context.Context, d departure, beyond uint64) error {
	again, err := w.conn.JetStream().Stream(ctx, d.again)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return refuse(RefusedStream, "%s does not exist", d.again)
	}
	if err != nil {
		return fmt.Errorf("sites: read stream %s: %w", d.again, err)
	}
	if beyond < again.CachedInfo().State.FirstSeq {
		return nil
	}
	if err := again.Purge(ctx, jetstream.WithPurgeSequence(beyond+1)); err != nil {
		return fmt.Errorf("sites: clear stream %s: %w", d.again, err)
	}
	return nil
}

// again returns a message as it is to be sent, nil if the stream holds it no more.
func (w *Watcher) again(ctx context.Context, d departure, from jetstream.Stream, wanted heldID) (*nats.Msg, error) {
	held, err := from.GetMsg(ctx, wanted.Seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sites: read message %d of %s: %w", wanted.Seq, d.stream, err)
	}
	to := w.network.ResentSubject(d.Flow, held.Subject)
	if held.Header.Get(envelope.HeaderMsgID) != wanted.ID || to == "" {
		return nil, nil
	}
	msg := &nats.Msg{Subject: to, Header: nats.Header{}, Data: held.Data}
	for name, values := range held.Header {
		// What the server is told by other headers was meant for the first time.
		if !strings.HasPrefix(name, "Nats-") || name == envelope.HeaderMsgID {
			msg.Header[name] = values
		}
	}
	return msg, nil
}
