package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
)

// Client makes calls over one connection. It holds no state of a call: it is safe
// for concurrent use by any number of goroutines, and needs no closing.
type Client struct {
	nc     *nats.Conn
	cfg    ClientConfig
	source string
}

// NewClient returns a client over nc, which is the process's one connection
// (natsconn.Conn.NATS). It does no I/O and reports all faults at once.
func NewClient(nc *nats.Conn, cfg ClientConfig) (*Client, error) {
	cfg = cfg.withDefaults()
	faults := cfg.faults()
	if nc == nil {
		faults = append(faults, errors.New("rpc: connection: is nil; pass natsconn.Conn.NATS()"))
	} else if !answerable(nc.NewInbox()) {
		faults = append(faults, errors.New("rpc: connection: its inbox prefix begins with dv. or $, where no server answers; use one like _INBOX_maskin"))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	c := &Client{nc: nc, cfg: cfg}
	if cfg.Service.Valid() {
		c.source = cfg.Service.String()
	}
	return c, nil
}

// Call sends request to one server of the operation's service and returns its
// reply. Every error is an [*Error]; the reply is then the zero value.
//
// ctx must have a deadline, at most ClientConfig.MaxTimeout away, and carry an
// origin (envelope.WithOrigin), as the ctx of a handler does. Deadline,
// correlation, causation, actor, tenant and trace go along: the server's ctx ends
// when ctx does, and has the same origin. The server is told how long the call may
// take, not until when, so that no two clocks need to agree.
//
// Cancelling ctx ends the wait only: the handler is not told, and its ctx ends at the
// deadline that was sent.
//
// Call sends once. Error.Retryable says when sending again is safe.
func (op Operation[T, R]) Call(ctx context.Context, c *Client, request T) (R, error) {
	var reply, zero R
	if op.contract == nil {
		return zero, &Error{Code: CodeInvalidArgument, Local: true, Operation: op.String(),
			Message: "the operation is empty; make it with rpc.MustOperation"}
	}
	body, err := encode(&request)
	if err != nil {
		return zero, op.contract.local(CodeInvalidArgument, err, "request "+err.Error())
	}
	data, failed := c.call(ctx, op.contract, body)
	if failed != nil {
		return zero, failed
	}
	if err := decode(data, op.contract.reply.names, &reply); err != nil {
		return zero, op.contract.local(CodeInternal, err, "reply "+err.Error())
	}
	return reply, nil
}

// local is an error that this process found.
func (c *contract) local(code Code, cause error, message string) *Error {
	return &Error{Code: code, Message: message, Local: true, Operation: c.name, cause: cause}
}

// call sends one request and returns the body of the reply.
func (c *Client) call(ctx context.Context, op *contract, body []byte) ([]byte, *Error) {
	m, failed := c.describe(ctx, op)
	if failed != nil {
		return nil, failed
	}
	if most := room(c.nc, c.cfg.MaxRequest); len(body) > most {
		return nil, op.local(CodeResourceExhausted, ErrTooLarge, fmt.Sprintf(
			"request has %d bytes, at most %d; page it, or put large data elsewhere and send a reference", len(body), most))
	}
	if !c.nc.IsConnected() {
		// The client library would buffer the request, or refuse it and keep an entry
		// for its answer for as long as the connection lives.
		return nil, op.local(CodeUnavailable, nats.ErrDisconnected, "not connected to the broker; nothing was sent")
	}
	reply, err := c.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: op.subject.String(), Header: m.header(), Data: body})
	if err != nil {
		return nil, op.unanswered(err, c.nc.LastError())
	}
	if isErrorReply(reply.Header) {
		e := readError(reply.Data)
		e.Operation = op.name
		return nil, e
	}
	if version := reply.Header[envelope.HeaderEventVersion]; len(version) != 1 || version[0] != op.version {
		return nil, op.local(CodeInternal, nil, "what answered is no reply of this operation in version "+op.version+
			"; does a stream or another program listen on "+op.subject.String()+"?")
	}
	return reply.Data, nil
}

// describe is what the headers will say.
func (c *Client) describe(ctx context.Context, op *contract) (m meta, failed *Error) {
	deadline, ok := ctx.Deadline()
	timeout := time.Until(deadline)
	switch {
	case ctx.Err() != nil:
		return m, op.unanswered(ctx.Err(), nil)
	case !ok:
		return m, op.local(CodeInvalidArgument, ErrNoDeadline, fmt.Sprintf(
			"ctx has no deadline; use context.WithTimeout with at most %s", c.cfg.MaxTimeout))
	case timeout > c.cfg.MaxTimeout:
		return m, op.local(CodeInvalidArgument, ErrDeadlineTooFar, fmt.Sprintf(
			"ctx ends in %s, at most %s are allowed; use context.WithTimeout, and a command with a task for longer work",
			timeout.Round(time.Millisecond), c.cfg.MaxTimeout))
	case timeout < time.Millisecond:
		return m, op.local(CodeDeadlineExceeded, context.DeadlineExceeded, "ctx ends in less than a millisecond; nothing was sent")
	}
	origin, ok := envelope.OriginFrom(ctx)
	if !ok {
		return m, op.local(CodeInvalidArgument, nil, "ctx carries no origin; set it at the edge with envelope.WithOrigin")
	}
	if err := origin.Validate(); err != nil {
		return m, op.local(CodeInvalidArgument, err, oneLine(err.Error()))
	}
	return meta{timeout: timeout, version: op.version, source: c.source, origin: origin}, nil
}

// unanswered explains why there is no answer. What was surely not sent is
// unavailable and may be sent again; behind everything else the request may have
// been handled. A refused publish is known only by last, the connection's last error.
func (c *contract) unanswered(err, last error) *Error {
	switch {
	case errors.Is(err, context.DeadlineExceeded) && errors.Is(last, nats.ErrPermissionViolation) &&
		strings.Contains(last.Error(), `"`+c.subject.String()+`"`):
		return c.local(CodeDeadlineExceeded, errors.Join(err, last), "no answer: the broker does not let this user publish to "+c.subject.String())
	case errors.Is(err, nats.ErrNoResponders):
		return c.local(CodeUnavailable, err, "no server answers "+c.subject.String())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return c.local(CodeDeadlineExceeded, err, "no answer before the deadline")
	case errors.Is(err, context.Canceled):
		return c.local(CodeCanceled, err, "the caller gave up")
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionDraining):
		return c.local(CodeUnavailable, err, "not connected to the broker; nothing was sent")
	case errors.Is(err, nats.ErrMaxPayload):
		return c.local(CodeResourceExhausted, errors.Join(ErrTooLarge, err), "request is larger than the broker allows")
	case errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionClosed):
		return c.local(CodeCanceled, err, "the connection was closed while the answer was awaited")
	}
	return c.local(CodeInternal, err, "the request could not be sent: "+oneLine(err.Error()))
}
