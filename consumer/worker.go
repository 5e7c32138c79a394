package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/processed"
	"codeberg.org/dataverket/messaging/internal/telemetry"
	"codeberg.org/dataverket/messaging/subject"
)

// job is a message on its way through a worker. What is known about it grows
// from step to step, and a dead letter tells as much as is known.
type job struct {
	m       *message
	subject string // of the original, also for a replay
	letter  string // id of the replayed letter, "" for an ordinary delivery
	stream  string // where the original is stored
	seq     uint64

	envelope *envelope.Envelope // nil until it decoded
	route    *envelope.Route    // nil until one was found
	delivery *envelope.Delivery // nil until the envelope was checked
	begun    time.Time          // of the handler, zero before
	recorded bool               // the store knows of the start
	handling bool               // the handler was called and did not return
	watched  bool               // the breaker knows of the verdict
	span     telemetry.Span     // of the attempt
	again    bool               // a handler may have been started for it before
	// hold keeps its key waiting for an operator when it has become a dead letter;
	// nil where the key goes on.
	hold func(ctx context.Context, letter string) error
}

// strayDelay holds a stray back that found no worker free. Given back at once it
// would return at once, and each turn costs one of its attempts.
const strayDelay = time.Second

// receive takes a message off the subscription. A stray is one that no open
// request asked for. It must not block.
func (c *Consumer) receive(work context.Context, d durable, raw *nats.Msg, stray bool) {
	m, err := newMessage(c.js.Conn(), raw, d.replay)
	if err != nil {
		// Without metadata it can be counted but not settled; AckWait brings it
		// again.
		c.gate.forgo(d.lane, 1)
		c.log.Error("consumer: unreadable delivery", "durable", d.name, "error", err)
		return
	}
	c.count.arrived(m)
	admit := c.gate.arrive
	if stray {
		admit = c.gate.adopt
	}
	switch {
	case admit(d.lane):
		c.crew.run(func() { c.work(work, m) })
	case stray && !c.gate.isClosed():
		c.releaseAfter(m, strayDelay)
	default:
		c.release(m)
	}
}

// release gives a message back untried; the server delivers it again at once,
// here or to another replica.
func (c *Consumer) release(m *message) { c.releaseAfter(m, 0) }

func (c *Consumer) releaseAfter(m *message, delay time.Duration) {
	c.count.released.Add(1)
	c.sent(m, m.nak(delay))
}

// sent looks at the error of an ack, nak or term. It can only be a closed
// connection, or a store that is away, and then the message is delivered again.
func (c *Consumer) sent(m *message, err error) {
	if err != nil {
		c.log.Warn("consumer: a message was not settled and will be delivered again", append(idAttrs(nil, m.header()),
			"durable", c.cfg.Consumer.Durable, "stream", m.stream, "sequence", m.sequence, "error", err)...)
	}
}

// work takes one message from arrival to settlement.
func (c *Consumer) work(ctx context.Context, m *message) {
	defer c.depart()
	beat := &m.beat
	beat.start(c.beats, func() {
		// One that fails settles nothing: a lost connection is Ready's to tell.
		_ = m.inProgress()
	})
	defer beat.stop()
	if !c.gate.enter(ctx) {
		beat.stop()
		c.release(m)
		return
	}
	defer c.gate.leave()
	j, v := c.open(m)
	defer func() {
		if j.handling {
			c.finish(ctx, j, c.vanished(ctx, j, beat), beat)
		}
	}()
	if v.action == 0 {
		v = c.attempt(ctx, j, beat, protectHere)
	}
	c.finish(ctx, j, v, beat)
}

// finish carries out what was decided about a message.
func (c *Consumer) finish(ctx context.Context, j *job, v verdict, beat *heartbeat) {
	c.watchMass(j, v)
	c.settle(ctx, j, v, beat)
}

// vanished judges a handler that called runtime.Goexit. Nothing returns to where
// it was called from; what is left to do for its message is done on the way out.
func (c *Consumer) vanished(ctx context.Context, j *job, beat *heartbeat) verdict {
	beat.unfollow()
	v := c.policy.judge(errGoexit, j.delivery.Attempt, ctx.Err() != nil)
	if v.action != bury {
		c.ended(ctx, j, v)
	}
	c.measured.processed(ctx, j.begun, v)
	return v
}

// watchMass tells the breaker how a message fared. A stop, a duplicate, a broken
// replay, a message that waits for others, and a handler that says when to come
// again, say nothing about the service. Nor does a message that cannot be read or
// contradicts itself: whoever may publish could slow down everybody else's.
func (c *Consumer) watchMass(j *job, v verdict) {
	if j.watched {
		return
	}
	j.watched = true
	switch {
	case v.action == ack && !v.duplicate:
		c.mass.succeeded()
	case v.action == retry && asksForDelay(v.err),
		v.action == bury && (v.class == envelope.ClassDecode || v.class == envelope.ClassSecurity),
		v.action == release && (errors.Is(v.err, errCrowded) || errors.Is(v.err, errHeld)):
		c.mass.spared()
	case v.action == retry, v.action == bury, v.action == release && v.delay > 0:
		c.mass.failed(fmt.Sprintf("%s %d %s", j.stream, j.seq, j.letter), v.err)
	default:
		c.mass.spared()
	}
}

// open decodes a message and finds its handler. The verdict is zero if a handler
// may run.
func (c *Consumer) open(m *message) (*job, verdict) {
	j := &job{m: m, subject: m.raw.Subject, stream: m.stream, seq: m.sequence, again: m.delivered > 1}
	if m.replay {
		if err := j.readReplay(c.cfg.Consumer.Service()); err != nil {
			return j, verdict{action: reject, err: err}
		}
	}
	if err := j.decode(c.cfg.Consumer.Durable, origin{c.cfg.Site, c.cfg.Consumer.Stream}); err != nil {
		return j, verdict{action: bury, class: decodeClass(err), err: err}
	}
	route, err := c.routes.find(j.envelope)
	if err != nil {
		return j, verdict{action: bury, class: envelope.ClassDecode, err: ahead(err, j.delivery)}
	}
	j.route = route
	if c.cfg.Store == nil && m.delivered > c.cfg.MaxAttempts {
		// Every attempt was cut short: the process died or was stopped. Another
		// start might kill this one too.
		return j, verdict{action: bury, class: envelope.ClassExhausted, err: fmt.Errorf(
			"consumer: delivered %d times, at most %d attempts are made; the last one did not end in a verdict", m.delivered, c.cfg.MaxAttempts)}
	}
	return j, verdict{}
}

// decode fills the envelope, holds it against subject, headers and the site that
// stored it, and fills the delivery if all agree. A replay was held against its
// site before it became a letter, and is published here.
func (j *job) decode(durable string, from origin) error {
	env, err := envelope.Decode(j.m.raw.Data)
	if err != nil {
		return err
	}
	j.envelope = env
	on, err := subject.Parse(j.subject)
	if err != nil {
		return err
	}
	var site string
	var remote bool
	var siteErr error
	if j.letter == "" {
		site, remote, siteErr = from.of(j.m.header())
	} else {
		site = j.m.header().Get(envelope.HeaderSite)
	}
	if err := errors.Join(env.CheckSubject(on), env.CheckHeader(j.m.header()), siteErr); err != nil {
		return err
	}
	j.delivery = &envelope.Delivery{
		Envelope: env, Subject: on, Header: j.m.header(),
		Stream: j.m.stream, Sequence: j.m.sequence,
		Durable: durable, Attempt: j.m.delivered, Redelivered: j.m.delivered > 1, LetterID: j.letter,
		Site: site, Remote: remote || j.letter != "" && site != "" && from.here != "" && site != from.here,
	}
	if j.m.parked != nil {
		j.delivery.Claim = j.m.parked.row.Claim
	}
	return nil
}

// decodeClass tells a message that contradicts itself from one that cannot be
// read.
func decodeClass(err error) envelope.Class {
	if _, ok := errors.AsType[*envelope.MismatchError](err); ok {
		return envelope.ClassSecurity
	}
	return envelope.ClassDecode
}

// attempt runs the handler once, if it may, and counts that. ctx ends when a
// shutdown interrupts handlers; protect is how the handler is called.
func (c *Consumer) attempt(ctx context.Context, j *job, beat *heartbeat, protect protection) verdict {
	v, pass := c.start(ctx, j)
	defer pass.end()
	if v.action == 0 && ctx.Err() != nil {
		v = verdict{action: release, err: context.Cause(ctx)} // it waited to run alone
	}
	if v.action == 0 {
		v = c.handle(ctx, j, beat, protect, pass)
	}
	if v.action != bury { // which tells it when the letter is stored
		c.ended(ctx, j, v)
	}
	return v
}

// handle calls the handler and judges its error. A handler that outlasts its time
// is no company any more: it must neither keep others from running, nor one from
// running alone.
func (c *Consumer) handle(ctx context.Context, j *job, beat *heartbeat, protect protection, pass *pass) verdict {
	j.begun = time.Now()
	hctx := newHandlerContext(j.delivery.Context(ctx), j.begun.Add(c.cfg.HandlerTimeout))
	defer hctx.end()
	tctx := c.trace(hctx, j)
	// A handler that ignores the end of its ctx must not keep the message from
	// everybody else: AckWait after that somebody may try again.
	beat.follow(hctx)
	c.overdue.begun(pass, j.begun)
	j.handling = true
	err := protect(func() error {
		defer c.overdue.returned(pass)
		return j.route.Handle(tctx, j.delivery)
	})
	j.handling = false
	beat.unfollow()
	if j.m.replay && (err == nil || processed.Already(err)) {
		if failed := c.resolve(ctx, j); failed != nil {
			return verdict{action: release, err: failed}
		}
	}
	v := c.policy.judge(err, j.delivery.Attempt, ctx.Err() != nil)
	c.measured.processed(tctx, j.begun, v)
	return v
}

// protection calls a function of the service and turns a panic into an error, and
// an error that cannot be read into one that can.
type protection func(call func() error) error

// protectHere calls on this goroutine, which is what costs least: handing a call
// to another and waiting for it took a tenth of a message's time. A function that
// calls runtime.Goexit takes the caller with it.
func protectHere(call func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = newPanicError(v)
		}
	}()
	return readable(call())
}

// protect calls on another goroutine, so that a Goexit is an error too.
func protect(call func() error) error {
	return protectOn(func(task func()) { go task() }, call)
}

// protectAside is protect on a goroutine of the crew.
func (c *Consumer) protectAside(call func() error) error { return protectOn(c.crew.runNext, call) }

func protectOn(run func(func()), call func() error) error {
	done := make(chan error, 1)
	run(func() {
		err := errGoexit
		defer func() { done <- err }()
		err = protectHere(call)
	})
	return <-done
}

// settle carries a verdict out.
func (c *Consumer) settle(ctx context.Context, j *job, v verdict, beat *heartbeat) {
	if v.action == bury {
		c.bury(ctx, j, v, beat)
		return
	}
	beat.stop()
	defer j.traced(v)
	c.traceSettlement(j, v)
	switch v.action {
	case ack:
		c.acknowledge(j, v)
	case retry:
		c.again(ctx, j, v)
	case skip:
		c.count.skipped.Add(1)
		c.ack(j)
	case reject:
		c.count.rejected.Add(1)
		c.logFailure(ctx, j, "consumer: malformed replay instruction; the letter it may have meant is untouched", v)
		c.sent(j.m, j.m.term("malformed replay"))
	default:
		if v.delay > 0 {
			c.logFailure(ctx, j, "consumer: an attempt could not be begun", v, "delay", v.delay)
		}
		c.releaseAfter(j.m, v.delay)
	}
}

func (c *Consumer) acknowledge(j *job, v verdict) {
	if v.duplicate {
		c.count.duplicates.Add(1)
	} else {
		c.count.handled.Add(1)
	}
	c.ack(j)
}

// ack acknowledges a message: soon, if the server waits for that.
func (c *Consumer) ack(j *job) {
	if j.m.parked != nil {
		c.sent(j.m, j.m.ack())
		return
	}
	c.acks.add(j.m, j.begun)
}

// depart ends the stay of a message that is settled. The acks that wait for those
// of others go when there are no others.
func (c *Consumer) depart() {
	if c.gate.settle() {
		c.acks.flush()
	}
}
