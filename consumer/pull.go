package consumer

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/topology"
)

// source asks a durable for messages. It is the seam between the pull loop,
// which knows how many and when, and the protocol.
type source interface {
	// pull asks for n messages and hands each one to deliver as it comes. It
	// returns nil when n came or the request expired, an error when the request
	// failed, and the cause of ctx when that ended. It calls alive whenever the
	// server answered. Of deliver it makes at most n calls.
	pull(ctx context.Context, n int, probe bool, deliver func(*nats.Msg), alive func()) error
	// close gives up the subscription after handing out what was under way.
	close(ctx context.Context)
}

// durable names one durable of this consumer.
type durable struct {
	stream, name string
	lane         *lane
	replay       bool
}

// recovery paces the attempts to get a durable back: few enough to leave a
// struggling server alone, at most 5 s after it is well again.
func recovery() backoff.Policy {
	return backoff.Policy{Initial: 100 * time.Millisecond, Max: 5 * time.Second}
}

// phase is what a pull knows about its durable.
type phase uint8

const (
	// lost: nothing may be asked for until the durable was looked up.
	lost phase = iota
	// probing: it was found; the next request has to prove that it is served.
	probing
	// served: the server answered the last request.
	served
)

// pull keeps one durable's messages coming. Its loop is a single goroutine with
// at most one open request: when a request is used up, all its messages are with
// workers, and the next one asks for as many as have become free meanwhile. The
// faster the workers, the larger the requests.
type pull struct {
	durable
	source  source
	gate    *gate
	deliver func(*nats.Msg)
	// inspect asks the server whether the durable is there and as declared.
	inspect func(context.Context) error
	// rebase has an ordered consumer's durable deliver from its ack floor again,
	// whenever deliveries may have gone elsewhere; nil for others.
	rebase    func(context.Context) error
	hasty     time.Duration // a request that ends sooner, and short, was refused
	connected func() bool
	log       *slog.Logger
	kick      chan struct{} // cuts a wait short

	mu       sync.Mutex
	phase    phase
	trouble  error                   // why no messages come, nil if they do
	failures int                     // since the server last answered
	cut      context.CancelCauseFunc // ends the open request, nil if none was
}

// find looks the durable up before the first request. A durable that is missing
// or not as declared is an error; a server that does not answer is waited for.
func (p *pull) find(ctx context.Context) error {
	for ctx.Err() == nil {
		err := errDisconnected
		if p.connected() {
			err = p.inspect(ctx)
		}
		if err == nil {
			p.started()
			return nil
		}
		if isDefinite(err) {
			return err
		}
		p.fail(err)
		p.wait(ctx)
	}
	return nil
}

// isDefinite tells what the server said from its silence.
func isDefinite(err error) bool {
	_, missing := errors.AsType[*DurableMissingError](err)
	_, drifted := errors.AsType[*topology.DriftError](err)
	return missing || drifted
}

// started believes that a durable which was found is served, until a request
// says otherwise.
func (p *pull) started() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.servedLocked()
	p.phase = probing
}

// run loops until ctx ends.
func (p *pull) run(ctx context.Context) {
	for ctx.Err() == nil {
		if p.isLost() {
			p.recover(ctx)
			continue
		}
		if n := p.gate.reserve(p.lane); n > 0 {
			p.round(ctx, n)
			continue
		}
		select {
		case <-p.lane.wake:
		case <-p.kick: // the connection changed
		case <-ctx.Done():
		}
	}
}

// round sends one request for n messages and stays with it until it is over.
func (p *pull) round(ctx context.Context, n int) {
	request, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	probe := p.begin(cut)
	received := 0
	begun := time.Now()
	err := p.source.pull(request, n, probe, func(raw *nats.Msg) {
		received++
		p.deliver(raw)
	}, p.answered)
	if err == nil && received < n && time.Since(begun) < p.hasty {
		err = errHasty // asking again at once would be a busy loop
	}
	// deliver has counted what came; the rest of the request is void.
	p.gate.forgo(p.lane, n-received)
	if err != nil && request.Err() == nil {
		p.fail(err)
	}
}

// begin remembers how to cut the request short, and returns whether it has to
// prove that the durable is served.
func (p *pull) begin(cut context.CancelCauseFunc) (probe bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	return p.phase != served
}

func (p *pull) isLost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase == lost
}

// recover waits its turn and looks the durable up once. While the connection is
// down it sends nothing.
func (p *pull) recover(ctx context.Context) {
	p.wait(ctx)
	if ctx.Err() != nil {
		return
	}
	if !p.connected() {
		p.fail(errDisconnected)
		return
	}
	if err := p.look(ctx); err != nil {
		if ctx.Err() == nil {
			p.fail(err)
		}
		return
	}
	p.found()
}

func (p *pull) look(ctx context.Context) error {
	switch {
	case p.rebase == nil && p.moved():
		return nil
	case p.rebase == nil:
		return p.inspect(ctx)
	}
	if err := p.inspect(ctx); err != nil {
		return err
	}
	return p.rebase(ctx)
}

// moved reports whether the last request ended because the durable has another
// leader. It is there, then; a look-up at this moment is often not answered at
// all, and the next request asks the same question.
func (p *pull) moved() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Is(p.trouble, jetstream.ErrConsumerLeadershipChanged)
}

// wait passes the backoff's delay, or less if the connection changes.
func (p *pull) wait(ctx context.Context) {
	p.mu.Lock()
	failures := p.failures
	p.mu.Unlock()
	if failures == 0 {
		return // it was told to begin anew
	}
	timer := time.NewTimer(recovery().Delay(failures))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.kick:
	case <-ctx.Done():
	}
}

// found ends the search. A lost connection is mended by that; every other
// trouble is over when a request was answered, since a durable may be there and
// still not be served. Where nothing is asked for, ready does not wait for that.
func (p *pull) found() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = probing
	if errors.Is(p.trouble, errDisconnected) {
		p.servedLocked()
	}
}

// answered notes that the server answered a request.
func (p *pull) answered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase == lost {
		return // of a request that was given up: what it brings mends nothing
	}
	p.failures = 0
	if p.phase == probing {
		p.servedLocked()
	}
}

func (p *pull) servedLocked() {
	p.phase = served
	if p.trouble != nil {
		p.log.Info("consumer: messages can be fetched again", "durable", p.name, "stream", p.stream)
	}
	p.trouble = nil
}

// fail notes why no messages come. Each reason is logged once.
func (p *pull) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures++
	p.phase = lost
	if p.trouble == nil || p.trouble.Error() != err.Error() {
		p.log.Warn("consumer: no messages can be fetched", "durable", p.name, "stream", p.stream, "error", clip(err.Error(), maxErrorText))
	}
	p.trouble = err
}

// disconnected ends the open request: the server has forgotten it, and its
// silence would be noticed late.
func (p *pull) disconnected() {
	p.cutShort(errDisconnected)
	p.fail(errDisconnected)
	p.nudge()
}

// stumble ends the open request and looks the durable up before the next one.
func (p *pull) stumble(err error) {
	p.cutShort(err)
	p.fail(err)
}

// restart is stumble without a failure, and without a delay. What ready passed over
// while nothing was asked for is forgotten.
func (p *pull) restart(why error) {
	p.cutShort(why)
	p.mu.Lock()
	if p.phase != lost {
		p.trouble = nil
	}
	p.phase, p.failures = lost, 0
	p.mu.Unlock()
	p.nudge()
}

// cutShort ends the open request, if there is one.
func (p *pull) cutShort(why error) {
	p.mu.Lock()
	cut := p.cut
	p.mu.Unlock()
	if cut != nil {
		cut(why)
	}
}

// reconnected starts over without the delay that grew during the outage.
func (p *pull) reconnected() {
	p.mu.Lock()
	p.failures = 0
	p.mu.Unlock()
	p.nudge()
}

func (p *pull) nudge() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// ready returns why no messages come, or nil. An instance that stands by sends no
// requests that could be answered; for it a durable is well that was found.
func (p *pull) ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trouble == nil || p.phase != lost && p.gate.standsBy() {
		return nil
	}
	return &NotReadyError{Durable: p.name, Stream: p.stream, Err: p.trouble}
}
