package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"codeberg.org/dataverket/messaging/envelope"
)

// Message names a message to [Inbox.Once].
type Message struct {
	// Source is who gave the id: ids of different sources are different
	// messages. 1 to 64 bytes.
	Source string
	// ID identifies the message within its source: a UUID. [MessageFor] makes one
	// of an id of another form.
	ID string
	// LetterID names the dead letter that is being replayed. Default "": an
	// ordinary delivery.
	LetterID string

	claim string // on the message where it was parked, see park.go
	// fence is the lease under which an ordered consumer delivered it.
	fence envelope.Fence
	scope scope
}

// MessageFor names a message whose id is no UUID, or is chosen by a stranger, such
// as the Idempotency-Key header of an HTTP request: ID is a UUID that follows from
// it (version 5). Where several callers choose ids, put into key who calls, such as
// the tenant: two callers with one key are one message. An empty key gives a Message
// that [Inbox.Once] refuses.
//
// Ids of this form tell no time, so their rows are cleaned one by one; see package
// inbox on retention.
func MessageFor(source, key string) Message {
	m := Message{Source: source}
	if key != "" {
		m.ID = envelope.IdempotencyKey(source, key, keyed)
	}
	return m
}

// keyed is the effect that the ids of MessageFor are derived for. Another one would
// be other ids.
const keyed = "inbox.message"

// endTimeout bounds the commit or rollback after the handler. It does not end
// with ctx: a commit that is cut short has an unknown outcome, which is the one
// thing a deadline must not produce.
const endTimeout = 10 * time.Second

// Once calls fn in a transaction in which the effect of m is applied for the
// first time, and commits. It returns envelope.ErrAlreadyProcessed, wrapped and
// without a call, if the effect is there, or m is a dead letter or parked;
// tenant.ErrNoTenant, permanent and without a call, where Config.TenantSetting is set
// and ctx tells no tenant;
// [ErrDeadUnderOtherLetter], permanent and without a call, if m replays a letter
// and the message is dead under another one; the error of fn as it is, rolled back;
// or an error of its own, after which the outcome is decided by the row: call again.
//
// fn must not commit or roll tx back, nor use it after it returned. An SQL error
// that fn swallows has aborted the transaction, so Once returns an error although
// fn did not.
//
// Once is what [On] is made of. It is exported for messages that do not come
// over NATS, such as an HTTP request with an idempotency key. Such a caller keeps
// what it needs to answer a repeat in the transaction, among its own rows. For how
// long it may repeat is what the Janitor has to know (see [NewJanitor]).
func (in *Inbox) Once(ctx context.Context, m Message, fn func(ctx context.Context, tx pgx.Tx) error) error {
	m, err := in.scoped(ctx, m)
	if err != nil {
		return err
	}
	k, err := in.key(m)
	if err != nil {
		return err
	}
	tx, err := in.begin(ctx, k)
	if err != nil {
		return err
	}
	open := true
	defer func() {
		if open { // fn failed or panicked
			in.rollback(ctx, tx)
		}
	}()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	open = false // Commit gives the connection back, whatever becomes of it
	return in.commit(ctx, tx, "message "+m.ID)
}

// key is a checked Message as the statements take it.
type key struct {
	Message
	id  pgtype.UUID
	sql *statements // of its bucket
}

// key checks m and reports every fault. Such a message can never be handled.
func (in *Inbox) key(m Message) (key, error) {
	k, faults := key{Message: m}, []error(nil)
	if n := len(m.Source); n < 1 || n > maxSource {
		faults = append(faults, fmt.Errorf("inbox: Message.Source: has %d bytes; use 1 to %d", n, maxSource))
	}
	if len(m.ID) != uuidText || k.id.Scan(m.ID) != nil {
		faults = append(faults, errors.New("inbox: Message.ID: is no UUID in its usual form; derive one from the id"))
	}
	k.sql = &in.sql[bucketOf(k.id.Bytes)]
	return k, envelope.Permanent(errors.Join(faults...))
}

// Bounds of the key's parts, in bytes.
const (
	maxSource = 64
	uuidText  = 36
)

// begin opens a transaction and inserts the row of k, in one round trip, or says
// that the effect is there.
func (in *Inbox) begin(ctx context.Context, k key) (pgx.Tx, error) {
	var batch pgx.Batch
	batch.BeginTx(pgx.TxOptions{})
	in.queueFence(&batch, k.fence)
	claimed, lost := false, in.queueUnparking(&batch, k)
	if k.LetterID != "" {
		in.queueTenant(&batch, k.scope) // any other claim tells it itself
	}
	claim, args := in.claim(k)
	batch.Queue(claim, args...).Exec(func(tag pgconn.CommandTag) error {
		claimed = tag.RowsAffected() > 0
		return nil
	})
	results := in.pool.SendBatch(ctx, &batch)
	tx, err := results.Tx(), results.Close()
	switch {
	case errors.Is(err, envelope.ErrFenced):
		err = fmt.Errorf("inbox: consumer %s: message %s of %s: %w", in.consumer, k.ID, k.Source, err)
	case err != nil:
		err = in.explain("claim message "+k.ID, err)
	case *lost:
		err = in.parkedError(k)
	case claimed:
		return tx, nil
	default:
		err = in.taken(ctx, tx, k)
	}
	in.rollback(ctx, tx)
	return nil, err
}

// taken says why the row of k was not to be had. For a replay it makes a
// difference whether the effect is there, which resolves its letter, or the
// message is dead under another letter: then nothing happened, and nobody may be
// told that it did.
func (in *Inbox) taken(ctx context.Context, tx pgx.Tx, k key) error {
	var under *string
	if k.LetterID != "" {
		if err := in.parkedElsewhere(ctx, tx, k); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, k.sql.deadUnder, in.consumer, k.Source, k.id).Scan(&under); err != nil {
			return in.explain("ask for the letter of message "+k.ID, err)
		}
	}
	if under == nil {
		return in.processed(k)
	}
	return envelope.Permanent(fmt.Errorf("inbox: consumer %s: message %s of %s: %w: replay letter %s instead",
		in.consumer, k.ID, k.Source, ErrDeadUnderOtherLetter, *under))
}

// processed says that the effect of k is there, or that it is dead.
func (in *Inbox) processed(k key) error {
	return fmt.Errorf("inbox: consumer %s: message %s of %s: %w", in.consumer, k.ID, k.Source, envelope.ErrAlreadyProcessed)
}

// claim is the statement that inserts the row of k, and its arguments.
func (in *Inbox) claim(k key) (sql string, args []any) {
	args = []any{in.consumer, k.Source, k.id, optional(k.claim)}
	if k.LetterID != "" {
		return k.sql.replay, append(args, k.LetterID)
	}
	if in.tenants != "" {
		args = append(args, k.scope.tenant)
	}
	return k.sql.claim, args
}

// optional is null for "".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// commit ends a transaction that holds what is named.
func (in *Inbox) commit(ctx context.Context, tx pgx.Tx, what string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	err := tx.Commit(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return fmt.Errorf("inbox: consumer %s: commit %s: the handler swallowed an SQL error, which aborted its transaction; return such errors: %w", in.consumer, what, err)
	case errors.Is(err, pgx.ErrTxClosed):
		return fmt.Errorf("inbox: consumer %s: commit %s: the handler ended the transaction itself; leave that to the inbox: %w", in.consumer, what, err)
	}
	return in.explain("commit "+what+" (the outcome may be unknown; the next delivery finds out)", err)
}

// rollback gives the connection back. Its error says nothing new: a connection
// that cannot roll back is closed, which rolls back too.
func (in *Inbox) rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	_ = tx.Rollback(ctx)
}
