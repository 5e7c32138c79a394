package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/nats-io/nats.go/jetstream"
)

// Tail reads what a stream holds of a service behind a sequence: id → sequence.
func Tail(ctx context.Context, js jetstream.JetStream, stream string, after int64, since time.Time, service, site string, limit int) (ids map[string]int64, newest int64, cut bool, err error) {
	ask := asker{js.Conn(), apiPrefix(js, ""), time.Second}
	t, err := ask.tail(ctx, stream, place{after, since}, author{service, site}, limit)
	if err != nil {
		return nil, 0, false, err
	}
	ids = map[string]int64{}
	for _, k := range t.known {
		id := pgtype.UUID{Bytes: k.id, Valid: true}
		sequence, found := t.find(id)
		if !found || sequence != k.sequence {
			return nil, 0, false, errors.New("what was read is not found")
		}
		ids[(&row{id: id}).uuid()] = sequence
	}
	return ids, t.through, t.cut, nil
}

// Stale tells whether a stream with the given window may have forgotten an id.
func Stale(window time.Duration, sent time.Time) bool { return facts{window: window}.stale(sent) }

// OnForeign calls f after each step of taking over rows of another cluster, in
// which n rows are gone through at once.
func (r *Relay) OnForeign(n int, f func(step string)) { r.foreignBatch, r.hooks.foreign = n, f }
