package inbox

import (
	"context"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// On routes messages of type t to h, which applies their effect in tx: once per
// (consumer, source, message id), together with the row that remembers it. ctx
// is the delivery's: it carries the origin, so outbox.Enqueue in tx is correlated
// without a parameter.
//
// h follows the rules of [Inbox.Once]. Its error rolls everything back and is the
// verdict, as for consumer.On. Data that does not fit T is a dead letter without
// a transaction; older versions that t carries forward come to h as T.
func On[T any](in *Inbox, t envelope.Type[T], h func(context.Context, pgx.Tx, envelope.Received[T]) error) envelope.Route {
	route := envelope.Route{Type: t.Name(), Version: t.Version(), Older: t.Older()}
	if in == nil || h == nil {
		return route // without a handler, so that consumer.New refuses it by name
	}
	route.Handle = func(ctx context.Context, d *envelope.Delivery) error {
		data, err := t.Decode(d.Envelope)
		if err != nil {
			return envelope.Permanent(err)
		}
		return in.Once(ctx, messageOf(d), func(ctx context.Context, tx pgx.Tx) error {
			return h(ctx, tx, envelope.Received[T]{Delivery: d, Data: data})
		})
	}
	route.MarkDead = in.buried
	return route
}

// OnAny routes to h every message whose type no other route of the consumer names, once
// each: for audits and copies, which do not look into the data. See consumer.OnAny;
// otherwise it is like [On].
func OnAny(in *Inbox, h func(context.Context, pgx.Tx, *envelope.Delivery) error) envelope.Route {
	route := envelope.Route{Type: envelope.AnyType}
	if in == nil || h == nil {
		return route // without a handler, so that consumer.New refuses it by name
	}
	route.Handle = func(ctx context.Context, d *envelope.Delivery) error {
		return in.Once(ctx, messageOf(d), func(ctx context.Context, tx pgx.Tx) error { return h(ctx, tx, d) })
	}
	route.MarkDead = in.buried
	return route
}

// messageOf names a delivery. A replay that is no longer wanted is told by its
// letter.
func messageOf(d *envelope.Delivery) Message {
	return Message{Source: d.Envelope.Source.String(), ID: d.Envelope.ID, LetterID: d.LetterID, claim: d.Claim, fence: d.Fence,
		scope: scope{d.Envelope.TenantID, true}}
}

// buried records that d became the dead letter letterID, so that neither a
// redelivery nor a repeat in the stream has an effect behind the operator's
// back. It is a statement of its own: it waits for a copy that is being handled,
// and changes nothing if that succeeds. Then the effect is there, which matches
// envelope.ErrAlreadyProcessed: a letter that stayed open for it would have it
// applied again by a replay beyond the horizon.
func (in *Inbox) buried(ctx context.Context, d *envelope.Delivery, letterID string) error {
	k, err := in.key(messageOf(d))
	if err != nil {
		return err
	}
	done, err := in.pool.Exec(ctx, k.sql.markDead, in.consumer, k.Source, k.id, letterID, k.LetterID != "")
	if err != nil {
		return in.explain("mark message "+k.ID+" dead", err)
	}
	if done.RowsAffected() > 0 {
		return nil
	}
	var under *string
	if err := in.pool.QueryRow(ctx, k.sql.deadUnder, in.consumer, k.Source, k.id).Scan(&under); err != nil {
		return in.explain("ask for the letter of message "+k.ID, err)
	}
	if under == nil {
		return in.processed(k)
	}
	return nil // a replay that was refused for the sake of another letter
}
