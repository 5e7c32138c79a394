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
	require.ErrorIs(t, b.in.Once(t.Context(), replay, never(t)), envelope.ErrAlreadyProcessed)
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
func TestMarkingDeadDoesNotUndoHandled(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	require.NoError(t, b.in.Once(t.Context(), m, apply(m)))
	b.dead(t, m)
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
