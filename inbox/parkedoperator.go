package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/internal/pgschema"
)

// ParkedState says what a parked message waits for.
type ParkedState string

// The states of a parked message.
const (
	// ParkedWaiting waits until it is due.
	ParkedWaiting ParkedState = "waiting"
	// ParkedDue waits for a free worker of its durable. If it stays due, no
	// replica of the durable runs, or all are busy.
	ParkedDue ParkedState = "due"
	// ParkedHandled is in the hands of a replica.
	ParkedHandled ParkedState = "being handled"
)

// Parked is a message that waits in the database, because its next attempt is far
// away.
type Parked struct {
	Consumer   string      `json:"consumer"` // the name of the inbox
	Durable    string      `json:"durable"`  // whose replicas handle it
	Source     string      `json:"source"`
	ID         string      `json:"id"`
	LetterID   string      `json:"letter_id,omitempty"` // the dead letter of which it is a replay
	Key        string      `json:"key"`                 // the ordering key
	Stream     string      `json:"stream"`              // where the original is stored
	Sequence   uint64      `json:"sequence"`
	Subject    string      `json:"subject"`
	Size       int         `json:"size"` // of the envelope, in bytes
	State      ParkedState `json:"state"`
	Attempts   int         `json:"attempts"`              // handler starts so far
	Error      string      `json:"error"`                 // of the last attempt; never a payload
	ParkedAt   time.Time   `json:"parked_at"`             // database time, as all times here
	DueAt      time.Time   `json:"due_at"`                // while it is being handled: when somebody else may take it
	ReleasedBy string      `json:"released_by,omitempty"` // the operator who made it due
	Reason     string      `json:"reason,omitempty"`      // why
}

// ParkedFilter selects parked messages. The zero value selects all.
type ParkedFilter struct {
	Consumer string // only of this inbox; "" is any
	Durable  string // only of this durable; "" is any
	Key      string // only of this ordering key; "" is any
	ID       string // only this message, a UUID; "" is any
	Limit    int    // of ListParked: at most so many, 1 to 10,000; 0 is 1,000
}

// The bounds of a list.
const (
	defaultList = 1_000
	longestList = 10_000
)

// ErrNotParked says that no such message is parked, or not any more.
var ErrNotParked = errors.New("no such message is parked")

// ErrNothingToRelease says that what is parked there is due already, or in the
// hands of a replica.
var ErrNothingToRelease = errors.New("what is parked there is due already, or being handled")

// ListParked returns the parked messages that match, those that are due next
// first. schema as in Config; "" is the default. It is safe for concurrent use,
// as are all functions for operators.
func ListParked(ctx context.Context, pool *pgxpool.Pool, schema string, filter ParkedFilter) ([]Parked, error) {
	const act = "list parked messages"
	quoted, args, err := filter.args(act, schema)
	if err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, strings.ReplaceAll(`
select consumer, durable, source, message_id::text, letter_id, ordering_key, stream, sequence, subject, length(data),
       case when due_at <= statement_timestamp() then 'due' when claim <> '' then 'being handled' else 'waiting' end,
       attempts, reason, parked_at, due_at, coalesce(released_by, ''), coalesce(release_reason, '')
  from {{schema}}.inbox_parked
 where `+matching+`
 order by due_at, consumer, message_id limit $5`, "{{schema}}", quoted), append(args, filter.limit())...)
	if err != nil {
		return nil, fmt.Errorf("inbox: %s: %w", act, explain(err))
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (p Parked, err error) {
		var sequence int64
		err = r.Scan(&p.Consumer, &p.Durable, &p.Source, &p.ID, &p.LetterID, &p.Key, &p.Stream, &sequence, &p.Subject, &p.Size,
			&p.State, &p.Attempts, &p.Error, &p.ParkedAt, &p.DueAt, &p.ReleasedBy, &p.Reason)
		p.Sequence = uint64(sequence)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("inbox: %s: %w", act, explain(err))
	}
	return all, nil
}

// ParkedMessage returns the headers, as "Name: value", and the envelope of a
// message that ListParked returned. The envelope is a payload: it may hold what
// not everybody may see. ErrNotParked where it is parked no longer.
func ParkedMessage(ctx context.Context, pool *pgxpool.Pool, schema string, p Parked) (headers []string, data []byte, err error) {
	const act = "read parked message"
	quoted, err := pgschema.Quote(schema)
	if err != nil {
		return nil, nil, fmt.Errorf("inbox: %s: schema: %w", act, err)
	}
	var fields [][]byte
	err = pool.QueryRow(ctx, strings.ReplaceAll(`
select headers, data from {{schema}}.inbox_parked
 where consumer = $1 and source = $2 and message_id = $3 and letter_id = $4`, "{{schema}}", quoted),
		p.Consumer, p.Source, p.ID, p.LetterID).Scan(&fields, &data)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotParked
	}
	if err != nil {
		return nil, nil, fmt.Errorf("inbox: %s %s: %w", act, p.ID, explain(err))
	}
	for i := 0; i+1 < len(fields); i += 2 {
		headers = append(headers, string(fields[i])+": "+string(fields[i+1]))
	}
	return headers, data, nil
}

// ReleaseParked makes all messages that match due now: the replicas of their
// durables find them within seconds. What is due, or being handled, is left
// alone. It returns how many there were; Limit counts for nothing.
//
// by ("operator:ola") and reason are required; the replica that takes a message
// logs them. Errors: ErrNotParked where nothing matches, ErrNothingToRelease
// where nothing of it waits.
func ReleaseParked(ctx context.Context, pool *pgxpool.Pool, schema string, filter ParkedFilter, by, reason string) (int64, error) {
	return releaseParked(ctx, pool, schema, filter, by, reason, `
  update {{schema}}.inbox_parked set due_at = statement_timestamp(), released_by = $5, release_reason = $6
   where `+releasable+`
  returning 1`)
}

// PlanRelease makes every check of ReleaseParked and returns how many messages it
// would release, without doing it.
func PlanRelease(ctx context.Context, pool *pgxpool.Pool, schema string, filter ParkedFilter, by, reason string) (int64, error) {
	return releaseParked(ctx, pool, schema, filter, by, reason, `
  select $5::text, $6::text from {{schema}}.inbox_parked where `+releasable)
}

// releasable is what an operator can make due.
const releasable = matching + ` and claim = '' and due_at > statement_timestamp()`

func releaseParked(ctx context.Context, pool *pgxpool.Pool, schema string, filter ParkedFilter, by, reason, sql string) (int64, error) {
	const act = "release parked messages"
	quoted, args, err := filter.args(act, schema)
	if strings.TrimSpace(by) == "" {
		err = errors.Join(err, fmt.Errorf("inbox: %s: by is empty; say who decides, such as operator:ola", act))
	}
	if strings.TrimSpace(reason) == "" {
		err = errors.Join(err, fmt.Errorf("inbox: %s: reason is empty; say why", act))
	}
	if err != nil {
		return 0, err
	}
	var found, released int64
	err = pool.QueryRow(ctx, strings.ReplaceAll(`
with released as (`+sql+`
)
select (select count(*) from {{schema}}.inbox_parked where `+matching+`), (select count(*) from released)`, "{{schema}}", quoted),
		append(args, by, reason)...).Scan(&found, &released)
	switch {
	case err == nil && found == 0:
		err = ErrNotParked
	case err == nil && released == 0:
		err = ErrNothingToRelease
	}
	if err != nil {
		return 0, fmt.Errorf("inbox: %s: %w", act, explain(err))
	}
	return released, nil
}

// matching is the condition of a filter, whose args are the first four.
const matching = `($1 = '' or consumer = $1) and ($2 = '' or durable = $2) and ($3 = '' or ordering_key = $3) and ($4::uuid is null or message_id = $4)`

// args checks a filter and returns the quoted schema and the arguments of
// matching. It reports every fault at once.
func (f ParkedFilter) args(act, schema string) (quoted string, args []any, err error) {
	var faults []error
	quoted, err = pgschema.Quote(schema)
	if err != nil {
		faults = append(faults, fmt.Errorf("inbox: %s: schema: %w", act, err))
	}
	var id pgtype.UUID
	if f.ID != "" && (len(f.ID) != uuidText || id.Scan(f.ID) != nil) {
		faults = append(faults, fmt.Errorf("inbox: %s: %.80q is no message id, which is a UUID", act, f.ID))
	}
	if f.Limit < 0 || f.Limit > longestList {
		faults = append(faults, fmt.Errorf("inbox: %s: a limit of %d is out of range; use 1 to %d, or 0 for %d", act, f.Limit, longestList, defaultList))
	}
	return quoted, []any{f.Consumer, f.Durable, f.Key, id}, errors.Join(faults...)
}

func (f ParkedFilter) limit() int {
	if f.Limit == 0 {
		return defaultList
	}
	return f.Limit
}
