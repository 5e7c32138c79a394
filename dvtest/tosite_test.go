package dvtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// What a sender sends to another site is found, and handed to the handler there as it
// arrives.
func TestACommandToAnotherSiteIsFoundAndDeliveredAsItArrives(t *testing.T) {
	t.Parallel()
	n := topology.Network{
		Sites: []topology.Site{{Name: "osl1", Domain: "osl1", Accepts: []string{"nats.osl1.example:7422"}}, {Name: "trd1", Domain: "trd1"}},
		Flows: []topology.Flow{{From: "osl1", To: "trd1", Cargo: topology.CargoCommands, Service: subject.Maskin}},
	}
	pool := dvtest.Postgres(t)
	out := newOutbox(t, n.At("osl1", topology.Set{Service: subject.Maskin, Streams: []topology.Stream{maskinCommands}}), outbox.Config{})
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return out.Enqueue(request(t), tx,
			ProvisionServer.New("server-1", ServerProvisionedV1{}, envelope.ToSite("trd1")),
			ProvisionServer.New("server-2", ServerProvisionedV1{}, envelope.ToSite("osl1")))
	}))
	away := dvtest.RequireEnqueued(t, pool, ProvisionServer, dvtest.ToSite("trd1"))
	require.Equal(t, "DV_MASKIN_CMD_TO_TRD1", away.Stream)
	require.Equal(t, "server-2", dvtest.RequireEnqueued(t, pool, ProvisionServer, dvtest.ToSite("")).Envelope.Subject)
	dvtest.RequireNotEnqueued(t, pool, ProvisionServer, dvtest.ToSite("bgo1"))

	var on subject.Subject
	route := consumer.On(ProvisionServer, func(_ context.Context, m envelope.Received[ServerProvisionedV1]) error {
		on = m.Subject
		return nil
	})
	require.NoError(t, dvtest.Deliver(t, route, away.Message()))
	require.Equal(t, ProvisionServer.Subject(), on)
}
