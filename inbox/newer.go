package inbox

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// Version is a state of something, as a message tells it, for [Inbox.NewerAll].
type Version struct {
	// Key is what it is a state of: the kind of thing and its id, such as
	// "server/srv-1". Keys belong to the inbox's consumer. 1 to 512 bytes of UTF-8.
	Key string
	// Version grows with each change of the thing. The producer counts it in the
	// transaction of the change; a time is none, since clocks go back.
	Version int64
}

// maxKey bounds Version.Key, in bytes.
const maxKey = 512

// Newer tells whether a version of key is higher than every one that was told
// before in this consumer, and so whether a handler should apply it (requirement
// I7). It is remembered in tx, together with the effect. What comes late, an event
// that another one overtook or the replay of an old dead letter, is false: the
// handler applies nothing and returns nil.
//
// Handlers of one key wait for one another until their transactions end, so the
// answer holds until the effect is committed. A handler with several keys uses
// [Inbox.NewerAll], or takes them in the same order everywhere.
//
// A row per key stays, also when the thing itself is deleted: an event that comes
// late does not make it anew. See JanitorConfig.KeepVersions. Where no such event
// can come, an upsert into the service's own row does the same without a row here:
// `on conflict (id) do update set … where node.version < excluded.version`.
//
// The error of a key that is out of bounds is permanent.
func (in *Inbox) Newer(ctx context.Context, tx pgx.Tx, key string, version int64) (bool, error) {
	newer, err := in.NewerAll(ctx, tx, []Version{{key, version}})
	return err == nil && newer[0], err
}

// NewerAll is [Inbox.Newer] for many, in one round trip and without deadlocks
// among its callers: for a handler of [OnBatch]. The answers are in the order of
// the versions; of several with one key at most one is newer, the highest, and the
// first of equals.
func (in *Inbox) NewerAll(ctx context.Context, tx pgx.Tx, of []Version) ([]bool, error) {
	newer := make([]bool, len(of))
	best := make(map[string]int, len(of)) // index of the highest version of each key
	for i, v := range of {
		if n := len(v.Key); n < 1 || n > maxKey || !utf8.ValidString(v.Key) || strings.ContainsRune(v.Key, 0) {
			return nil, envelope.Permanent(fmt.Errorf("inbox: consumer %s: Version.Key: %.80q has %d bytes; use 1 to %d of UTF-8", in.consumer, v.Key, n, maxKey))
		}
		if at, ok := best[v.Key]; !ok || v.Version > of[at].Version {
			best[v.Key] = i
		}
	}
	if len(best) == 0 {
		return newer, nil
	}
	keys, numbers := inOrder(of, best)
	rows, err := tx.Query(ctx, in.newer, in.consumer, keys, numbers)
	if err == nil {
		var key string
		_, err = pgx.ForEachRow(rows, []any{&key}, func() error {
			newer[best[key]] = true
			return nil
		})
	}
	if err != nil {
		return nil, in.explain("compare versions", err)
	}
	return newer, nil
}

// inOrder lists the highest version of each key. The order is the same in every
// process, so that two calls with the same keys wait for one another and never
// both.
func inOrder(of []Version, best map[string]int) (keys []string, numbers []int64) {
	highest := make([]Version, 0, len(best))
	for _, i := range best {
		highest = append(highest, of[i])
	}
	slices.SortFunc(highest, func(a, b Version) int { return cmp.Compare(a.Key, b.Key) })
	for _, v := range highest {
		keys, numbers = append(keys, v.Key), append(numbers, v.Version)
	}
	return keys, numbers
}
