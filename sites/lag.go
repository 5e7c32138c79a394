package sites

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// noProgress is how long a copy that hears of its origin may lack something and
	// get nothing before it is stuck.
	noProgress = 10 * time.Second
	// localTimeout bounds the questions of one look to the site's own server.
	localTimeout = 5 * time.Second
)

// watch is one flow that ends here, and what is known of it. Its loop is a single
// goroutine; status is safe for concurrent use.
type watch struct {
	arrival
	w    *Watcher
	once bool // there is one look only: what the next ones would tell is told at once

	hurry chan struct{} // the ends are to be compared now

	mu   sync.Mutex
	flow Flow

	// Of the loop.
	position position
	unheard  time.Time // since when the server says that it never heard of the origin
	ahead    int       // see sight
	moved    time.Time // when the position last changed
	resumes  int       // since the origin was last heard of
	resumeAt time.Time // not before
}

func newWatch(w *Watcher, a arrival) *watch {
	return &watch{arrival: a, w: w, hurry: make(chan struct{}, 1), flow: Flow{
		From: a.From, To: a.To, Cargo: a.Cargo, Service: a.Service,
		Stream: a.stream.Name, Source: a.source.Stream, State: StateUnknown,
	}}
}

func (o *watch) status() Flow {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.flow
}

// run looks until ctx ends.
func (o *watch) run(ctx context.Context) {
	for ctx.Err() == nil {
		seen := o.look(ctx)
		if ctx.Err() != nil {
			return // the look was cut short
		}
		o.tell(seen)
		o.mend(ctx, seen)
		wait(ctx, o.w.cfg.Every)
	}
}

// sight is what one look found.
type sight struct {
	began  time.Time
	origin *positionAnswer // nil: it did not answer
	asked  error           // why not
	local  error           // why the own stream could not be read
	before position        // before the origin was asked
	stream *jetstream.StreamInfo
	source *jetstream.StreamSourceInfo // nil: the stream has it not
	again  *jetstream.StreamSourceInfo // the same of what is sent again
	heard  bool                        // the own server heard of the origin's stream just now
	silent bool                        // it has not for too long; neither: it may still do so
	ahead  int                         // for how many looks we have had more of the origin than it has
}

// look asks the origin first and then the own stream: what the origin held then must
// be here now, or is lacking.
func (o *watch) look(ctx context.Context) sight {
	s := sight{}
	if o.position.read == 0 {
		s.local = o.readOwn(ctx, &s) // where to begin
	}
	s.began, s.before = time.Now(), o.position
	s.origin, s.asked = o.askPosition(ctx)
	s.local = o.readOwn(ctx, &s)
	s.heard, s.silent = o.listen(s, time.Now())
	if s.origin != nil && s.before.sure && s.origin.Last < s.before.seq {
		o.ahead++
	} else if s.origin != nil {
		o.ahead = 0
	}
	if s.ahead = o.ahead; o.once {
		s.ahead *= 2
	}
	return s
}

// listen tells whether the server hears of the origin's stream. Of one that it never
// heard of, since its sources were set up, the server cannot tell since when; then it
// is from when that was first seen, which gives another watcher's Resume time, too.
func (o *watch) listen(s sight, now time.Time) (heard, silent bool) {
	if s.source != nil && s.source.Active >= 0 {
		o.unheard = time.Time{}
		heard = s.source.Active < o.w.cfg.Silent
		return heard, !heard
	}
	if o.unheard.IsZero() {
		o.unheard = now
	}
	return false, o.once || now.Sub(o.unheard) >= o.w.cfg.Silent
}

func (o *watch) askPosition(ctx context.Context) (*positionAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, o.w.cfg.AskTimeout)
	defer cancel()
	q := positionQuestion{question: question{V: protocolVersion, To: o.To}, At: o.position.seq}
	var a positionAnswer
	if err := o.w.asker.ask(ctx, o.From, verbPosition, o.source.Stream, q, &a); err != nil {
		return nil, err
	}
	return &a, nil
}

// readOwn reads the state of the stream at this site.
func (o *watch) readOwn(ctx context.Context, s *sight) error {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	stream, err := o.w.conn.JetStream().Stream(ctx, o.stream.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("stream %s does not exist at this site; start its owner, which creates it", o.stream.Name)
	}
	if err != nil {
		return fmt.Errorf("stream %s could not be read: %w", o.stream.Name, err)
	}
	s.stream = stream.CachedInfo()
	s.source, s.again = o.sourceIn(s.stream, o.source.Stream), o.sourceIn(s.stream, o.again)
	return o.position.update(ctx, stream, o.arrival)
}

// sourceIn finds the origin's stream of a name among the sources of our stream.
func (a arrival) sourceIn(info *jetstream.StreamInfo, name string) *jetstream.StreamSourceInfo {
	api := "$JS." + a.source.Domain + ".API"
	at := slices.IndexFunc(info.Sources, func(i *jetstream.StreamSourceInfo) bool {
		return i.Name == name && i.External != nil && i.External.APIPrefix == api
	})
	if at < 0 {
		return nil
	}
	return info.Sources[at]
}

// tell keeps what a look found as the flow's status, and logs a change of state.
func (o *watch) tell(s sight) {
	now := time.Now()
	f := o.judge(s, now)
	o.mu.Lock()
	before := o.flow
	f.Resumed = before.Resumed
	f.Compared, f.CompareErr = before.Compared, before.CompareErr
	f.Missing, f.OriginLacks, f.Resent = before.Missing, before.OriginLacks, before.Resent
	o.flow = f
	o.mu.Unlock()
	if s.lost() {
		select {
		case o.hurry <- struct{}{}:
		default: // it is known already
		}
	}
	if o.once || before.State == f.State {
		return
	}
	log := o.w.log.Info
	if f.State == StateSilent || f.State == StateStuck {
		log = o.w.log.Warn
	}
	log("sites: a flow is "+string(f.State), "flow", o.Flow.String(), "stream", f.Stream, "before", string(before.State),
		"behind", f.Behind, "heard", f.Heard, "caught_up", f.CaughtUp, "why", f.Err)
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
