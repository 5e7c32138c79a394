package history_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/history"
	"codeberg.org/dataverket/messaging/subject"
)

// is reports whether err holds an E.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// events is a query for everything of maskin.
func events() history.Query { return history.Query{Filter: subject.EventsOf(subject.Maskin)} }

func TestTheHistoryOfASubjectIsReadInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	added, removed := eventType("added", 1), eventType("removed", 1)
	b.publish(t, added, "server-1", 150)
	b.publish(t, removed, "server-1", 2)
	b.publish(t, added, "server-2", 1)
	var numbers []int
	for m, err := range history.ReadAs(t.Context(), b.js, added, history.Query{}) {
		require.NoError(t, err)
		require.Equal(t, source, m.Stream)
		require.Equal(t, added.Subject(), m.Subject)
		numbers = append(numbers, m.Data.N)
	}
	require.Len(t, numbers, 151, "more than a page")
	require.Equal(t, []int{1, 2, 150, 153}, []int{numbers[0], numbers[1], numbers[149], numbers[150]})

	q := events()
	q.Resource = "server-2"
	got, err := b.read(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, []uint64{153}, got)
	q = events()
	q.From = 152
	got, err = b.read(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, []uint64{152, 153}, got)
	q = events()
	q.Since, q.Until = b.storedAt(t, 3), b.storedAt(t, 5)
	got, err = b.read(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, []uint64{3, 4}, got)
	for _, q := range []history.Query{{CorrelationID: "other"}, {TenantID: "tenant-2"}} {
		q.Filter = events().Filter
		got, err := b.read(t.Context(), q)
		require.NoError(t, err)
		require.Empty(t, got)
	}
	require.Empty(t, b.consumers(t))
}

// A bound that ends a read early says so, and where to go on; one that is exactly
// enough does not.
func TestABoundThatEndsAReadIsSaid(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(t, eventType("added", 1), "server-1", 5)
	for limit, q := range map[string]history.Query{"Max": {Max: 2}, "MaxRead": {MaxRead: 2}} {
		q.Filter = events().Filter
		var got []uint64
		for rounds := 0; ; rounds++ {
			part, err := b.read(t.Context(), q)
			got = append(got, part...)
			if err == nil {
				break
			}
			ended, ok := errors.AsType[*history.LimitError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, limit, ended.Limit)
			q.From = ended.Next
			require.Less(t, rounds, 3)
		}
		require.Equal(t, []uint64{1, 2, 3, 4, 5}, got)
		q.Max, q.MaxRead, q.From = 5, 5, 0
		_, err := b.read(t.Context(), q)
		require.NoError(t, err)
	}
	q := events()
	q.MaxRead, q.Resource = 3, "server-2"
	got, err := b.read(t.Context(), q)
	require.True(t, is[*history.LimitError](err), "what does not match is read all the same")
	require.Empty(t, got)
}

// However a read ends, nothing of it is left on the server.
func TestNoReadLeavesAConsumerBehind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(t, eventType("added", 1), "server-1", 200)
	for range history.Read(t.Context(), b.js, events()) {
		break
	}
	require.Empty(t, b.consumers(t), "left early")

	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	cause := errors.New("enough")
	n := 0
	var last error
	for _, err := range history.Read(ctx, b.js, events()) {
		if n++; n == 10 {
			require.Len(t, b.consumers(t), 1)
			cancel(cause)
		}
		last = err
	}
	require.ErrorIs(t, last, cause)
	require.Less(t, n, 200)
	require.Empty(t, b.consumers(t), "ended by its context")

	slow := events()
	slow.Timeout = 200 * time.Millisecond
	n = 0
	for _, err := range history.Read(t.Context(), b.js, slow) {
		if n++; n == 1 {
			timer := time.NewTimer(300 * time.Millisecond)
			<-timer.C // somebody who takes his time with a message
		}
		last = err
	}
	ended, ok := errors.AsType[*history.LimitError](last)
	require.True(t, ok, "%v", last)
	require.Equal(t, "Timeout", ended.Limit)
	require.Equal(t, uint64(n), ended.Next, "the error is the n-th")
	require.Empty(t, b.consumers(t), "ended by its timeout")

	require.Panics(t, func() {
		for range history.Read(t.Context(), b.js, events()) {
			panic("of the loop")
		}
	})
	require.Empty(t, b.consumers(t), "ended by a panic")
}

// A read ends, however fast others write.
func TestWhatIsStoredMeanwhileIsNotRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	added := eventType("added", 1)
	b.publish(t, added, "server-1", 70) // more than a page
	n := 0
	for _, err := range history.Read(t.Context(), b.js, events()) {
		require.NoError(t, err)
		n++
		b.publish(t, added, "server-1", 1)
	}
	require.Equal(t, 70, n)
}

// What no handler would see is named in its place, and hides nothing behind it.
func TestWhatIsNoMessageIsNamedAndPassed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	added := eventType("added", 1)
	b.publish(t, added, "server-1", 1)
	b.send(t, &nats.Msg{Subject: added.Subject().String(), Data: []byte("no envelope")})
	ctx := envelope.WithOrigin(t.Context(), envelope.NewOrigin("operator:kari", "tenant-1"))
	m, err := envelope.New(ctx, subject.Maskin, added.New("server-1", server{1}))
	require.NoError(t, err)
	data, err := m.Envelope.Encode()
	require.NoError(t, err)
	forged := &nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data}
	forged.Header.Set(envelope.HeaderTenantID, "tenant-2")
	b.send(t, forged)
	b.publish(t, eventType("added", 2), "server-1", 1)
	b.publish(t, added, "server-1", 1)

	var right, wrong []uint64
	for m, err := range history.ReadAs(t.Context(), b.js, added, history.Query{}) {
		require.NotNil(t, m.Delivery)
		if err == nil {
			right = append(right, m.Sequence)
			continue
		}
		e, ok := errors.AsType[*history.MessageError](err)
		require.True(t, ok, "%v", err)
		require.NotContains(t, err.Error(), "no envelope")
		require.Equal(t, m.Sequence, e.Sequence)
		wrong = append(wrong, e.Sequence)
	}
	require.Equal(t, []uint64{1, 5}, right)
	require.Equal(t, []uint64{2, 3, 4}, wrong)
}

// Whose message it is that does not decode is not known: it belongs to no resource,
// workflow or tenant that is asked for, and takes no place among theirs.
func TestWhatDoesNotDecodeIsNobodys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	added := eventType("added", 1)
	for range 3 {
		b.send(t, &nats.Msg{Subject: added.Subject().String(), Data: []byte("no envelope")})
	}
	b.publish(t, added, "server-1", 1)
	for _, q := range []history.Query{{Resource: "server-1"}, {TenantID: "tenant-1"}} {
		q.Filter, q.Max = events().Filter, 1
		got, err := b.read(t.Context(), q)
		require.NoError(t, err)
		require.Equal(t, []uint64{4}, got)
	}
	q := events()
	q.CorrelationID = "other"
	got, err := b.read(t.Context(), q)
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestAQueryThatMeansNothingIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	q := history.Query{From: 1, Since: time.Unix(9, 0), Until: time.Unix(9, 0), Max: -1, MaxRead: -1, Timeout: -1}
	_, err := b.read(t.Context(), q)
	for _, field := range []string{"Filter", "From", "Until", "Max", "MaxRead", "Timeout"} {
		require.ErrorContains(t, err, "Query."+field)
	}
	_, err = b.read(t.Context(), history.Query{Filter: subject.AllDeadLetters()})
	require.ErrorContains(t, err, "Query.Stream")
	_, err = b.read(t.Context(), history.Query{Filter: subject.CommandsOf(subject.Maskin)})
	require.ErrorIs(t, err, history.ErrNoStream)
	require.ErrorContains(t, err, "DV_MASKIN_CMD")
	_, err = b.read(t.Context(), history.Query{Filter: subject.TaskEvents()})
	require.ErrorContains(t, err, "DV_TASK_EVT")
	for _, err := range history.Read(t.Context(), nil, events()) {
		require.True(t, strings.Contains(err.Error(), "js: is nil"))
	}
}
