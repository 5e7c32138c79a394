package task_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
	"codeberg.org/dataverket/messaging/topology"
)

// Requirement K4: the command and its task are one transaction, and one has the id of
// the other.
func TestACommandAndItsTaskAreEnqueuedTogether(t *testing.T) {
	t.Parallel()
	pool, out := dvtest.Postgres(t), newOutbox(t, sentral)
	refused := errors.New("no")
	draft := provision.New("srv-1", provisionV1{Hostname: "db1"}, envelope.Project("p-1"), envelope.Datacenter("osl"))
	var id string
	for _, verdict := range []error{refused, nil} {
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) (err error) {
			id, err = task.Start(request(t), tx, out, draft, "Provision\ndb1")
			require.NoError(t, err)
			return verdict
		})
		require.ErrorIs(t, err, verdict)
		if verdict != nil {
			dvtest.RequireNotEnqueued(t, pool, provision)
			require.Empty(t, events(t, pool, id))
		}
	}
	sent := dvtest.RequireEnqueued(t, pool, provision)
	require.Equal(t, id, sent.Envelope.ID)
	all := events(t, pool, id)
	require.Equal(t, []string{"created 1", "queued 2"}, life(all))
	for _, e := range all {
		require.Equal(t, subject.Sentral, e.env.Source)
		require.Equal(t, []string{sent.Envelope.CorrelationID, "user:kari", "tenant-1", "p-1", "osl"},
			[]string{e.env.CorrelationID, string(e.env.Actor), e.env.TenantID, e.env.ProjectID, e.env.DatacenterID})
		require.Equal(t, provision.Name(), e.Kind)
		require.Equal(t, "srv-1", e.Resource)
	}
	require.Equal(t, "Provision db1", all[0].Title)
}

func TestATaskThatCannotBePublishedIsNotOpened(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	out := newOutbox(t, topology.Set{Service: subject.Sentral, Streams: []topology.Stream{commands}})
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := task.Start(request(t), tx, out, provision.New("srv-1", provisionV1{}), "")
		undeclared, ok := errors.AsType[*topology.UndeclaredError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, "dv.task.evt.created", undeclared.Subject.String())
		_, err = task.Start(request(t), tx, nil, provision.New("srv-1", provisionV1{}), "")
		require.ErrorContains(t, err, "the outbox is nil")
		return nil
	}))
	dvtest.RequireNotEnqueued(t, pool, provision)
}
