package outbox_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
)

// attic is an archive whose next answers a test decides.
type attic struct {
	mu      sync.Mutex
	answer  func(context.Context, []outbox.ArchivedEvent) error // nil: take them
	batches [][]outbox.ArchivedEvent                            // that were taken
}

func (s *attic) hook(ctx context.Context, events []outbox.ArchivedEvent) error {
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	var err error
	if answer != nil {
		err = answer(ctx, events)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		return err
	}
	s.batches = append(s.batches, events)
	return nil
}

func (s *attic) set(answer func(context.Context, []outbox.ArchivedEvent) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *attic) taken() []outbox.ArchivedEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.batches...)
}

func TestArchiveSeesEveryEventAsItWasBeforeItIsDeleted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var s attic
	b.keeper(t, outbox.RelayConfig{Archive: s.hook}, 4)
	b.enqueueEach(t, map[string]int{}, 12)
	b.exec(t, `
insert into messaging.outbox_parked (stream, ordering_key, seq, id, subject, cause)
select stream, ordering_key, seq, id, subject, 'too large' from messaging.outbox_events where seq = 9`)
	b.exec(t, `
insert into messaging.outbox_discarded (stream, id, seq, ordering_key, subject, cause, discarded_by, reason)
select stream, id, seq, ordering_key, subject, 'too large', 'operator:ola', 'a test' from messaging.outbox_events where seq = 3`)
	type stored struct {
		seq          int64
		id, headers  string
		subject, key string
		envelope     []byte
		created      time.Time
	}
	var want []stored
	rows, err := b.pool.Query(t.Context(), "select seq, id::text, headers, subject, ordering_key, envelope, created_at from messaging.outbox_events order by seq")
	require.NoError(t, err)
	for rows.Next() {
		var r stored
		require.NoError(t, rows.Scan(&r.seq, &r.id, &r.headers, &r.subject, &r.key, &r.envelope, &r.created))
		want = append(want, r)
	}
	require.NoError(t, rows.Err())
	want = slices.Delete(want[:11], 8, 9)
	b.age(t, 0)
	b.requireSeqs(t, 9, 12)
	got := s.taken()
	require.Len(t, got, len(want))
	for i, e := range got {
		headers, err := envelope.UnmarshalHeader(want[i].headers)
		require.NoError(t, err)
		require.Equal(t, want[i], stored{e.Seq, e.ID, want[i].headers, e.Subject, e.OrderingKey, e.Envelope, e.CreatedAt})
		require.Equal(t, headers, envelope.Header(e.Headers))
		require.Equal(t, events, e.Stream)
		require.Equal(t, e.Seq == 3, e.Discarded)
	}
	for _, batch := range s.batches {
		require.LessOrEqual(t, len(batch), 4)
	}
}

// What the archive does not take stays, and an operator hears of it; messages
// flow all the same.
func TestEventsThatTheArchiveRefusesStay(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(context.Context, []outbox.ArchivedEvent) error{
		"an error": func(context.Context, []outbox.ArchivedEvent) error { return errors.New("the attic is full") },
		"a panic":  func(context.Context, []outbox.ArchivedEvent) error { panic("the attic is full") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var s attic
			calls := 0
			s.set(func(ctx context.Context, events []outbox.ArchivedEvent) error {
				if calls++; calls == 2 {
					return refuse(ctx, events)
				}
				return nil
			})
			k := b.keeper(t, outbox.RelayConfig{Archive: s.hook}, 3)
			counter := map[string]int{}
			b.enqueueEach(t, counter, 10)
			b.age(t, 0)
			b.requireSeqs(t, 10) // the second batch came again
			require.Equal(t, numbers64(1, 9), seqsOf(s.taken()))

			s.set(refuse)
			b.enqueueEach(t, counter, 10)
			b.age(t, 0)
			require.Eventually(t, func() bool { return k.relay.Alarm() != nil }, 20*time.Second, time.Millisecond)
			require.ErrorContains(t, k.relay.Alarm(), "the attic is full")
			require.ErrorContains(t, k.relay.Alarm(), events)
			requireReady(t, k.relay)
			b.requireSeqs(t, numbers64(10, 20)...)
			b.enqueueEach(t, counter, 5)
			b.requireStored(t, events, 25)

			s.set(nil)
			b.age(t, 0)
			b.requireSeqs(t, 25)
			require.Eventually(t, func() bool { return k.relay.Alarm() == nil }, 20*time.Second, time.Millisecond)
			require.Equal(t, numbers64(1, 24), seqsOf(s.taken()))
		})
	}
}

func seqsOf(events []outbox.ArchivedEvent) []int64 {
	var seqs []int64
	for _, e := range events {
		seqs = append(seqs, e.Seq)
	}
	return seqs
}

// A hook that hangs keeps neither messages from flowing nor the relay from
// stopping, also if it ignores its context.
func TestArchiveThatHangsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	for name, deaf := range map[string]bool{"it listens": false, "it does not listen": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			entered, leave, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
			hook := func(ctx context.Context, _ []outbox.ArchivedEvent) error {
				defer close(left)
				close(entered)
				if deaf {
					<-leave
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}
			k := b.keeper(t, outbox.RelayConfig{Archive: hook}, 100)
			counter := map[string]int{}
			b.enqueueEach(t, counter, 3)
			b.age(t, 0)
			<-entered
			b.enqueueEach(t, counter, 5)
			b.requireStored(t, events, 8)
			k.stop()
			st, err := outbox.ReadStatus(t.Context(), b.pool, "")
			require.NoError(t, err)
			require.False(t, st.Led, "the lease was not handed over")
			require.Len(t, b.seqs(t), 8)
			close(leave)
			<-left
		})
	}
}

// Who lost the lease, or the anchor, while the archive worked deletes nothing.
func TestNothingIsDeletedAfterTheLeaseOrTheAnchorIsLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]string{
		"another instance leads": "update messaging.outbox_lease set holder = 'other', term = term + 1, expires_at = clock_timestamp() + interval '1 hour'",
		"the database crashed":   "delete from messaging.outbox_alive",
		"the cursor went back":   "delete from messaging.outbox_anchors",
		"a key was parked": `insert into messaging.outbox_parked (stream, ordering_key, seq, id, subject, cause)
			select stream, ordering_key, 1, id, subject, 'a test' from messaging.outbox_events where seq <= 3`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var s attic
			var once sync.Once
			s.set(func(context.Context, []outbox.ArchivedEvent) error {
				var err error
				once.Do(func() { _, err = b.pool.Exec(t.Context(), lose) })
				return err
			})
			k := b.keeper(t, outbox.RelayConfig{Archive: s.hook, LeaseTTL: time.Minute}, 100)
			b.enqueueEach(t, map[string]int{}, 10)
			b.age(t, 0)
			require.Eventually(t, func() bool { return len(s.taken()) > 0 }, 20*time.Second, time.Millisecond)
			k.await(t)
			require.NoError(t, k.relay.Alarm())
			k.stop()
			require.Len(t, b.seqs(t), 10)
		})
	}
}

func TestStandbyDeletesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	counter := map[string]int{}
	leader := b.newRelay(t, outbox.RelayConfig{Holder: "leader", LeaseTTL: time.Minute, Retention: -1})
	leader.AnchorEvery(0)
	run(t, leader)
	b.enqueueEach(t, counter, 10)
	b.age(t, 0)
	var s attic
	standby := b.newRelay(t, outbox.RelayConfig{Holder: "standby", LeaseTTL: time.Second, Archive: s.hook})
	standby.Retain(24*time.Hour, time.Millisecond, 100)
	run(t, standby)
	requireReady(t, standby)
	b.enqueueEach(t, counter, 10)
	require.Empty(t, s.taken())
	require.Len(t, b.seqs(t), 20, "and a negative Retention deletes nothing")
}
