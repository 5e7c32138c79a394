package consumer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Timing of pull requests.
const (
	// pullExpiry is how long a request waits at the server for messages.
	pullExpiry = 30 * time.Second
	// pullBeat is the interval at which the server says that a request is still
	// alive; silence of twice that is a lost request.
	pullBeat = 2 * time.Second
	// probeExpiry and probeBeat are those of the first request after a failure:
	// they prove quickly that the durable is served again.
	probeExpiry = 5 * time.Second
	probeBeat   = 500 * time.Millisecond
)

// Reasons for which a request ends early.
var (
	errSilent       = errors.New("the server does not answer pull requests: the durable has no leader, too many requests wait, or this user may not publish to $JS.API.CONSUMER.MSG.NEXT")
	errHasty        = errors.New("pull requests end at once, before they expire")
	errDisconnected = errors.New("not connected to NATS")
	errLimited      = errors.New("fewer messages are wanted than were asked for")
)

// natsSource asks for messages with the server's pull protocol over one
// subscription that lives until a request has to be given up for lost.
//
// The client library's Fetch was not chosen. It drops what is under way when it
// is cancelled, so that those messages rest until AckWait; it takes a message
// for a status when the publisher set a "Status" header on an empty body; and
// it subscribes anew for every request.
type natsSource struct {
	nc    *nats.Conn
	sub   *nats.Subscription
	next  string // the API subject
	inbox string // the reply subject without its last token
	stray func(*nats.Msg)
	sent  func() // counts requests

	expiry, beat time.Duration // of requests

	mu     sync.Mutex
	number uint64
	asked  time.Time // of the latest request
	open   *request  // nil for none
}

// request is an open request. Its messages are handed on by the goroutine of the
// subscription, under the lock of the source; who waits for the request hears of
// its end only.
type request struct {
	token   string
	missing int
	deliver func(*nats.Msg)
	alive   func()
	heard   bool       // from the server, since the last look
	over    chan error // has room for the one result
}

// openSource subscribes. stray gets every message that no open request waits
// for; it must not block.
func openSource(js jetstream.JetStream, d durable, stray func(*nats.Msg), sent func()) (*natsSource, error) {
	nc := js.Conn()
	s := &natsSource{
		nc: nc, inbox: nc.NewInbox(), stray: stray, sent: sent,
		expiry: pullExpiry, beat: pullBeat,
		next: apiPrefix(js.Options()) + "CONSUMER.MSG.NEXT." + d.stream + "." + d.name,
	}
	sub, err := s.subscribe(s.inbox)
	if err != nil {
		return nil, err
	}
	s.sub = sub
	return s, nil
}

// subscribe listens on every reply subject of an inbox.
func (s *natsSource) subscribe(inbox string) (*nats.Subscription, error) {
	sub, err := s.nc.Subscribe(inbox+".*", s.receive)
	if err != nil {
		return nil, fmt.Errorf("subscribe for deliveries: %w", err)
	}
	// The requests bound what is pending; the client's own limit would drop
	// messages silently.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, errors.Join(err, sub.Unsubscribe())
	}
	return sub, nil
}

// apiPrefix is where the JetStream API of this context lives: another domain, an
// imported account, or the connection's own.
func apiPrefix(o jetstream.JetStreamOptions) string {
	switch {
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	}
	return jetstream.DefaultAPIPrefix
}

// receive sorts what arrives: into the open request, or to the strays. A
// delivery shows the subject it was published on, so only a status tells which
// request it belongs to.
func (s *natsSource) receive(raw *nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r := s.open; {
	case isDelivery(raw) && r == nil:
		s.stray(raw)
	case isDelivery(raw):
		r.heard = true
		r.alive()
		r.deliver(raw)
		if r.missing--; r.missing == 0 {
			s.endLocked(nil)
		}
	case r != nil && raw.Subject == s.inbox+"."+r.token: // else of a request that is over
		r.heard = true
		over, err := status(raw)
		if err == nil {
			r.alive()
		}
		if over {
			s.endLocked(err)
		}
	}
}

// endLocked ends the open request: what comes now is a stray.
func (s *natsSource) endLocked(err error) {
	s.open.over <- err
	s.open = nil
}

// pullRequest is the server's request format.
type pullRequest struct {
	Batch     int           `json:"batch"`
	Expires   time.Duration `json:"expires"`
	Heartbeat time.Duration `json:"idle_heartbeat"`
}

// pull implements source.
func (s *natsSource) pull(ctx context.Context, n int, probe bool, deliver func(*nats.Msg), alive func()) error {
	req := pullRequest{Batch: n, Expires: s.expiry, Heartbeat: s.beat}
	if probe {
		req.Expires, req.Heartbeat = min(s.expiry, probeExpiry), min(s.beat, probeBeat)
	}
	r := &request{missing: n, deliver: deliver, alive: alive, over: make(chan error, 1)}
	if err := s.send(r, req); err != nil {
		return err
	}
	err := s.await(ctx, r, 2*req.Heartbeat)
	if isAbandoned(err) {
		s.abandon()
	}
	return err
}

// await returns when the request is over, which it is too when the server is
// silent for so long, or ctx ends.
func (s *natsSource) await(ctx context.Context, r *request, silence time.Duration) error {
	look := time.NewTicker(silence / 2)
	defer look.Stop()
	for quiet := 0; ; {
		select {
		case err := <-r.over:
			return err
		case <-look.C:
			if quiet++; s.wasHeard(r) {
				quiet = 0
			}
			if quiet >= 2 {
				return s.giveUp(r, errSilent)
			}
		case <-ctx.Done():
			return s.giveUp(r, context.Cause(ctx))
		}
	}
}

// wasHeard tells whether the server answered r since the last call.
func (s *natsSource) wasHeard(r *request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	heard := r.heard
	r.heard = false
	return heard
}

// giveUp ends a request from our side, unless it is over already.
func (s *natsSource) giveUp(r *request, why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != r {
		return <-r.over
	}
	s.open = nil
	return why
}

// isAbandoned tells a request that was given up here from one that the server
// ended.
func isAbandoned(err error) bool {
	for _, reason := range []error{errSilent, errDisconnected, errLimited, errMissed, errTakeOver, errLeaseLost} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// subject returns what the current subscription listens on.
func (s *natsSource) subject() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inbox + ".*"
}

// abandon moves to another inbox. The server keeps a request that was given up
// here and serves it for as long as somebody listens on its reply subject; with
// the next request open too, it would hand out messages that find no worker, and
// each of them would have cost one of its attempts.
func (s *natsSource) abandon() {
	inbox := s.nc.NewInbox()
	sub, err := s.subscribe(inbox)
	if err != nil {
		return // the connection is closed for good
	}
	s.mu.Lock()
	old := s.sub
	s.sub, s.inbox = sub, inbox
	s.mu.Unlock()
	_ = s.end(old) // closed already, with its connection
}

// forgotten is when the server has forgotten every request that was abandoned. One
// with leafnodes serves a request for 2 s although nobody listens any more, since the
// word that somebody does may be on its way (nats-server 2.15).
func (s *natsSource) forgotten() time.Time {
	const grace = 2*time.Second + 500*time.Millisecond
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked.Add(grace)
}

// end gives a subscription up after what is under way to it.
func (s *natsSource) end(sub *nats.Subscription) error {
	if s.nc.IsConnected() {
		return sub.Drain()
	}
	return sub.Unsubscribe() // Drain would wait for a server
}

// send opens a request.
func (s *natsSource) send(r *request, req pullRequest) error {
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode pull request: %w", err)
	}
	s.mu.Lock()
	s.number++
	s.asked = time.Now()
	r.token = fmt.Sprint(s.number)
	s.open = r
	reply := s.inbox + "." + r.token
	s.mu.Unlock()

	s.sent()
	if err := s.nc.PublishRequest(s.next, reply, body); err != nil {
		return s.giveUp(r, fmt.Errorf("send pull request: %w", err))
	}
	return nil
}

// close ends the subscription. What the server had sent before it heard of that
// still arrives, as strays; close waits for it, at most until ctx ends.
func (s *natsSource) close(ctx context.Context) {
	closed := s.sub.StatusChanged(nats.SubscriptionClosed)
	if err := s.end(s.sub); err != nil {
		return // closed already, with its connection
	}
	select {
	case <-closed:
	case <-ctx.Done():
	}
}

// status reads a status of the server: whether the request is over, and the
// error if that was not its regular end.
func status(raw *nats.Msg) (over bool, err error) {
	text := raw.Header.Get("Description")
	switch code := raw.Header.Get("Status"); code {
	case "100":
		return false, nil
	case "404", "408":
		return true, nil // expired, or nothing there
	case "503":
		return true, nats.ErrNoResponders
	default:
		return true, refusal(code, text)
	}
}

// refusal names the reasons of status 409 that somebody acts on.
func refusal(code, text string) error {
	switch lower := strings.ToLower(text); {
	case strings.Contains(lower, "batch completed"):
		return nil
	case strings.Contains(lower, "consumer deleted"):
		return jetstream.ErrConsumerDeleted
	case strings.Contains(lower, "leadership change"):
		return jetstream.ErrConsumerLeadershipChanged
	case strings.Contains(lower, "server shutdown"):
		return jetstream.ErrServerShutdown
	}
	return fmt.Errorf("pull request refused: %.3s %.100s", code, text)
}
