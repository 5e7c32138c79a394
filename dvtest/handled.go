package dvtest

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/subject"
)

// Option tunes [RequireHandledOnce]: [Within] and [InSchema].
type Option interface {
	tune(*handledSearch)
}

func (p Patience) tune(s *handledSearch) { s.patience = p }
func (p Place) tune(s *handledSearch)    { s.place = p }

// handledSearch is one message of one inbox.
type handledSearch struct {
	pool         *pgxpool.Pool
	consumer, id string
	source       subject.Service
	patience     Patience
	place        Place
	schema       string // quoted

	// Of the last look.
	handled bool
	letter  string // of a dead letter
	err     error
}

// RequireHandledOnce waits until the inbox called consumer has handled the message
// messageID of source: until its effect is committed, which the inbox does once
// per message, however often it is delivered. consumer is the name given to
// inbox.New, not the durable's; source and messageID are the envelope's.
//
// It fails after [Within] when the message is not handled or is a dead letter,
// whose id it then says. It does not fail earlier, since a replay of the letter
// may be on its way.
func RequireHandledOnce(tb testing.TB, pool *pgxpool.Pool, consumer string, source subject.Service, messageID string, opts ...Option) {
	tb.Helper()
	s := &handledSearch{pool: pool, consumer: consumer, id: messageID, source: source, patience: Within(DefaultWait)}
	for _, o := range opts {
		o.tune(s)
	}
	s.check(tb)
	s.schema = s.place.quoted(tb)
	s.patience.await(tb, s.look)
	if !s.handled {
		tb.Fatalf("dvtest: not handled by inbox %s: message %s of %s\n%s", s.consumer, s.id, s.source, s.reason(tb))
	}
}

// uuidText is what an envelope's id looks like.
var uuidText = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// check refuses what no message can fit, before it is waited for.
func (s *handledSearch) check(tb testing.TB) {
	tb.Helper()
	var faults []error
	if s.pool == nil {
		faults = append(faults, errors.New("dvtest: RequireHandledOnce: pool is nil; pass the one of inbox.New"))
	}
	if !s.source.Valid() {
		faults = append(faults, errors.New("dvtest: RequireHandledOnce: source is no service; pass the envelope's Source"))
	}
	if !uuidText.MatchString(s.id) {
		faults = append(faults, fmt.Errorf("dvtest: RequireHandledOnce: message id %q is no UUID; pass the envelope's ID", s.id))
	}
	if err := errors.Join(faults...); err != nil {
		tb.Fatalf("%v", err)
	}
}

// look asks for the row and reports whether waiting has an end.
func (s *handledSearch) look(ctx context.Context) (done bool) {
	var letter string
	err := s.pool.QueryRow(ctx, `select coalesce(letter_id, '') from `+s.schema+`.inbox_messages
where consumer = $1 and source = $2 and message_id = $3`, s.consumer, s.source.String(), s.id).Scan(&letter)
	s.handled, s.letter, s.err = err == nil && letter == "", letter, nil
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		s.err = s.place.explain(err)
	}
	return s.handled || lacksTables(err)
}

// reason says what the last look saw.
func (s *handledSearch) reason(tb testing.TB) string {
	tb.Helper()
	switch {
	case s.err != nil:
		return "the inbox cannot be read: " + s.err.Error()
	case s.letter != "":
		return "it is dead letter " + s.letter + "; dvtest.RequireDeadLettered shows its cause"
	}
	ctx, cancel := context.WithTimeout(tb.Context(), lookGrace)
	defer cancel()
	others, err := s.others(ctx)
	if err != nil {
		return "the inbox cannot be read: " + s.place.explain(err).Error()
	}
	return others
}

// others says what else is there: usually a name is wrong.
func (s *handledSearch) others(ctx context.Context) (string, error) {
	same, err := s.lines(ctx, `select 'inbox ' || consumer || ', source ' || source ||
case when letter_id is null then ': handled' else ': dead letter ' || letter_id end
from `+s.schema+`.inbox_messages where message_id = $1 order by 1 limit 20`, s.id)
	if err != nil || len(same) > 0 {
		return "this id is there under other names:\n  " + strings.Join(same, "\n  "), err
	}
	inboxes, err := s.lines(ctx, `select 'inbox ' || consumer || ': ' || count(*) filter (where letter_id is null) || ' handled, '
|| count(letter_id) || ' dead' from `+s.schema+`.inbox_messages group by consumer order by 1 limit 20`)
	if err != nil || len(inboxes) > 0 {
		return "no inbox knows this id; there are:\n  " + strings.Join(inboxes, "\n  "), err
	}
	return s.place.String() + ".inbox_messages is empty: nothing was handled. Is the message published, is the consumer running, " +
		"and does its route come from inbox.On?", nil
}

func (s *handledSearch) lines(ctx context.Context, sql string, args ...any) ([]string, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
