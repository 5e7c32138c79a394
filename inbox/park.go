package inbox

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"codeberg.org/dataverket/messaging/envelope"
)

// The methods of this file make an Inbox a consumer.Parking: the place where
// messages wait whose next attempt is far away. A consumer calls them; a service
// does not.

// Park commits that p waits here until delay has passed. A message that is parked
// already stays as it is. Afterwards its delivery may be acknowledged. It fails with
// envelope.ErrFenced where another instance has taken over p.Fence.
func (in *Inbox) Park(ctx context.Context, p *envelope.Parked, delay time.Duration) error {
	sql, args := in.parking.park, in.parkArgs(p)
	if p.Fence.Term != 0 {
		sql, args = in.parking.parkFenced, in.parkFencedArgs(p)
	}
	tag, err := in.pool.Exec(ctx, sql, append(args, delay.Microseconds())...)
	if err == nil && tag.RowsAffected() == 0 {
		err = in.stands(ctx, p.Fence)
	}
	if err != nil {
		return in.explain("park message "+p.MessageID, err)
	}
	return nil
}

// ParkBehind parks p if its key is parked, behind the key's other messages, and
// reports whether it is: a later message of a key must not overtake one that
// waits. It is due as soon as it is the first of its key. It fails with
// envelope.ErrFenced where another instance has taken over p.Fence.
func (in *Inbox) ParkBehind(ctx context.Context, p *envelope.Parked) (parked bool, err error) {
	tag, err := in.pool.Exec(ctx, in.parking.parkBehind, in.parkFencedArgs(p)...)
	if err == nil && tag.RowsAffected() == 0 {
		err = in.stands(ctx, p.Fence)
	}
	if err == nil && tag.RowsAffected() == 0 { // the key is free, or p is there
		err = in.pool.QueryRow(ctx, in.parking.isParked, in.consumer, p.Source, p.MessageID, p.LetterID).Scan(&parked)
	} else {
		parked = true
	}
	if err != nil {
		return false, in.explain("park message "+p.MessageID+" behind others of its key", err)
	}
	return parked, nil
}

// parkArgs are the columns of p in the order of parkText, without the time.
func (in *Inbox) parkArgs(p *envelope.Parked) []any {
	return []any{
		in.consumer, p.Source, p.MessageID, p.LetterID, p.Durable, p.Key, p.Stream, p.Subject,
		p.StreamCreated, int64(p.Sequence), p.StoredAt, textOnly(p.Reason), headerFields(p.Header), p.Data, p.Attempts,
	}
}

// parkFencedArgs are the same with the lease, for unfencedText.
func (in *Inbox) parkFencedArgs(p *envelope.Parked) []any {
	return append(in.parkArgs(p), p.Fence.Lease, p.Fence.Term)
}

// textOnly drops what a text column cannot hold: foreign error texts may have it.
func textOnly(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// headerFields lists names and values in turn, sorted by name.
func headerFields(h envelope.Header) [][]byte {
	fields := make([][]byte, 0, 2*len(h))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			fields = append(fields, []byte(name), []byte(value))
		}
	}
	return fields
}

// headerOf is the inverse of headerFields.
func headerOf(fields [][]byte) envelope.Header {
	h := make(envelope.Header, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		name := string(fields[i])
		h[name] = append(h[name], string(fields[i+1]))
	}
	return h
}

// ReclaimParked ends all claims on parked messages of a durable, which are due then:
// who takes over an ordered durable has nobody beside it.
func (in *Inbox) ReclaimParked(ctx context.Context, durable string) error {
	if _, err := in.pool.Exec(ctx, in.parking.reclaim, in.consumer, durable); err != nil {
		return in.explain("end the claims on parked messages", err)
	}
	return nil
}

// ParkedKeys returns the ordering keys of which messages of a durable are parked.
func (in *Inbox) ParkedKeys(ctx context.Context, durable string) ([]string, error) {
	rows, err := in.pool.Query(ctx, in.parking.keys, in.consumer, durable)
	if err != nil {
		return nil, in.explain("read the parked keys", err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, in.explain("read the parked keys", err)
	}
	return keys, nil
}

// SurveyParked counts the parked messages of a durable, at most up to limit, and
// tells how long it is until the next of them is due; negative if one is. With
// heads, only the first message of each key counts as due, and none of a key that
// waits for an operator; where all do, it is an hour.
func (in *Inbox) SurveyParked(ctx context.Context, durable string, limit int, heads bool) (count int, next time.Duration, err error) {
	sql := in.parking.survey
	if heads {
		sql = in.parking.surveyHeads
	}
	var micros *int64
	if err := in.pool.QueryRow(ctx, sql, in.consumer, durable, limit).Scan(&count, &micros); err != nil {
		return 0, 0, in.explain("look for parked messages", err)
	}
	switch {
	case micros != nil:
		next = time.Duration(*micros) * time.Microsecond
	case count > 0:
		next = time.Hour
	}
	return count, next, nil
}

// ClaimParked hands at most limit messages of a durable that are due to the
// caller, for the time of the lease: nobody else gets them until it has passed.
// With heads, of each key only the first that is parked, and none of a key that
// waits for an operator, but the message that it waits for.
func (in *Inbox) ClaimParked(ctx context.Context, durable string, limit int, lease time.Duration, heads bool) ([]*envelope.Parked, error) {
	sql, claim := in.parking.claim, rand.Text()
	if heads {
		sql = in.parking.claimHeads
	}
	rows, err := in.pool.Query(ctx, sql, in.consumer, durable, limit, claim, lease.Microseconds())
	if err != nil {
		return nil, in.explain("claim parked messages", err)
	}
	due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*envelope.Parked, error) {
		p, fields, sequence := &envelope.Parked{Claim: claim}, [][]byte(nil), int64(0)
		err := row.Scan(&p.Source, &p.MessageID, &p.LetterID, &p.Durable, &p.Key, &p.Stream, &p.Subject,
			&p.StreamCreated, &sequence, &p.StoredAt, &p.Reason, &fields, &p.Data, &p.Attempts,
			&p.ReleasedBy, &p.ReleaseReason)
		p.Sequence, p.Header = uint64(sequence), headerOf(fields)
		return p, err
	})
	if err != nil {
		return nil, in.explain("claim parked messages", err)
	}
	return due, nil
}

// ExtendParked lets the caller's claim on p last for another lease. It does
// nothing if the claim was lost, or is protected by the handler's transaction.
func (in *Inbox) ExtendParked(ctx context.Context, p *envelope.Parked, lease time.Duration) error {
	return in.settleParked(ctx, p, "extend the claim on parked message ", in.parking.extend, lease.Microseconds())
}

// ReturnParked ends the caller's claim on p, which is due again after delay and
// keeps its Attempts and Reason. It does nothing if the claim was lost.
func (in *Inbox) ReturnParked(ctx context.Context, p *envelope.Parked, delay time.Duration) error {
	return in.settleParked(ctx, p, "give back parked message ", in.parking.giveBack, delay.Microseconds(), p.Attempts, textOnly(p.Reason))
}

// Unpark removes p, which is done. It does nothing if the claim was lost, or the
// transaction of the effect removed it.
func (in *Inbox) Unpark(ctx context.Context, p *envelope.Parked) error {
	return in.settleParked(ctx, p, "remove parked message ", in.parking.unpark)
}

func (in *Inbox) settleParked(ctx context.Context, p *envelope.Parked, what, sql string, more ...any) error {
	args := append([]any{in.consumer, p.Source, p.MessageID, p.LetterID, p.Claim}, more...)
	if _, err := in.pool.Exec(ctx, sql, args...); err != nil {
		return in.explain(what+p.MessageID, err)
	}
	return nil
}

// queueUnparking adds to a batch what removes the row of a parked message in the
// transaction of its effect, under the claim on it, and reports afterwards
// whether that was lost. Nothing is parked where k names no claim.
func (in *Inbox) queueUnparking(batch *pgx.Batch, k key) (lost *bool) {
	lost = new(bool)
	if k.claim == "" {
		return lost
	}
	sql := in.parking.unpark
	if k.LetterID != "" {
		sql = in.parking.hold
	}
	batch.Queue(sql, in.consumer, k.Source, k.id, k.LetterID, k.claim).Exec(func(tag pgconn.CommandTag) error {
		*lost = tag.RowsAffected() == 0
		return nil
	})
	return lost
}

// parkedElsewhere tells a replay that waits parked from one that was handled:
// the letter of the former must not be resolved.
func (in *Inbox) parkedElsewhere(ctx context.Context, tx pgx.Tx, k key) error {
	var parked bool
	err := tx.QueryRow(ctx, in.parking.isParked, in.consumer, k.Source, k.id, k.LetterID).Scan(&parked)
	switch {
	case err != nil:
		return in.explain("ask whether message "+k.ID+" is parked", err)
	case parked && k.claim == "":
		return in.parkedError(k)
	}
	return nil
}

// parkedError says that k is somebody else's to handle.
func (in *Inbox) parkedError(k key) error {
	return fmt.Errorf("inbox: consumer %s: message %s of %s: %w", in.consumer, k.ID, k.Source, envelope.ErrParked)
}
