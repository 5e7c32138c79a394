package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"codeberg.org/dataverket/messaging/envelope"
)

// Message names a message to [Inbox.Once].
type Message struct {
	// Source is who gave the id: ids of different sources are different
	// messages. 1 to 64 bytes.
	Source string
	// ID identifies the message within its source: a UUID. An id of another form
	// is turned into one by hashing (UUID version 5) where it enters.
	ID string
	// LetterID names the dead letter that is being replayed. Default "": an
	// ordinary delivery.
	LetterID string
}

// endTimeout bounds the commit or rollback after the handler. It does not end
// with ctx: a commit that is cut short has an unknown outcome, which is the one
// thing a deadline must not produce.
const endTimeout = 10 * time.Second

// Once calls fn in a transaction in which the effect of m is applied for the
// first time, and commits. It returns envelope.ErrAlreadyProcessed, wrapped and
// without a call, if the effect is there or m is a dead letter;
// [ErrDeadUnderOtherLetter], permanent and without a call, if m replays a letter
// and the message is dead under another one; the error of fn as it is, rolled back; or an error of its own, after which the outcome is
// decided by the row: call again.
//
// fn must not commit or roll tx back, nor use it after it returned. An SQL error
// that fn swallows has aborted the transaction, so Once returns an error although
// fn did not.
//
// Once is what [On] is made of. It is exported for messages that do not come
// over NATS, such as an HTTP request with an idempotency key.
func (in *Inbox) Once(ctx context.Context, m Message, fn func(ctx context.Context, tx pgx.Tx) error) error {
	if err := m.check(); err != nil {
		return err
	}
	tx, err := in.pool.Begin(ctx)
	if err != nil {
		return in.explain("begin", err)
	}
	defer in.rollback(ctx, tx) // after a commit it does nothing; after a panic it must
	if err := in.take(ctx, tx, m); err != nil {
		return err
	}
	if err := fn(ctx, tx); err != nil {
		return err
	}
	return in.commit(ctx, tx, m)
}

// check reports every fault of m. Such a message can never be handled.
func (m Message) check() error {
	var faults []error
	if n := len(m.Source); n < 1 || n > maxSource {
		faults = append(faults, fmt.Errorf("inbox: Message.Source: has %d bytes; use 1 to %d", n, maxSource))
	}
	if len(m.ID) != uuidText || new(pgtype.UUID).Scan(m.ID) != nil {
		faults = append(faults, errors.New("inbox: Message.ID: is no UUID in its usual form; derive one from the id"))
	}
	return envelope.Permanent(errors.Join(faults...))
}

// Bounds of the key's parts, in bytes.
const (
	maxSource = 64
	uuidText  = 36
)

// take inserts the row of m, or says that the effect is there.
func (in *Inbox) take(ctx context.Context, tx pgx.Tx, m Message) error {
	var raised *string // synchronous_commit, when it was
	err := tx.QueryRow(ctx, in.claim, in.consumer, m.Source, m.ID, optional(m.LetterID)).Scan(&raised)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return in.taken(ctx, tx, m)
	}
	return in.explain("claim message "+m.ID, err)
}

// taken says why the row of m was not to be had. For a replay it makes a
// difference whether the effect is there, which resolves its letter, or the
// message is dead under another letter: then nothing happened, and nobody may be
// told that it did.
func (in *Inbox) taken(ctx context.Context, tx pgx.Tx, m Message) error {
	var under *string
	if m.LetterID != "" {
		if err := tx.QueryRow(ctx, in.deadUnder, in.consumer, m.Source, m.ID).Scan(&under); err != nil {
			return in.explain("ask for the letter of message "+m.ID, err)
		}
	}
	if under == nil {
		return fmt.Errorf("inbox: consumer %s: message %s of %s: %w", in.consumer, m.ID, m.Source, envelope.ErrAlreadyProcessed)
	}
	return envelope.Permanent(fmt.Errorf("inbox: consumer %s: message %s of %s: %w: replay letter %s instead",
		in.consumer, m.ID, m.Source, ErrDeadUnderOtherLetter, *under))
}

// optional is null for "".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (in *Inbox) commit(ctx context.Context, tx pgx.Tx, m Message) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	err := tx.Commit(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return fmt.Errorf("inbox: consumer %s: commit message %s: the handler swallowed an SQL error, which aborted its transaction; return such errors: %w", in.consumer, m.ID, err)
	case errors.Is(err, pgx.ErrTxClosed):
		return fmt.Errorf("inbox: consumer %s: commit message %s: the handler ended the transaction itself; leave that to the inbox: %w", in.consumer, m.ID, err)
	}
	return in.explain("commit message "+m.ID+" (the outcome may be unknown; the next delivery finds out)", err)
}

// rollback gives the connection back. Its error says nothing new: a connection
// that cannot roll back is closed, which rolls back too.
func (in *Inbox) rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	_ = tx.Rollback(ctx)
}
