package natsconn

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// connected is the phase in which there is nothing to complain about.
const connected Reason = "connected"

// state is what the client's handlers have told. The client runs them one after
// the other on a goroutine of its own, in the order of the events; readers come
// from anywhere.
type state struct {
	log *slog.Logger
	url string // without credentials

	up    chan struct{} // closed at the first connect
	down  chan struct{} // closed when the connection is closed for good
	upped sync.Once

	mu            sync.Mutex
	phase         Reason
	since         time.Time
	cause         error     // of the phase, nil while connected
	kind          causeKind // what was logged last about failed attempts
	everConnected bool
	denials       []Denial
	denialErr     error // the first violation of this connection
	denialCount   int   // ever, to see whether one arrived during a call
}

func newState(cfg Config) *state {
	return &state{
		log:   cfg.Logger,
		url:   redact(cfg.URL),
		up:    make(chan struct{}),
		down:  make(chan struct{}),
		phase: NeverConnected,
		since: time.Now(),
	}
}

// enter notes the new phase and reports whether it is one.
func (s *state) enter(phase Reason, cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cause = cause
	if s.phase == phase {
		return false
	}
	s.phase, s.since = phase, time.Now()
	return true
}

// onConnect is the first success.
func (s *state) onConnect(nc *nats.Conn) {
	s.connectedAgain()
	s.log.Info("nats: connected", serverAttrs(nc)...)
	s.upped.Do(func() { close(s.up) })
}

func (s *state) onReconnect(nc *nats.Conn) {
	away := s.connectedAgain()
	s.log.Info("nats: reconnected", append(serverAttrs(nc), slog.Duration("after", away.Round(time.Millisecond)))...)
}

// connectedAgain returns how long the connection was away. What was denied is
// forgotten: the server gives permissions at connect, and closes clients whose
// permissions were changed.
func (s *state) connectedAgain() time.Duration {
	s.mu.Lock()
	away := time.Since(s.since)
	s.everConnected, s.kind = true, ""
	s.denials, s.denialErr = nil, nil
	s.mu.Unlock()
	s.enter(connected, nil)
	return away
}

// onDisconnect also comes, with a nil error, when the connection is closed
// after a drain; that is onClosed's to report.
func (s *state) onDisconnect(nc *nats.Conn, err error) {
	if nc.IsClosed() {
		return
	}
	if s.enter(Disconnected, err) {
		s.log.Warn("nats: disconnected, reconnecting", "url", s.url, "error", text(err))
	}
}

// onAttemptFailed is called for each failed attempt, twice a second in an
// outage. Only the first, and those that fail for another reason than the one
// before, are worth a line.
func (s *state) onAttemptFailed(_ *nats.Conn, err error) {
	if err == nil || !s.newCause(err) {
		return
	}
	if s.waiting() {
		s.log.Warn("nats: waiting for the server", "url", s.url, "error", err.Error(),
			"hint", "Dial waits until its context ends; set natsconn.Config.FailFast to get an error instead")
		return
	}
	s.log.Warn("nats: cannot reconnect yet", "url", s.url, "error", err.Error())
}

// onClosed is the end, after Drain or by an error after which the client does
// not reconnect (the server found our protocol at fault). The cause of that is
// kept for Ready; there is no other way than to dial again.
func (s *state) onClosed(nc *nats.Conn) {
	cause := nc.LastError()
	if s.in(Draining) {
		cause = nil
	}
	s.enter(Closed, cause)
	if cause == nil {
		s.log.Info("nats: closed", "url", s.url)
	} else {
		s.log.Error("nats: closed for good, dial again", "url", s.url, "error", cause.Error())
	}
	close(s.down)
}

func (s *state) in(phase Reason) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase == phase
}

// onError receives what has no caller to return to.
func (s *state) onError(_ *nats.Conn, sub *nats.Subscription, err error) {
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		s.denied(err)
	case kindOf(err) == causeAuth:
		// Repeated at each attempt to reconnect.
		s.onAttemptFailed(nil, err)
	case sub != nil:
		s.log.Warn("nats: subscription error", "subject", sub.Subject, "error", text(err))
	default:
		s.log.Warn("nats: error", "url", s.url, "error", text(err))
	}
}

// denied keeps the violation as the reason for not being ready; the operation
// itself only times out. A subject is logged when it is first seen.
func (s *state) denied(err error) {
	op, subject, parsed := parseDenial(err.Error())
	s.mu.Lock()
	first := s.rememberLocked(err, op, subject, parsed)
	s.mu.Unlock()
	if first {
		s.log.Error("nats: permission violation, not ready until it is allowed",
			"operation", string(op), "subject", subject, "error", err.Error())
	}
}

func (s *state) rememberLocked(err error, op Operation, subject string, parsed bool) (first bool) {
	s.denialCount++
	first = s.denialErr == nil
	if first {
		s.denialErr = err
	}
	if !parsed {
		return first
	}
	for i := range s.denials {
		if d := &s.denials[i]; d.Operation == op && d.Subject == subject {
			d.Count++
			return false
		}
	}
	if len(s.denials) == maxDenials {
		return false
	}
	s.denials = append(s.denials, Denial{Operation: op, Subject: subject, At: time.Now(), Count: 1})
	return true
}

// denialsSoFar counts every violation of this process's connection.
func (s *state) denialsSoFar() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.denialCount
}

// deniedSince returns what is refused if a violation has arrived since the
// count was before, else nil.
func (s *state) deniedSince(before int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.denialCount == before {
		return nil
	}
	return s.deniedLocked()
}

func (s *state) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.everConnected
}

// newCause notes why the last attempt failed and reports whether that is of
// another kind than the one before.
func (s *state) newCause(err error) bool {
	kind := kindOf(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cause = err
	changed := kind != s.kind
	s.kind = kind
	return changed
}

// causeKind groups the errors of failed attempts. Comparing texts would not do:
// they hold port numbers that differ each time.
type causeKind string

const (
	causeUnreachable causeKind = "unreachable"
	causeAuth        causeKind = "auth"
	causeTimeout     causeKind = "timeout"
	causeOther       causeKind = "other"
)

func kindOf(err error) causeKind {
	_, network := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired),
		errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		return causeAuth
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return causeTimeout
	case errors.Is(err, nats.ErrNoServers), network:
		return causeUnreachable
	}
	return causeOther
}

func serverAttrs(nc *nats.Conn) []any {
	return []any{
		// The client's own redaction leaves a token in the user's place.
		slog.String("url", redact(nc.ConnectedUrl())),
		slog.String("server", nc.ConnectedServerName()),
		slog.String("version", nc.ConnectedServerVersion()),
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
