package outbox

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// LagError says that an event has waited too long to be published. Relay.Alarm
// returns it in every instance, and Relay.Ready in one that leads and whose
// cursor stands still.
type LagError struct {
	Stream string
	Age    time.Duration // of the oldest unpublished event
	Bound  time.Duration // RelayConfig.MaxAge
	Still  time.Duration // since the cursor of the stream moved last
}

// Error says what waits and where to look.
func (e *LagError) Error() string {
	return fmt.Sprintf("the oldest unpublished event of %s is %v old, at most %v are expected (RelayConfig.MaxAge); its cursor moved %v ago; see `dvmsg outbox status`",
		e.Stream, e.Age.Round(time.Second), e.Bound, e.Still.Round(time.Second))
}

// lateness tells which streams are late: those whose oldest event is older than
// a bound at two looks in a row. One look is not enough. The events of a long
// transaction are old when they become visible, and published at once.
type lateness struct {
	bound time.Duration // 0 or less: nothing is ever late
	once  map[string]bool
}

// note takes an observation and returns the streams that are late by it. soon
// asks for another look soon: a stream may be late, or still is.
func (l *lateness) note(seen *observation) (late []observed, soon bool) {
	if l.bound <= 0 {
		return nil, false
	}
	over := map[string]bool{}
	for _, s := range seen.streams {
		if s.age <= l.bound {
			continue
		}
		over[s.stream], soon = true, soon || !l.once[s.stream]
		if l.once[s.stream] {
			late = append(late, s)
		}
	}
	l.once = over
	return late, soon
}

// lagPart names the lag of a stream among the alarms.
const lagPart = "lag of "

// lag is what an instance knows of late streams. Safe for concurrent use.
type lag struct {
	lateness
	mu   sync.Mutex
	late map[string]*LagError // by stream
}

// note takes an observation over into the alarms.
func (l *lag) note(seen *observation, alarms *health) (soon bool) {
	late, soon := l.lateness.note(seen)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := map[string]*LagError{}
	for _, s := range late {
		e := &LagError{Stream: s.stream, Age: s.age, Bound: l.bound, Still: s.still}
		now[s.stream] = e
		alarms.bad(lagPart+s.stream, e)
	}
	for stream := range l.late {
		if now[stream] == nil {
			alarms.good(lagPart + stream)
		}
	}
	l.late = now
	return soon
}

// stalled returns the streams that are late and stand still, as parts in
// trouble: a leader that drains a backlog is late and does its work.
func (l *lag) stalled() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []error
	for _, e := range l.late {
		if e.Still > e.Bound {
			all = append(all, fmt.Errorf("outbox: relay: it leads and does not publish: %w", e))
		}
	}
	return all
}

// observe looks at what waits until ctx ends or the returned function is called,
// which waits for the end.
func (r *Relay) observe(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	brake := lateness{bound: r.out.brake.bound}
	go func() {
		defer close(done)
		defer r.lag.forget(r.alarms)
		defer r.gauges()()
		r.observer.run(ctx, func(seen *observation) bool {
			r.seen.Store(seen)
			soon := r.lag.note(seen, r.alarms)
			return r.out.brake.note(&brake, seen) || soon
		})
	}()
	return func() {
		cancel()
		<-done
	}
}

// forget drops what is known, with the alarms.
func (l *lag) forget(alarms *health) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for stream := range l.late {
		alarms.forget(lagPart + stream)
	}
	l.late = nil
}
