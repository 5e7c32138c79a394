package main

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/topology"
)

// A letter that waits, or that an operator gave up, speaks for its message; one that
// is nowhere, or says that the effect is there, does not.
func TestReviveTakesWhatNoLetterSpeaksFor(t *testing.T) {
	t.Parallel()
	b, pool := setupDLQ(t), dvtest.Postgres(t)
	b.environment[envDatabase] = databaseURL(pool)
	dead := func(letter, age string) string {
		id := uuid.NewString()
		_, err := pool.Exec(t.Context(), `
insert into messaging.inbox_messages (consumer, source, message_id, bucket, handled_at, letter_id)
values ('plattform__servers', 'maskin', $1, 16, now() - $2::interval, $3)`, id, age, letter)
		require.NoError(t, err)
		return id
	}
	open, discarded, resolved := b.bury(t, failure(t, 1)), b.bury(t, failure(t, 2)), b.bury(t, failure(t, 3))
	_, err := b.queue.Discard(t.Context(), discarded, dlq.Request{By: "operator:ola", Reason: "x"})
	require.NoError(t, err)
	require.NoError(t, b.queue.Resolve(t.Context(), resolved, ""))
	dead(open, "1 hour")
	dead(discarded, "1 hour")
	of := dead(resolved, "2 hours")
	const nowhere = "l0123456789abcdef0123456789abcdef01234567"
	lost := dead(nowhere, "1 hour")
	dead(nowhere, "31 days") // it may have been purged

	revive := []string{"inbox", "revive", "--service", "plattform", "--reason", "DV-500", "--json"}
	for _, dry := range []bool{true, false} {
		args := revive
		if dry {
			args = append(revive[:len(revive):len(revive)], "--dry-run")
		}
		got := b.dvmsg(t, args...)
		require.Equal(t, exitOK, got.code, got.err)
		r := decode[inboxReviveResult](t, got)
		require.Equal(t, 4, r.Dead)
		require.Len(t, r.Messages, 2)
		require.Equal(t, []string{of, "resolved", lost, "lost"}, []string{r.Messages[0].ID, r.Messages[0].Letter, r.Messages[1].ID, r.Messages[1].Letter})
		if dry {
			require.Zero(t, r.Revived)
			require.Empty(t, got.err)
			continue
		}
		require.Equal(t, 2, r.Revived)
		require.Contains(t, got.err, nowhere, "the last trace of a letter")
		require.Contains(t, got.err, "operator:ola")
	}
	require.Contains(t, b.dvmsg(t, revive[:len(revive)-1]...).ok(t).out, "2 dead messages; the letter of each is there, nothing to revive")

	// Without the streams of letters there is none that could speak.
	for _, stream := range []string{"DV_PLATTFORM_DLQ", "DV_PLATTFORM_DLQOPS"} {
		require.NoError(t, b.js.DeleteStream(t.Context(), stream))
		dry := append(revive[:len(revive):len(revive)], "--dry-run")
		if stream == "DV_PLATTFORM_DLQ" {
			b.dvmsg(t, dry...).failed(t, exitFailure, "stream is missing: DV_PLATTFORM_DLQ")
			continue
		}
		r := decode[inboxReviveResult](t, b.dvmsg(t, dry...).ok(t))
		require.True(t, r.NoStreams)
		require.Len(t, r.Messages, 2)
	}
}

// One durable has handled something, one nothing, and one cannot go back.
func TestAllDurablesOfAContractFileAreResetByTheOperator(t *testing.T) {
	t.Parallel()
	b := setupDLQ(t)
	set := plattformSet()
	untouched, young := servers, servers
	untouched.Durable = "plattform__from_maskin__idle"
	young.Durable, young.Start = "plattform__from_maskin__young", topology.StartNew()
	set.Consumers = append(set.Consumers, untouched, young)
	require.NoError(t, topology.Ensure(t.Context(), b.js, set))
	b.publish(t, 3)
	for _, durable := range []string{servers.Durable, young.Durable} {
		c, err := b.js.Consumer(t.Context(), maskinEvents.Name, durable)
		require.NoError(t, err)
		batch, err := c.Fetch(3)
		require.NoError(t, err)
		for m := range batch.Messages() {
			require.NoError(t, m.DoubleAck(t.Context()))
		}
	}
	reset := []string{"durable", "reset", "--file", writeSet(t, set), "--from", "1", "--reason", "DV-500"}
	dry := b.dvmsg(t, append(reset, "--dry-run", "--json")...).failed(t, exitFailure, young.Durable)
	r := decode[durableResetAllResult](t, dry)
	require.Equal(t, []int{1, 1, 1}, []int{len(r.Resets), len(r.Untouched), len(r.Refused)})
	require.Equal(t, []string{servers.Durable, untouched.Durable, young.Durable}, []string{r.Resets[0].Name, r.Untouched[0].Name, r.Refused[0].Name})
	require.Zero(t, pending(t, b))
	out := b.dvmsg(t, reset...).failed(t, exitFailure, young.Durable).out
	require.Contains(t, out, "it hands plattform__from_maskin 3 messages of DV_MASKIN_EVT again, from message 1 on")
	require.Contains(t, out, "plattform__from_maskin__idle has handled nothing of DV_MASKIN_EVT from there on")
	require.Contains(t, out, "NOT RESET: plattform__from_maskin__young of DV_MASKIN_EVT: ")
	require.Equal(t, uint64(3), pending(t, b))
	b.dvmsg(t, append(reset[:3:3], writeSet(t, maskinSet()), "--from", "1", "--reason", "x")...).ok(t)
}

func TestAllStreamsThatWaitAreAccepted(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	e := environment{envDatabase: databaseURL(pool), envOperator: "operator:ola"}
	accept := []string{"outbox", "accept", "--all", "--reason", "DV-500", "--json"}
	e.dvmsg(t, accept...).failed(t, exitFailure, outbox.ErrNothingToAccept.Error())
	_, err := pool.Exec(t.Context(), `
insert into messaging.outbox_state (stream, acked_sequence, stream_created, recreated)
select s, 7, now() - interval '1 day', case when s <> 'DV_C_EVT' then now() end from unnest('{DV_A_EVT,DV_B_CMD,DV_C_EVT}'::text[]) s`)
	require.NoError(t, err)
	want := []string{"DV_A_EVT", "DV_B_CMD"}
	require.Equal(t, want, decode[outboxAcceptResult](t, e.dvmsg(t, append(accept, "--dry-run")...).ok(t)).Streams)
	require.Equal(t, want, decode[outboxAcceptResult](t, e.dvmsg(t, accept...).ok(t)).Streams, "the dry run changed nothing")
	e.dvmsg(t, accept...).failed(t, exitFailure, outbox.ErrNothingToAccept.Error())
}
