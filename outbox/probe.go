package outbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/sleep"
)

var (
	// errNoAnswer says that the broker did not tell: that is no loss, only a
	// reason to hold the stream and to ask again.
	errNoAnswer = errors.New("the stream cannot be asked whether it still holds what it acknowledged")

	errCutOff = errors.New("the connection was lost before the answer")

	// errSuspect says that the stream seems not to hold what it acknowledged:
	// nothing more is sent, and heal looks closely.
	errSuspect = errors.New("the stream seems to have lost messages")
)

// asker asks JetStream's API about streams. The leader of a stream answers
// both requests; a direct get could come from a replica that is behind, which
// would look like loss.
type asker struct {
	nc      *nats.Conn
	prefix  string
	timeout time.Duration
}

func (r *Relay) asker() asker { return asker{r.nc, r.prefix, r.cfg.AckTimeout} }

// apiPrefix is where the API of the stream's domain listens.
func apiPrefix(js jetstream.JetStream, domain string) string {
	opts := js.Options()
	switch {
	case opts.Domain != "":
		return "$JS." + opts.Domain + ".API."
	case domain != "" && (opts.APIPrefix == "" || opts.APIPrefix == jetstream.DefaultAPIPrefix):
		return "$JS." + domain + ".API."
	case opts.APIPrefix == "":
		return jetstream.DefaultAPIPrefix
	}
	return strings.TrimSuffix(opts.APIPrefix, ".") + "."
}

// facts are what a stream says of itself.
type facts struct {
	created     time.Time     // microseconds, as the database keeps it
	first, last int64         // sequences
	sparse      bool          // messages between them vanish by design
	window      time.Duration // how long ids are remembered; 0: not at all
}

// apiError is the code of an error of the API.
type apiError struct {
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

// refusal is an error of the API as the lack of an answer that it is to us.
func (e *apiError) refusal() error {
	return fmt.Errorf("%w: %s (%d)", errNoAnswer, e.Description, e.ErrCode)
}

const codeNoMessage = 10037

// stream reads the facts of a stream from its leader.
func (a asker) stream(ctx context.Context, name string) (facts, error) {
	var info struct {
		Error   *apiError `json:"error"`
		Created time.Time `json:"created"`
		Config  struct {
			Retention         string `json:"retention"`
			MaxMsgsPerSubject int64  `json:"max_msgs_per_subject"`
			AllowMsgTTL       bool   `json:"allow_msg_ttl"`
			Window            int64  `json:"duplicate_window"`
		} `json:"config"`
		State struct {
			First int64 `json:"first_seq"`
			Last  int64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := a.request(ctx, "STREAM.INFO."+name, nil, &info); err != nil {
		return facts{}, err
	}
	if info.Error != nil {
		return facts{}, info.Error.refusal()
	}
	c := info.Config
	return facts{
		created: info.Created.Truncate(time.Microsecond),
		first:   info.State.First, last: info.State.Last,
		sparse: c.MaxMsgsPerSubject > 0 || c.AllowMsgTTL || c.Retention != "limits",
		window: time.Duration(c.Window),
	}, nil
}

// sighting is what became of a message that the stream acknowledged.
type sighting int

const (
	unknown sighting = iota // aged or purged, and nothing follows from that
	held                    // it is where it was acknowledged
	lost                    // the stream ends before it, or holds something else there
)

// look asks where the stream holds a message. Facts must be younger than the
// acknowledgement.
func (a asker) look(ctx context.Context, name string, f facts, m highest) (sighting, error) {
	switch {
	case m.sequence == 0:
		return unknown, nil
	case f.last < m.sequence:
		return lost, nil
	case m.sequence < f.first:
		return unknown, nil
	}
	var got struct {
		Error   *apiError `json:"error"`
		Message struct {
			Header []byte `json:"hdrs"`
		} `json:"message"`
	}
	if err := a.request(ctx, "STREAM.MSG.GET."+name, fmt.Appendf(nil, `{"seq":%d}`, m.sequence), &got); err != nil {
		return unknown, err
	}
	switch {
	case got.Error == nil:
		return sightingOf(got.Message.Header, m), nil
	case got.Error.ErrCode == codeNoMessage:
		return a.missing(ctx, name, f, m)
	}
	return unknown, got.Error.refusal()
}

// missing judges a message that is not there. It may have aged since the facts
// were read, which is why they are read again.
func (a asker) missing(ctx context.Context, name string, f facts, m highest) (sighting, error) {
	now, err := a.stream(ctx, name)
	if err != nil || f.sparse || m.sequence < now.first {
		return unknown, err
	}
	return lost, nil
}

// sightingOf compares the message that lies at a sequence with the expected one.
func sightingOf(header []byte, m highest) sighting {
	h, err := nats.DecodeHeadersMsg(header)
	if want := (&row{id: m.id}).uuid(); err != nil || len(h[envelope.HeaderMsgID]) != 1 || h[envelope.HeaderMsgID][0] != want {
		return lost // somebody else's message, given the same sequence
	}
	return held
}

// lastAnswer is how long a question to the broker is still waited for after a
// stop. An answer takes milliseconds, or does not come.
const lastAnswer = 300 * time.Millisecond

// hurried returns a context for questions to the broker. It ends with work, and
// soon after stop, with errStopped.
func hurried(stop, work context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(work)
	unlink := context.AfterFunc(stop, func() {
		sleep.For(ctx, lastAnswer)
		cancel(errStopped)
	})
	return ctx, func() {
		unlink()
		cancel(nil)
	}
}

// request asks the API once. It gives up when the connection is gone on which
// the question went out: the answer cannot come any more.
func (a asker) request(ctx context.Context, endpoint string, body []byte, into any) error {
	inTime, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	bounded, giveUp := context.WithCancelCause(inTime)
	defer giveUp(nil)
	go a.watchConnection(bounded, giveUp, a.nc.Stats().Reconnects)
	m, err := a.nc.RequestWithContext(bounded, a.prefix+endpoint, body)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, nats.ErrConnectionClosed):
		return err
	case err != nil:
		return fmt.Errorf("%w: %s%s (may this user publish there?): %w", errNoAnswer, a.prefix, endpoint, cmp.Or(context.Cause(bounded), err))
	}
	if err := json.Unmarshal(m.Data, into); err != nil {
		return fmt.Errorf("%w: %s%s: the answer is not JetStream's", errNoAnswer, a.prefix, endpoint)
	}
	return nil
}

// watchConnection gives up, unless ctx ends before, when the connection is no
// longer the one it was after so many reconnects.
func (a asker) watchConnection(ctx context.Context, giveUp func(error), reconnects uint64) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for a.nc.IsConnected() && a.nc.Stats().Reconnects == reconnects {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
	giveUp(errCutOff)
}

// guard stands before a stream: nothing is sent while there is a reason to
// doubt that the stream still holds what it acknowledged. One goroutine uses
// it at a time: the dispatcher, or the worker of a busy lane.
//
// It looks at the newest message that is known to be stored, and at the one
// that was newest at the look before: a stream that lost its end and was
// filled up by other producers may hold the newest and lack what lies before.
type guard struct {
	ask    asker
	stream string
	every  time.Duration

	created        time.Time     // zero: never seen
	window         time.Duration // how long the stream remembers ids
	newest, before highest

	suspect    bool // look before anything is sent
	rewound    bool // and once more after what was lost is sent again
	reconnects uint64
	at         time.Time // of the last look that found everything
}

// doubts tells whether to look before something is sent.
func (g *guard) doubts() bool {
	return g.suspect || g.ask.nc.Stats().Reconnects != g.reconnects
}

// used tells whether something was ever stored, so that something can be lost.
func (g *guard) used() bool { return !g.created.IsZero() }

// overdue returns how long ago a look at an idle stream was due; negative if it
// is not.
func (g *guard) overdue() time.Duration {
	if g.doubts() {
		return 0
	}
	return time.Since(g.at) - g.every
}

// check looks. flying is the newest message acknowledged since the cursor moved.
// It returns errSuspect, errNoAnswer, errStopped, or why nobody could be asked.
func (g *guard) check(stop, work context.Context, flying highest) error {
	ctx, cancel := hurried(stop, work)
	defer cancel()
	reconnects := g.ask.nc.Stats().Reconnects // a reconnect from here on is another reason
	f, err := g.ask.stream(ctx, g.stream)
	if err != nil {
		return err
	}
	if !f.created.Equal(g.created) {
		return errSuspect // also a stream that was never seen: heal records it
	}
	for i, m := range []highest{flying, g.newest, g.before} {
		if i > 0 && m.sequence == flying.sequence || i == 2 && m.sequence == g.newest.sequence {
			continue
		}
		seen, err := g.ask.look(ctx, g.stream, f, m)
		if err != nil {
			return err
		}
		if seen == lost {
			return errSuspect
		}
	}
	g.suspect, g.reconnects, g.at, g.before, g.window = false, reconnects, time.Now(), g.newest, f.window
	return nil
}
