package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/internal/pgschema"
)

// Dead is a message that an inbox gave up: it has no effect any more, however
// often it comes, except through a replay that names its letter.
type Dead struct {
	Consumer string    `json:"consumer"` // the name of the inbox
	Source   string    `json:"source"`
	ID       string    `json:"id"`
	LetterID string    `json:"letter_id"` // the dead letter it was given up as
	At       time.Time `json:"at"`        // when, by the database's clock
}

// ListDead returns the messages that the inboxes of a database gave up at or after
// since, the oldest first. It reads all rows of that time, a second or two for each
// million. schema as in Config; "" is the default. It is safe for concurrent use.
func ListDead(ctx context.Context, pool *pgxpool.Pool, schema string, since time.Time) ([]Dead, error) {
	const act = "list dead messages"
	quoted, err := pgschema.Quote(schema)
	if err != nil {
		return nil, fmt.Errorf("inbox: %s: schema: %w", act, err)
	}
	rows, err := pool.Query(ctx, strings.ReplaceAll(`
select consumer, source, message_id::text, letter_id, handled_at from {{schema}}.inbox_messages
 where letter_id is not null and handled_at >= $1
 order by handled_at, consumer, source, message_id`, "{{schema}}", quoted), since)
	if err != nil {
		return nil, fmt.Errorf("inbox: %s: %w", act, explain(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Dead])
	if err != nil {
		return nil, fmt.Errorf("inbox: %s: %w", act, explain(err))
	}
	return all, nil
}

// ReviveRequest says who revives messages and why. By and Reason are required.
type ReviveRequest struct {
	// By is who decides, such as "operator:ola".
	By string
	// Reason is why, such as "JetStream lost, DV-412".
	Reason string
	// Logger receives a line for each message that was revived: with it goes the
	// only trace of a letter that is lost. Default: slog.Default().
	Logger *slog.Logger
}

// reviveAtOnce is how many messages one transaction revives.
const reviveAtOnce = 1_000

// Revive forgets that messages were given up, and their attempts: the next copy of
// each that a durable delivers is handled as if it was the first, and either has
// its effect or becomes a dead letter again. It is for messages whose letter is
// lost, so that no replay could ever name it; one whose letter is still there has
// its effect by Replay, in package dlq.
//
// It delivers nothing itself: see history.ResetDurable, or outbox.AcceptStream for
// a stream that was made anew. A message that was handled meanwhile, or is dead
// under another letter, is left alone. It returns how many were revived, also beside
// an error; doing it again does the rest. The role needs SELECT and DELETE on
// inbox_messages and inbox_attempts. It is safe for concurrent use, also while
// consumers run.
func Revive(ctx context.Context, pool *pgxpool.Pool, schema string, dead []Dead, r ReviveRequest) (revived int, err error) {
	const act = "revive messages"
	quoted, err := pgschema.Quote(schema)
	if err != nil {
		err = fmt.Errorf("inbox: %s: schema: %w", act, err)
	}
	if strings.TrimSpace(r.By) == "" {
		err = errors.Join(err, fmt.Errorf("inbox: %s: by is empty; say who decides, such as operator:ola", act))
	}
	if strings.TrimSpace(r.Reason) == "" {
		err = errors.Join(err, fmt.Errorf("inbox: %s: reason is empty; say why", act))
	}
	if err != nil {
		return 0, err
	}
	logger := cmp.Or(r.Logger, slog.Default())
	for some := range slices.Chunk(dead, reviveAtOnce) {
		gone, err := reviveSome(ctx, pool, quoted, some)
		if err != nil {
			return revived, fmt.Errorf("inbox: %s: %w", act, explain(err))
		}
		for _, d := range gone {
			logger.LogAttrs(ctx, slog.LevelWarn, "dead message revived: its next copy is handled",
				slog.String("consumer", d.Consumer), slog.String("source", d.Source), slog.String("message", d.ID),
				slog.String("letter", d.LetterID), slog.Time("dead_since", d.At), slog.String("by", r.By), slog.String("reason", r.Reason))
		}
		revived += len(gone)
	}
	return revived, nil
}

// reviveText names the bucket, so that each row is looked for in one partition.
const reviveText = `
with wanted as (
  select * from unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::smallint[]) as w (consumer, source, id, letter, bucket)
), gone as (
  delete from {{schema}}.inbox_messages m using wanted w
   where m.consumer = w.consumer and m.source = w.source and m.message_id = w.id and m.bucket = w.bucket and m.letter_id = w.letter
  returning m.consumer, m.source, m.message_id, m.letter_id, m.handled_at
), attempts as (
  delete from {{schema}}.inbox_attempts a using gone g
   where a.consumer = g.consumer and a.source = g.source and a.message_id = g.message_id
)
select consumer, source, message_id::text, letter_id, handled_at,
       case when current_setting('synchronous_commit') = 'off' then set_config('synchronous_commit', 'on', true) end
  from gone order by handled_at, consumer, source, message_id`

// reviveSome is one statement, and so one transaction.
func reviveSome(ctx context.Context, pool *pgxpool.Pool, quoted string, dead []Dead) ([]Dead, error) {
	n := len(dead)
	consumers, sources, letters := make([]string, n), make([]string, n), make([]string, n)
	ids, buckets := make([]pgtype.UUID, n), make([]int16, n)
	for i, d := range dead {
		if len(d.ID) != uuidText || ids[i].Scan(d.ID) != nil {
			return nil, fmt.Errorf("%.80q is no message id, which is a UUID", d.ID)
		}
		consumers[i], sources[i], letters[i], buckets[i] = d.Consumer, d.Source, d.LetterID, int16(bucketOf(ids[i].Bytes))
	}
	rows, err := pool.Query(ctx, strings.ReplaceAll(reviveText, "{{schema}}", quoted), consumers, sources, ids, letters, buckets)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (d Dead, err error) {
		var synchronous *string
		err = r.Scan(&d.Consumer, &d.Source, &d.ID, &d.LetterID, &d.At, &synchronous)
		return d, err
	})
}
