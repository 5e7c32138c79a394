package inbox_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

const otherLetter = "lffffffffffffffffffffffffffffffffffffffff"

// dead records m as a dead letter the way the consumer does.
func (b *bundle) dead(t *testing.T, m inbox.Message) {
	t.Helper()
	require.NoError(t, b.route().MarkDead(t.Context(), delivery(m, `{}`), letter))
}

// A row of docs/DELIVERY.md.
func TestDeadMessageHasNoEffectWhenItComesAgain(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	b.dead(t, m)
	require.ErrorIs(t, b.in.Once(t.Context(), m, never(t)), envelope.ErrAlreadyProcessed)
	require.Equal(t, 1, b.count(t, `select count(*) from messaging.inbox_messages where letter_id = $1`, letter))
}

func TestReplayThatNamesTheLetterHasItsEffectOnce(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	b.dead(t, m)
	replay := m
	replay.LetterID = letter
	require.NoError(t, b.in.Once(t.Context(), replay, apply(m)))
	require.ErrorIs(t, b.in.Once(t.Context(), replay, never(t)), envelope.ErrAlreadyProcessed)
	require.ErrorIs(t, b.in.Once(t.Context(), m, never(t)), envelope.ErrAlreadyProcessed)
	require.Equal(t, 1, b.effects(t))
}

func TestReplayThatNamesAnotherLetterHasNoEffect(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	b.dead(t, m)
	replay := m
	replay.LetterID = otherLetter
	require.Error(t, b.in.Once(t.Context(), replay, never(t)))
}

// The consumer resolves a letter whose replay was already processed. Nothing was
// processed here, so the replay has to fail, for good and naming the letter that
// would have the effect.
func TestReplayOfAMessageDeadUnderAnotherLetterFailsVisibly(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	b.dead(t, m)
	replay := delivery(m, `{}`)
	replay.LetterID = otherLetter
	err := b.route().Handle(t.Context(), replay)
	require.ErrorIs(t, err, inbox.ErrDeadUnderOtherLetter)
	require.NotErrorIs(t, err, envelope.ErrAlreadyProcessed)
	require.True(t, envelope.IsPermanent(err))
	require.ErrorContains(t, err, letter)

	require.NoError(t, b.route().MarkDead(t.Context(), replay, otherLetter), "what the consumer does with it then")
	replay.LetterID = letter
	require.NoError(t, b.route().Handle(t.Context(), replay), "does not take the message from its letter")
	replay.LetterID = otherLetter
	require.ErrorIs(t, b.route().Handle(t.Context(), replay), envelope.ErrAlreadyProcessed, "now the effect is there")
	require.Equal(t, 1, b.effects(t))
}

// A dead message that is handled after a crash would have its effect behind the
// operator's back. The setting counts at the end of the statement's transaction,
// where a deferred trigger notes it.
func TestMarkingDeadIsDurableWhereTheRoleIsAsynchronous(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	_, err := b.pool.Exec(t.Context(), `
create table noted (setting text);
create function note() returns trigger language plpgsql as
$$ begin insert into noted values (current_setting('synchronous_commit')); return null; end $$;
create constraint trigger note after insert or update on messaging.inbox_messages
deferrable initially deferred for each row execute function note()`)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `alter database `+b.pool.Config().ConnConfig.Database+` set synchronous_commit = 'off'`)
	require.NoError(t, err)
	b.pool.Reset()
	b.dead(t, m)
	require.Equal(t, 1, b.count(t, `select count(*) from noted where setting = 'on'`))
}

// A letter of a message that could not be decoded left no row; its replay, with
// corrected code, is the first time that anybody sees the message.
func TestReplayWithoutARowHasItsEffect(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	m.LetterID = letter
	require.NoError(t, b.in.Once(t.Context(), m, apply(m)))
	require.Equal(t, 1, b.effects(t))
}

func TestFailedReplayLeavesTheMessageDead(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	b.dead(t, m)
	d := delivery(m, `{}`)
	d.LetterID = letter
	broken := inbox.On(b.in, provisioned, failing(errors.New("broken")))
	require.Error(t, broken.Handle(t.Context(), d))
	require.ErrorIs(t, b.in.Once(t.Context(), m, never(t)), envelope.ErrAlreadyProcessed)
	require.NoError(t, b.route().Handle(t.Context(), d), "and the next replay revives it")
}

// Another copy was handled while this one failed for the last time: the letter
// is stored, but what has its effect stays handled.
func TestMarkingDeadSaysThatTheEffectIsThereAndKeepsIt(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	require.NoError(t, b.in.Once(t.Context(), m, apply(m)))
	for range 2 {
		err := b.route().MarkDead(t.Context(), delivery(m, `{}`), letter)
		require.ErrorIs(t, err, envelope.ErrAlreadyProcessed, "so that nobody keeps its letter open")
	}
	m.LetterID = letter
	require.ErrorIs(t, b.in.Once(t.Context(), m, never(t)), envelope.ErrAlreadyProcessed)
	require.Equal(t, 1, b.effects(t))
}

func TestMarkingDeadTwiceIsHarmless(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	b.dead(t, m)
	b.dead(t, m)
	require.Equal(t, 1, b.rows(t))
}
