package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ParkedState says who has the next word on a parked key.
type ParkedState string

// The states of a parked key.
const (
	// ParkedHeld waits for an operator: release the key, or discard its head.
	ParkedHeld ParkedState = "held"
	// ParkedReleased waits for the relay that leads: it publishes what is held in
	// order, and then the key is parked no longer. Where the head fails again the
	// key is held again, with the new cause.
	ParkedReleased ParkedState = "released"
)

// Parked is an ordering key that is held back: no stream would ever take its
// head, so that neither the head nor anything behind it is published. All other
// keys go on.
type Parked struct {
	Stream     string      `json:"stream"`
	Key        string      `json:"key"`
	State      ParkedState `json:"state"`
	ID         string      `json:"id"`                    // of the head, the first message that could not be stored
	Seq        int64       `json:"seq"`                   // of the head's row in outbox_events
	Subject    string      `json:"subject"`               // that the head is published on
	Cause      string      `json:"cause"`                 // why it cannot be stored; never a payload
	ParkedAt   time.Time   `json:"parked_at"`             // database time
	ReleasedAt time.Time   `json:"released_at,omitzero"`  // zero while the key is held
	ReleasedBy string      `json:"released_by,omitempty"` // who released the key or discarded its head
	Reason     string      `json:"reason,omitempty"`      // why
}

// Decision is what an operator decided about a key; it is kept for good.
type Decision struct {
	At     time.Time `json:"at"`
	Act    string    `json:"act"`   // release, discard or rewind
	ID     string    `json:"id"`    // of the head it was decided about
	Seq    int64     `json:"seq"`   // of its row
	Cause  string    `json:"cause"` // why the key was parked
	By     string    `json:"by"`
	Reason string    `json:"reason"`
}

// ParkedDetails is all about a parked key but the payload.
type ParkedDetails struct {
	Parked
	Missing   bool       `json:"missing,omitempty"`   // the head is not in outbox_events any more, so the next fields are empty
	CreatedAt time.Time  `json:"created_at,omitzero"` // when the head was enqueued
	Headers   []string   `json:"headers"`             // as stored, "Name: value"
	Size      int        `json:"size"`                // of the stored envelope, in bytes
	Held      int64      `json:"held"`                // messages that wait, the head included, discarded ones not
	Capped    bool       `json:"capped"`              // there are more than Held says
	Decisions []Decision `json:"decisions"`           // about this key, the newest first, at most 20
}

// ErrNotParked says that the key, or every key of the stream, is parked no
// longer or never was: there is nothing to decide.
var ErrNotParked = errors.New("nothing is parked there")

// ErrHeadChanged says that the message is not, or not any more, the head of a
// parked key: it was stored or discarded meanwhile, or never parked. Look again
// before you decide.
var ErrHeadChanged = errors.New("the message is not the head of a parked key, or not any more; list what is parked and look again")

// ParkedError says that the state of a key does not allow what was asked for:
// somebody released it already, or it is parked where it must not be.
type ParkedError struct {
	Parked Parked // the key as it is
}

// Error says who did what, and what to do.
func (e *ParkedError) Error() string {
	p := e.Parked
	if p.State == ParkedReleased {
		return fmt.Sprintf("key %q of %s was released by %s at %s (%s); wait until the relay has carried it out",
			p.Key, p.Stream, p.ReleasedBy, p.ReleasedAt.UTC().Format(time.RFC3339), p.Reason)
	}
	return fmt.Sprintf("key %q of %s is parked since %s (%s); release it, or discard its head %s",
		p.Key, p.Stream, p.ParkedAt.UTC().Format(time.RFC3339), p.Cause, p.ID)
}

// ParkedFilter selects what ListParked returns. The zero value asks for all.
type ParkedFilter struct {
	Stream string      // only keys of this stream; "" is any
	Key    string      // only this ordering key; "" is any
	ID     string      // only the key whose head is this message; "" is any
	State  ParkedState // ParkedHeld or ParkedReleased; "" is both
	Limit  int         // at most so many, 1 to 10,000; 0 is 1,000
}

// The bounds of a list.
const (
	defaultList = 1_000
	longestList = 10_000
)

// listLimit checks the limit of a list.
func listLimit(act string, limit int) (int, error) {
	switch {
	case limit == 0:
		return defaultList, nil
	case limit < 0 || limit > longestList:
		return 0, fmt.Errorf("outbox: %s: a limit of %d is out of range; use 1 to %d, or 0 for %d", act, limit, longestList, defaultList)
	}
	return limit, nil
}

// ListParked returns the parked keys, the oldest first. It reads the database
// alone. schema as in Config; "" is the default. Safe for concurrent use, as
// are all functions for operators.
func ListParked(ctx context.Context, pool *pgxpool.Pool, schema string, filter ParkedFilter) ([]Parked, error) {
	const act = "list parked keys"
	quoted, err := operatorArgs(act, schema)
	limit, limitErr := listLimit(act, filter.Limit)
	var stateErr, idErr error
	if filter.State != "" && filter.State != ParkedHeld && filter.State != ParkedReleased {
		stateErr = fmt.Errorf("outbox: %s: state %q is neither %s nor %s", act, filter.State, ParkedHeld, ParkedReleased)
	}
	var id pgtype.UUID
	if filter.ID != "" {
		id, idErr = parseID(act, filter.ID)
	}
	if err := errors.Join(err, limitErr, stateErr, idErr); err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, inSchema(quoted, `
select `+parkedColumns+` from {{schema}}.outbox_parked p
 where ($1 = '' or p.stream = $1) and ($2 = '' or p.ordering_key = $2) and ($3::uuid is null or p.id = $3)
   and ($4 = '' or ($4 = 'released') = (p.released_at is not null))
 order by p.parked_at, p.stream, p.ordering_key limit $5`), filter.Stream, filter.Key, id, string(filter.State), limit)
	if err != nil {
		return nil, fmt.Errorf("outbox: %s: %w", act, explain(err))
	}
	all, err := pgx.CollectRows(rows, scanParked)
	if err != nil {
		return nil, fmt.Errorf("outbox: %s: %w", act, explain(err))
	}
	return all, nil
}

// parkedColumns are those that scanParked reads.
const parkedColumns = `p.stream, p.ordering_key, p.id::text, p.seq, p.subject, p.cause, p.parked_at,
       p.released_at, coalesce(p.released_by, ''), coalesce(p.reason, '')`

func scanParked(r pgx.CollectableRow) (p Parked, err error) {
	var released *time.Time
	err = r.Scan(&p.Stream, &p.Key, &p.ID, &p.Seq, &p.Subject, &p.Cause, &p.ParkedAt, &released, &p.ReleasedBy, &p.Reason)
	p.State = ParkedHeld
	if released != nil {
		p.State, p.ReleasedAt = ParkedReleased, *released
	}
	return p, err
}

// parseID reads the id of a message.
func parseID(act, text string) (id pgtype.UUID, err error) {
	if len(text) != 36 || id.Scan(text) != nil {
		return id, fmt.Errorf("outbox: %s: %.80q is no message id, which is a UUID", act, text)
	}
	return id, nil
}

// decisionLimit bounds the history of a key.
const decisionLimit = 20

// ShowParked returns all about one parked key, but never a payload: see
// ParkedEnvelope. What waits is counted up to 100,000; counting reads all
// rows of the stream behind the head, a second or two for each million. ErrNotParked where the key is not parked.
func ShowParked(ctx context.Context, pool *pgxpool.Pool, schema, stream, key string) (ParkedDetails, error) {
	const act = "show parked key"
	quoted, err := operatorArgs(act, schema, arg{"stream", stream}, arg{"key", key})
	if err != nil {
		return ParkedDetails{}, err
	}
	var d ParkedDetails
	// One transaction, so that all of it is of one moment.
	err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, pinSearch); err != nil {
			return err
		}
		if d.Parked, err = readParked(ctx, tx, quoted, stream, key, ""); err != nil {
			return err
		}
		if err := readHead(ctx, tx, quoted, &d); err != nil {
			return err
		}
		return readDecisions(ctx, tx, quoted, &d)
	})
	if err != nil {
		return ParkedDetails{}, fmt.Errorf("outbox: %s %q of %s: %w", act, key, stream, explain(err))
	}
	return d, nil
}

// readParked reads the row of a key, with a lock where the clause asks for one.
func readParked(ctx context.Context, tx pgx.Tx, quoted, stream, key, clause string) (Parked, error) {
	rows, err := tx.Query(ctx, inSchema(quoted, `
select `+parkedColumns+` from {{schema}}.outbox_parked p where p.stream = $1 and p.ordering_key = $2 `+clause), stream, key)
	if err != nil {
		return Parked{}, err
	}
	p, err := pgx.CollectExactlyOneRow(rows, scanParked)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotParked
	}
	return p, err
}

// readHead adds what the table holds of the head, and how much waits.
func readHead(ctx context.Context, tx pgx.Tx, quoted string, d *ParkedDetails) error {
	var headers string
	err := tx.QueryRow(ctx, inSchema(quoted, `
select e.created_at, e.headers, octet_length(e.envelope) from {{schema}}.outbox_events e
 where e.stream = $1 and e.seq = $2 and e.id = $3::text::uuid`), d.Stream, d.Seq, d.ID).Scan(&d.CreatedAt, &headers, &d.Size)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		d.Missing = true
	case err != nil:
		return err
	}
	d.Headers = []string{}
	for line := range strings.SplitSeq(headers, "\r\n") {
		if line != "" {
			d.Headers = append(d.Headers, line)
		}
	}
	return tx.QueryRow(ctx, inSchema(quoted, `
select least(count(*), $4), count(*) > $4 from (
  select from {{schema}}.outbox_events e
   where e.stream = $1 and e.ordering_key = $2 and e.seq >= $3
     and not exists (select from {{schema}}.outbox_discarded x where x.stream = e.stream and x.seq = e.seq and x.id = e.id)
   limit $4 + 1) held`), d.Stream, d.Key, d.Seq, int64(tally)).Scan(&d.Held, &d.Capped)
}

func readDecisions(ctx context.Context, tx pgx.Tx, quoted string, d *ParkedDetails) error {
	rows, err := tx.Query(ctx, inSchema(quoted, `
select at, act, id::text, seq, cause, decided_by, reason from {{schema}}.outbox_decisions
 where stream = $1 and ordering_key = $2 order by at desc limit $3`), d.Stream, d.Key, decisionLimit)
	if err != nil {
		return err
	}
	d.Decisions, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Decision])
	return err
}

// ParkedEnvelope returns the stored bytes of the head of p: what the platform's
// users wrote, so whoever prints it must have been asked to.
func ParkedEnvelope(ctx context.Context, pool *pgxpool.Pool, schema string, p Parked) ([]byte, error) {
	const act = "read parked envelope"
	quoted, err := operatorArgs(act, schema)
	id, idErr := parseID(act, p.ID)
	if err := errors.Join(err, idErr); err != nil {
		return nil, err
	}
	var envelope []byte
	err = pool.QueryRow(ctx, inSchema(quoted, `
select envelope from {{schema}}.outbox_events where stream = $1 and seq = $2 and id = $3`), p.Stream, p.Seq, id).Scan(&envelope)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("outbox: %s: message %s of %s is not in outbox_events any more", act, p.ID, p.Stream)
	}
	if err != nil {
		return nil, fmt.Errorf("outbox: %s %s: %w", act, p.ID, explain(err))
	}
	return envelope, nil
}
