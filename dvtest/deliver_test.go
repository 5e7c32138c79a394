package dvtest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

type (
	received = envelope.Received[ServerProvisionedV1]
	handler  = func(context.Context, received) error
)

// answering is a stateless handler with one answer.
func answering(err error) handler { return func(context.Context, received) error { return err } }

func TestVerdictOfTheHandlerIsReturned(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	verdict := func(err error) error {
		return dvtest.Deliver(t, consumer.On(ServerProvisioned, answering(err)), provisioned("server-1"))
	}
	require.NoError(t, verdict(nil))
	require.Equal(t, broken, verdict(broken))
	require.True(t, envelope.IsPermanent(verdict(envelope.Permanent(broken))))
	retry, ok := errors.AsType[*envelope.RetryAfterError](verdict(envelope.RetryAfter(time.Minute, nil)))
	require.True(t, ok)
	require.Equal(t, time.Minute, retry.After)
}

func TestHandlerMeetsTheMessageAsInProduction(t *testing.T) {
	t.Parallel()
	origin := envelope.NewOrigin("user:kari", "tenant-7")
	origin.Traceparent = traceparent
	var got received
	var carried envelope.Origin
	route := consumer.On(ServerProvisioned, func(ctx context.Context, m received) error {
		got = m
		carried, _ = envelope.OriginFrom(ctx)
		return nil
	})
	require.NoError(t, dvtest.Deliver(t, route, provisioned("server-1"), dvtest.WithOrigin(origin), dvtest.AtAttempt(3)))
	require.Equal(t, secret, got.Data.Hostname)
	require.Equal(t, ServerProvisioned.Subject(), got.Subject)
	require.Equal(t, "DV_MASKIN_EVT", got.Stream)
	require.Equal(t, 3, got.Attempt)
	require.True(t, got.Redelivered)
	require.Equal(t, "tenant-7", got.Envelope.TenantID)
	dvtest.RequireHeadersOf(t, got.Header, got.Envelope)
	require.Equal(t, envelope.Origin{
		CorrelationID: origin.CorrelationID, CausationID: got.Envelope.ID, Actor: "user:kari",
		TenantID: "tenant-7", Traceparent: traceparent,
	}, carried)
}

func TestCommandIsDeliveredFromWhoSendsIt(t *testing.T) {
	t.Parallel()
	var got *envelope.Delivery
	route := consumer.On(ProvisionServer, func(_ context.Context, m received) error { got = m.Delivery; return nil })
	draft := ProvisionServer.New("server-1", ServerProvisionedV1{})
	require.NoError(t, dvtest.Deliver(t, route, draft))
	require.Equal(t, subject.Maskin, got.Envelope.Source)
	require.Equal(t, "DV_MASKIN_CMD", got.Stream)
	require.NoError(t, dvtest.Deliver(t, route, draft, dvtest.From(subject.Sentral)))
	require.Equal(t, subject.Sentral, got.Envelope.Source)
}

func TestMessageThatNoHandlerWouldSeeFailsTheTest(t *testing.T) {
	t.Parallel()
	route := consumer.On(ServerProvisioned, answering(nil))
	deliver := func(draft envelope.Draft, opts ...dvtest.DeliverOption) string {
		return failure(t, func(tb testing.TB) { _ = dvtest.Deliver(tb, route, draft, opts...) })
	}
	requireSays(t, deliver(ServerProvisionedNew.New("server-1", ServerProvisionedV2{})),
		"the message is maskin.server.provisioned v2, but the route handles maskin.server.provisioned v1")
	requireSays(t, deliver(provisioned("")), "outbox.Enqueue would refuse this draft", "resource id")
	requireSays(t, deliver(provisioned("s"), dvtest.From(subject.Nett)), "sent by nett", "source: is not the service")
	requireSays(t, deliver(provisioned("s"), dvtest.WithOrigin(envelope.Origin{CorrelationID: "c"})), "Origin.Actor", "Origin.TenantID")
	requireSays(t, deliver(NodeRegistered.New("n", ServerProvisionedV1{})), "to the route of maskin.server.provisioned v1")
	requireSays(t, deliver(provisioned("s"), dvtest.AtAttempt(0)), "attempts count from 1")
}

// upcasting is version 2 that also reads version 1, constant.
var upcasting = envelope.MustEvent(envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 2},
	envelope.Upcast(ServerProvisioned, func(old ServerProvisionedV1) (ServerProvisionedV2, error) {
		return ServerProvisionedV2{old.Hostname, "unknown"}, nil
	}))

func TestAnOlderVersionIsDeliveredWhereTheRouteTakesIt(t *testing.T) {
	t.Parallel()
	var got ServerProvisionedV2
	route := consumer.On(upcasting, func(_ context.Context, m envelope.Received[ServerProvisionedV2]) error { got = m.Data; return nil })
	require.NoError(t, dvtest.Deliver(t, route, provisioned("server-1")))
	require.Equal(t, "unknown", got.Rack)
}

func TestIncompleteMessageOrRouteFailsTheTest(t *testing.T) {
	t.Parallel()
	route, m := consumer.On(ServerProvisioned, answering(nil)), newMessage(t)
	require.NoError(t, dvtest.Deliver(t, route, m))
	deliver := func(route envelope.Route, m envelope.Message, opts ...dvtest.DeliverOption) string {
		return failure(t, func(tb testing.TB) { _ = dvtest.Deliver(tb, route, m, opts...) })
	}
	requireSays(t, deliver(consumer.On[ServerProvisionedV1](ServerProvisioned, nil), m), "the route of maskin.server.provisioned v1 has no handler")
	requireSays(t, deliver(route, envelope.Message{}), "the message has no envelope")
	requireSays(t, deliver(route, m, dvtest.From(subject.Nett), dvtest.WithOrigin(envelope.Origin{})), "From, WithOrigin: a complete message says this itself")
	wrong := m
	wrong.Subject = NodeRegistered.Subject()
	requireSays(t, deliver(route, wrong), "no handler would see this message", "source", "type")
	broken := *m.Envelope
	broken.CorrelationID = ""
	wrong = m
	wrong.Envelope = &broken
	requireSays(t, deliver(route, wrong), "no handler would see this message", "correlation_id")
}

func TestDataThatDoesNotFitIsAVerdict(t *testing.T) {
	t.Parallel()
	other := envelope.MustEvent[map[string]int](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1})
	route := consumer.On(ServerProvisioned, func(context.Context, received) error { t.Error("the handler ran"); return nil })
	err := dvtest.Deliver(t, route, other.New("server-1", map[string]int{"hostname": 1}))
	require.ErrorIs(t, err, envelope.ErrMalformed)
	require.True(t, envelope.IsPermanent(err))
}

func TestSecondDeliveryToAnInboxHasNoEffect(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	m := dvtest.DeliverTwice(t, RegisterNode(t, pool), provisioned("server-1", envelope.OrderingKey("rack-1")))
	require.Equal(t, 1, count(t, pool, "node"))
	require.Equal(t, "rack-1", m.OrderingKey)
	dvtest.RequireHandledOnce(t, pool, "node_registry", m.Envelope.Source, m.Envelope.ID)
	require.ErrorIs(t, dvtest.Deliver(t, RegisterNode(t, pool), m), envelope.ErrAlreadyProcessed)
}

func TestDeliverTwiceTellsAHandlerThatCannotBearIt(t *testing.T) {
	t.Parallel()
	// answers gives the n-th answer at the n-th delivery.
	answers := func(all ...error) envelope.Route {
		n := 0
		return consumer.On(ServerProvisioned, func(_ context.Context, m received) error {
			n++
			require.Equal(t, n, m.Attempt)
			return all[n-1]
		})
	}
	twice := func(route envelope.Route) func(testing.TB) {
		return func(tb testing.TB) { dvtest.DeliverTwice(tb, route, provisioned("server-1")) }
	}
	broken := errors.New("broken")
	twice(answers(nil, nil))(t)
	twice(answers(nil, envelope.ErrAlreadyProcessed))(t)
	requireSays(t, failure(t, twice(answers(broken))), "the first delivery of maskin.server.provisioned", "failed: broken")
	requireSays(t, failure(t, twice(answers(envelope.ErrAlreadyProcessed))), "the first delivery")
	requireSays(t, failure(t, twice(answers(nil, broken))), "the second delivery of maskin.server.provisioned", "although the effect is there: broken")
	// A store that forgets.
	route := answers(nil, nil)
	route.MarkDead = func(context.Context, *envelope.Delivery, string) error { return nil }
	requireSays(t, failure(t, twice(route)), "was handled again: want envelope.ErrAlreadyProcessed")
}

// nothing is a handler without an effect.
func nothing(context.Context, pgx.Tx, received) error { return nil }

// refusing is a handler that always fails.
func refusing(err error) func(context.Context, pgx.Tx, received) error {
	return func(context.Context, pgx.Tx, received) error { return err }
}
