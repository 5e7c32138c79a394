package outbox

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// BackpressureError is what Enqueue returns while events of a stream wait longer
// than Config.MaxLag. Nothing was sent to the database: the transaction is as it
// was, and may be committed without the event or rolled back.
type BackpressureError struct {
	Stream string
	Age    time.Duration // of the oldest unpublished event, when it was looked at last
	Bound  time.Duration // Config.MaxLag
}

// Error says what waits and what to do.
func (e *BackpressureError) Error() string {
	return fmt.Sprintf("outbox: the oldest unpublished event of %s is %v old, at most %v are allowed (Config.MaxLag): nothing was stored and the transaction is untouched; try again later, and see `dvmsg outbox status` for why events wait",
		e.Stream, e.Age.Round(time.Second), e.Bound)
}

// brakeMemory is how long an observation holds writers back. Whoever cannot look
// any more must not refuse for ever.
const brakeMemory = 30 * time.Second

// brake knows which streams take no events for now. Its zero value takes all.
type brake struct {
	bound time.Duration
	shut  atomic.Pointer[shut] // nil: all streams are open
}

// shut is the streams that take no events, with the age of their oldest.
type shut struct {
	at   time.Time
	late map[string]time.Duration
}

// admit returns an error if one of the streams takes no events. While all do,
// which is nearly always, it costs one load.
func (b *brake) admit(entries []entry) error {
	s := b.shut.Load()
	if s == nil || time.Since(s.at) > brakeMemory {
		return nil
	}
	for i := range entries {
		if age, late := s.late[entries[i].stream]; late {
			return &BackpressureError{Stream: entries[i].stream, Age: age, Bound: b.bound}
		}
	}
	return nil
}

// note takes over which streams are late, and tells whether to look again soon:
// a writer that is refused should not wait for long after the relay goes on.
func (b *brake) note(l *lateness, seen *observation) (soon bool) {
	late, soon := l.note(seen)
	if len(late) == 0 {
		b.shut.Store(nil)
		return soon
	}
	s := &shut{at: seen.at, late: make(map[string]time.Duration, len(late))}
	for _, o := range late {
		s.late[o.stream] = o.age
	}
	b.shut.Store(s)
	return true
}

// Watch keeps Config.MaxLag in force in a process that runs no Relay of this
// Outbox; a running Relay, leader or standby, does it by itself. It asks the
// database at once and then every 10 s, every second while a stream is late,
// until ctx ends. A database that does not answer holds nobody back. Without
// MaxLag it does nothing. Safe for concurrent use.
func (o *Outbox) Watch(ctx context.Context, pool *pgxpool.Pool) {
	if o.brake.bound <= 0 {
		return
	}
	l := lateness{bound: o.brake.bound}
	newObserver(pool, o.schema).run(ctx, func(seen *observation) bool { return o.brake.note(&l, seen) })
}
