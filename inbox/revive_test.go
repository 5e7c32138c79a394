package inbox_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// The letter is lost with its stream, so no replay can name it. What the operator
// revives is handled by its next copy, once, with all of its attempts.
func TestARevivedMessageIsHandledByItsNextCopyOnce(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	other := inbox.Message{Source: m.Source, ID: uuid.Must(uuid.NewV7()).String()} // in a partition of the ring
	for _, dead := range []inbox.Message{m, other} {
		b.exec(t, `insert into messaging.inbox_attempts (consumer, source, message_id, starts, ended) values ('plattform__servers', $1, $2, 20, 20)`, dead.Source, dead.ID)
		b.dead(t, dead)
	}
	handled := newMessage()
	require.NoError(t, b.in.Once(t.Context(), handled, apply(handled)))
	require.ErrorIs(t, b.in.Once(t.Context(), m, never(t)), envelope.ErrAlreadyProcessed)

	dead, err := inbox.ListDead(t.Context(), b.pool, "", time.Time{})
	require.NoError(t, err)
	require.Len(t, dead, 2)
	require.WithinDuration(t, time.Now(), dead[0].At, time.Minute)
	require.Equal(t, inbox.Dead{Consumer: "plattform__servers", Source: m.Source, ID: m.ID, LetterID: letter, At: dead[0].At}, dead[0])
	none, err := inbox.ListDead(t.Context(), b.pool, "", time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Empty(t, none)

	var log strings.Builder
	request := inbox.ReviveRequest{By: "operator:ola", Reason: "DV-412", Logger: slog.New(slog.NewTextHandler(&log, nil))}
	n, err := inbox.Revive(t.Context(), b.pool, "", dead, request)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Contains(t, log.String(), letter, "the log is all that is left of a lost letter")
	require.Contains(t, log.String(), "operator:ola")
	require.Zero(t, b.count(t, `select count(*) from messaging.inbox_attempts`))
	for range 2 {
		n, err = inbox.Revive(t.Context(), b.pool, "", dead, request)
		require.NoError(t, err)
		require.Zero(t, n, "there is nothing left to revive")
		_ = b.in.Once(t.Context(), m, apply(m))
	}
	require.Equal(t, 2, b.effects(t), "of the handled one and of the revived one")
}

// Between the listing and the act an operator replayed one letter, and another
// message died anew.
func TestReviveLeavesAloneWhatChangedMeanwhile(t *testing.T) {
	t.Parallel()
	b, replayed, again := setup(t), newMessage(), newMessage()
	for _, m := range []inbox.Message{replayed, again} {
		b.dead(t, m)
	}
	dead, err := inbox.ListDead(t.Context(), b.pool, "", time.Time{})
	require.NoError(t, err)
	replayed.LetterID = letter
	require.NoError(t, b.in.Once(t.Context(), replayed, apply(replayed)))
	require.NoError(t, b.route().MarkDead(t.Context(), delivery(again, `{}`), otherLetter))

	n, err := inbox.Revive(t.Context(), b.pool, "", dead, inbox.ReviveRequest{By: "operator:ola", Reason: "DV-412", Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.Zero(t, n)
	replayed.LetterID = ""
	require.ErrorIs(t, b.in.Once(t.Context(), replayed, never(t)), envelope.ErrAlreadyProcessed)
	require.ErrorIs(t, b.in.Once(t.Context(), again, never(t)), envelope.ErrAlreadyProcessed)
}

func TestReviveRefusesWhatItCannotAccountFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := inbox.Revive(t.Context(), b.pool, "Bad-Name", nil, inbox.ReviveRequest{})
	for _, fault := range []string{"schema", "by is empty", "reason is empty"} {
		require.ErrorContains(t, err, fault)
	}
	_, err = inbox.Revive(t.Context(), b.pool, "", []inbox.Dead{{ID: "x"}}, inbox.ReviveRequest{By: "operator:ola", Reason: "DV-412"})
	require.ErrorContains(t, err, `"x" is no message id`)
	_, err = inbox.ListDead(t.Context(), b.pool, "Bad-Name", time.Time{})
	require.ErrorContains(t, err, "schema")
}
