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

// Ready returns nil while Run runs and committed messages can flow, else all that
// holds them back, a line each: the database, the broker, every stream that
// refuses. A standby is ready. Safe for concurrent use (requirement M2).
func (r *Relay) Ready() error { return r.health.err() }

// Alarm returns what an operator should hear of although messages can flow, a
// line each, or nil: published rows that are too old and cannot be deleted, as
// when RelayConfig.Archive fails. Each of these is also logged once when it begins
// and once when it is over. An alarm is no reason to send a service no more
// requests, which is why Ready does not tell it. Safe for concurrent use.
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
