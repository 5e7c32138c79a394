package history

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The metadata of a durable that tells of its resets: the last ones, each under the
// prefix and the time in a form that sorts.
const (
	resetPrefix = "dv.reset."
	resetTime   = "20060102T150405.000Z"
	keptResets  = 10
)

// audited is the value of one entry.
type audited struct {
	By       string    `json:"by"`
	Reason   string    `json:"reason"`
	From     uint64    `json:"from"`
	StoredAt time.Time `json:"stored_at"`
}

// audit notes in the durable's metadata who resets it and why, before that is done:
// a note too many is better than a reset that nobody knows of. Metadata is no part
// of the contract of a durable, so it is no drift.
//
// The server takes the configuration as a whole and knows no condition on the one
// before, so it is asked for at this moment: what somebody changed while the reset was
// planned stays.
func audit(ctx context.Context, js jetstream.JetStream, plan Reset) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	found, err := js.Consumer(ctx, plan.Stream, plan.Name)
	if err != nil {
		return fmt.Errorf("history: look up durable %s of %s to note its reset: %w", plan.Name, plan.Stream, err)
	}
	info := found.CachedInfo()
	note, err := json.Marshal(audited{plan.By, plan.Reason, plan.From, plan.StoredAt})
	if err != nil {
		return fmt.Errorf("history: encode note: %w", err)
	}
	cfg := info.Config
	cfg.Metadata = maps.Clone(cfg.Metadata)
	if cfg.Metadata == nil {
		cfg.Metadata = map[string]string{}
	}
	cfg.Metadata[resetPrefix+info.TimeStamp.UTC().Format(resetTime)] = string(note)
	var resets []string
	for name := range cfg.Metadata {
		if strings.HasPrefix(name, resetPrefix) {
			resets = append(resets, name)
		}
	}
	slices.Sort(resets)
	for _, old := range resets[:max(0, len(resets)-keptResets)] {
		delete(cfg.Metadata, old)
	}
	if _, err := js.UpdateConsumer(ctx, plan.Stream, cfg); err != nil {
		return fmt.Errorf("history: note the reset of durable %s of %s in its metadata: %w", plan.Name, plan.Stream, err)
	}
	return nil
}
