package outbox

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// health remembers what keeps messages from flowing, and logs one line when
// that changes, not one per attempt. Safe for concurrent use.
type health struct {
	log         *slog.Logger
	began, over string // what is logged
	mu          sync.Mutex
	down        map[string]trouble
}

// The parts that can be in trouble.
const (
	partRun      = "run" // Run was not called, or has returned
	partDatabase = "database"
	partBroker   = "broker"
	streamPart   = "stream " // and its name
)

type trouble struct {
	why   error
	since time.Time
}

// bad records that a part ("database", "stream DV_MASKIN_EVT") does not work.
func (h *health) bad(part string, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, known := h.down[part]
	if !known {
		t.since = time.Now()
		if part != partRun {
			h.log.Warn(h.began, "part", part, "reason", why)
		}
	}
	t.why = why
	h.down[part] = t
}

// good records that a part works. It is called for every acknowledgement.
func (h *health) good(part string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t, known := h.down[part]; known {
		delete(h.down, part)
		if part != partRun {
			h.log.Info(h.over, "part", part, "held_for", time.Since(t.since))
		}
	}
}

// forget drops what is known about a part, without a word.
func (h *health) forget(part string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.down, part)
}

// forgetStreams drops what is known about streams: with the term that knew it.
func (h *health) forgetStreams() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for part := range h.down {
		if strings.HasPrefix(part, streamPart) {
			delete(h.down, part)
		}
	}
}

// Leading tells whether this instance publishes now, as far as it knows: the
// lease decides. Safe for concurrent use.
func (r *Relay) Leading() bool { return r.leading.Load() }

// Ready returns nil while this instance can do its part, else all that keeps it
// from that, a line each: Run does not run; the database; the broker; of a leader
// every stream that refuses, and every stream whose events are late while its
// cursor stands still (*LagError). A standby is ready, and so is a leader that
// drains a backlog. Safe for concurrent use (requirement M2).
//
// It fits a readiness probe: it fails in the instance that something is wrong
// with. What is wrong with the whole, whoever is asked, is told by Alarm.
func (r *Relay) Ready() error {
	err := r.health.err()
	if r.Leading() {
		err = errors.Join(append([]error{err}, r.lag.stalled()...)...)
	}
	return err
}

// Alarm returns what an operator should hear of, a line each, or nil: events that
// wait longer than RelayConfig.MaxAge (*LagError), which every instance tells,
// leader or standby; and published rows that are too old and cannot be deleted, as
// when RelayConfig.Archive fails. Each is also logged once when it begins and once
// when it is over. Safe for concurrent use (requirement M3).
//
// It is no readiness: all instances tell a lag at once, and taking all of them
// out of service would make an outage of what is only late.
func (r *Relay) Alarm() error { return r.alarms.err() }

// err returns all that is in trouble, in the order of the parts' names.
func (h *health) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []error
	for _, part := range slices.Sorted(maps.Keys(h.down)) {
		t := h.down[part]
		all = append(all, fmt.Errorf("outbox: relay: %s, for %v: %w", part, time.Since(t.since).Round(time.Second), t.why))
	}
	return errors.Join(all...)
}
