package rpc

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
)

// admit runs in the client's callback, one request after the other: it starts a
// handler or refuses, and waits for nothing.
func (s *Server) admit(work context.Context, e *endpoint, m *nats.Msg) {
	if !answerable(m.Reply) {
		s.log.Debug("rpc: ignored a message that is no request", "operation", e.order[0].contract.name)
		return
	}
	at := time.Now()
	select {
	case s.places <- struct{}{}:
		go s.serve(work, e, m, at)
	default:
		s.refused.note(s)
		s.refuse(e, m, at)
	}
}

// answerable reports whether reply is a subject to answer on. Without one nobody
// waits: work without an answer is a command. And the broker lets a server answer
// wherever the request says: on a platform subject, or one of the broker's API, the
// answer would do what the caller itself may not.
func answerable(reply string) bool {
	return reply != "" && !strings.HasPrefix(reply, "dv.") && !strings.HasPrefix(reply, "$")
}

// refuse answers a request that found no place and that nobody looked at.
func (s *Server) refuse(e *endpoint, m *nats.Msg, at time.Time) {
	why := Errorf(CodeUnavailable, "all %d handlers are busy, or the server is stopping", s.cfg.Concurrency)
	s.answer(e.order[0], m, nil, why)
	e.order[0].count(time.Since(at), why)
}

// serve handles one request and answers it, whatever the handler does: one that
// panics or ends its goroutine leaves neither a reply nor an error.
func (s *Server) serve(work context.Context, e *endpoint, m *nats.Msg, at time.Time) {
	var (
		r      = e.order[0]
		in     meta
		reply  []byte
		failed *Error
	)
	defer func() {
		if value := recover(); value != nil {
			s.logFailure(r, &in, "handler panicked: "+fmt.Sprint(value), "stack", stack())
		}
		if reply == nil && failed == nil {
			failed = Errorf(CodeInternal, textInternal)
		}
		s.answer(r, m, reply, failed)
		// The place is free before anything else that might wait: the caller may
		// have its answer by now, and ask again.
		<-s.places
		r.count(time.Since(at), failed)
	}()

	in, fault := readHeader(m.Header, s.cfg.MaxTimeout)
	if fault != "" {
		failed = Errorf(CodeInvalidArgument, "%s", fault)
		return
	}
	route := e.routes[in.version]
	if route == nil {
		failed = Errorf(CodeUnimplemented, "%s is served in version %s", r.contract.name, e.versions())
		return
	}
	r = route
	if most := s.cfg.MaxRequest; len(m.Data) > most {
		failed = Errorf(CodeResourceExhausted, "request has %d bytes, at most %d", len(m.Data), most)
		return
	}
	ctx, cancel := context.WithDeadline(work, at.Add(in.timeout))
	defer cancel()
	reply, failed = s.handle(envelope.WithOrigin(ctx, in.origin), r, &in, m.Data)
}

// textInternal is all that a caller learns of an error that was not meant for it.
const textInternal = "internal error; the server's log says more"

// handle calls the handler and judges what it returned.
func (s *Server) handle(ctx context.Context, r *served, in *meta, body []byte) ([]byte, *Error) {
	reply, err := r.handle(ctx, body)
	if err != nil {
		return nil, s.judge(ctx, r, in, err)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, late() // nobody waits any more
	}
	if most := room(s.nc, s.cfg.MaxReply); len(reply) > most {
		text := fmt.Sprintf("reply has %d bytes, at most %d", len(reply), most)
		s.logFailure(r, in, text+"; page it, or put large data elsewhere and send a reference")
		return nil, Errorf(CodeResourceExhausted, "%s; ask for less", text)
	}
	return reply, nil
}

// late is the answer to a request whose handler took too long.
func late() *Error {
	return Errorf(CodeDeadlineExceeded, "the handler was not done before the deadline")
}

// judge turns a handler's error into the answer.
func (s *Server) judge(ctx context.Context, r *served, in *meta, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok && e != nil && e.Operation == "" {
		if e.Code.known() == CodeInternal {
			s.logFailure(r, in, fmt.Sprint(err))
		}
		return e
	}
	// fmt catches a panic of the error's own method.
	text := fmt.Sprint(err)
	s.logFailure(r, in, text)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return late()
	case ctx.Err() != nil:
		return Errorf(CodeCanceled, "the server had to stop before the handler was done")
	}
	return Errorf(CodeInternal, textInternal)
}

// maxStack bounds a stack in a log line.
const maxStack = 8 << 10

// stack returns the stack of a recovered panic. It must be called by the deferred
// function that recovered, while the panicking frames are still there.
func stack() string {
	text := make([]byte, maxStack)
	return string(text[:runtime.Stack(text, false)])
}

// logFailure writes the one line about a fault of the server. The text is foreign.
func (s *Server) logFailure(r *served, in *meta, text string, more ...any) {
	s.log.Error("rpc: request failed", append([]any{
		"operation", r.contract.String(), "correlation_id", in.origin.CorrelationID,
		"source", in.source, "error", oneLine(text),
	}, more...)...)
}

// answer sends the reply, or the error if there is one.
func (s *Server) answer(r *served, m *nats.Msg, reply []byte, failed *Error) {
	out := &nats.Msg{Subject: m.Reply, Header: r.replyHeader, Data: reply}
	if failed != nil {
		out.Header, out.Data = errorReply(failed)
	}
	if err := s.nc.PublishMsg(out); err != nil {
		s.log.Warn("rpc: reply could not be sent", "operation", r.contract.String(), "error", err.Error())
	}
}

// refusals notes overload without a line for each request.
type refusals struct {
	count atomic.Int64
	next  atomic.Int64 // when the next line may be written, in Unix nanoseconds
}

// refusalPause is the least time between two lines about overload.
const refusalPause = 10 * time.Second

func (r *refusals) note(s *Server) {
	n, now, next := r.count.Add(1), time.Now(), r.next.Load()
	if now.UnixNano() < next || !r.next.CompareAndSwap(next, now.Add(refusalPause).UnixNano()) {
		return
	}
	s.log.Warn("rpc: all handlers are busy, requests are refused", "concurrency", s.cfg.Concurrency, "refused", n)
}
