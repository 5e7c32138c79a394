package natsconn

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Reason is why a connection is not ready, in a form fit for a metric label.
type Reason string

// The reasons.
const (
	// NeverConnected: no server has answered since Dial was called.
	NeverConnected Reason = "never_connected"
	// Disconnected: a connection was lost and is being sought again.
	Disconnected Reason = "disconnected"
	// PermissionDenied: connected, but the server refused a subject. It stays
	// until the next reconnect, because permissions only change with one.
	PermissionDenied Reason = "permission_denied"
	// Draining: Drain was called and has not ended.
	Draining Reason = "draining"
	// Closed: the connection is closed for good, by Drain or by the server.
	Closed Reason = "closed"
)

// NotReadyError says why the connection cannot be used, since when, and what to
// do. It unwraps to the cause, so that errors.Is finds
// nats.ErrPermissionViolation behind a PermissionDenied.
type NotReadyError struct {
	Reason Reason
	Since  time.Time // when this began; zero if there is no connection at all
	URL    string    // the servers, without credentials
	Denied []Denial  // what was refused; only with PermissionDenied
	Err    error     // the cause, may be nil
}

// Error names reason, servers, duration, cause and remedy in one line.
func (e *NotReadyError) Error() string {
	var b strings.Builder
	b.WriteString("natsconn: not ready: ")
	switch e.Reason {
	case NeverConnected:
		b.WriteString("never connected" + e.servers("to"))
	case Disconnected:
		b.WriteString("disconnected" + e.servers("from") + e.since() + ", reconnecting")
	case PermissionDenied:
		b.WriteString("permission violation: " + e.denied() + e.since() + "; allow it for this user, the connection takes it up when it reconnects")
		return b.String()
	case Draining:
		b.WriteString("draining" + e.since())
	default:
		b.WriteString("closed" + e.since() + "; dial again")
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *NotReadyError) Unwrap() error { return e.Err }

func (e *NotReadyError) servers(preposition string) string {
	if e.URL == "" {
		return ""
	}
	return " " + preposition + " " + e.URL
}

func (e *NotReadyError) since() string {
	if e.Since.IsZero() {
		return ""
	}
	return " since " + e.Since.UTC().Format(time.RFC3339)
}

func (e *NotReadyError) denied() string {
	texts := make([]string, 0, len(e.Denied))
	for _, d := range e.Denied {
		texts = append(texts, fmt.Sprintf("%s to subject %q", d.Operation, d.Subject))
	}
	if len(texts) == 0 {
		return fmt.Sprintf("%v", e.Err)
	}
	return strings.Join(texts, ", ")
}

// Ready returns nil if the connection is up and the server has refused nothing,
// else a *NotReadyError that says why. It asks no server and never blocks, so a
// readiness endpoint may call it as often as it likes (requirement M2). On a
// nil *Conn, as in an atomic.Pointer that Dial has not filled yet, it says that
// there was never a connection.
func (c *Conn) Ready() error {
	if c == nil {
		return &NotReadyError{Reason: NeverConnected}
	}
	return c.state.ready(c.nc.Status())
}

// Ping returns nil if Ready does and the server answers a ping, within ctx and
// Config.RequestTimeout at most. A connection whose peer is only silent, as behind
// a cut cable, is found out by this at once, by Ready after 20 to 30 s. It fits
// health.Ping.
func (c *Conn) Ping(ctx context.Context) error {
	if err := c.Ready(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.requestTimeout)
	defer cancel()
	if err := c.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("natsconn: ping %s: no answer: %w", c.state.url, err)
	}
	return nil
}

// ready judges by the client's own status, which is never late, and takes times
// and causes from what the handlers recorded.
func (s *state) ready(status nats.Status) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch status {
	case nats.CONNECTED:
		return s.deniedLocked()
	case nats.DRAINING_SUBS, nats.DRAINING_PUBS:
		return s.notReadyLocked(Draining)
	case nats.CLOSED:
		return s.notReadyLocked(Closed)
	}
	if !s.everConnected {
		return s.notReadyLocked(NeverConnected)
	}
	return s.notReadyLocked(Disconnected)
}

func (s *state) notReadyLocked(reason Reason) *NotReadyError {
	err := &NotReadyError{Reason: reason, URL: s.url, Err: s.cause}
	if reason == s.phase {
		err.Since = s.since
	}
	return err
}

func (s *state) deniedLocked() error {
	if s.denialErr == nil {
		return nil
	}
	err := &NotReadyError{Reason: PermissionDenied, URL: s.url, Err: s.denialErr}
	err.Denied = append(err.Denied, s.denials...)
	if len(err.Denied) > 0 {
		err.Since = err.Denied[0].At
	}
	return err
}
