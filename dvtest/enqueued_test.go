package dvtest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
)

// secret is data that no failure may show.
const secret = "db-secret.oslo.example"

// enqueue commits drafts of maskin, made for tenant-1.
func enqueue(t *testing.T, pool *pgxpool.Pool, drafts ...envelope.Draft) {
	t.Helper()
	out := newOutbox(t, maskin, outbox.Config{})
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return out.Enqueue(request(t), tx, drafts...)
	}))
}

func provisioned(id string, opts ...envelope.Option) envelope.Draft {
	return ServerProvisioned.New(id, ServerProvisionedV1{Hostname: secret}, opts...)
}

func TestEnqueuedMessageIsFoundByEachMatch(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	enqueue(t, pool, provisioned("server-1", envelope.OrderingKey("rack-1")))
	got := dvtest.RequireEnqueued(t, pool, ServerProvisioned)
	for _, match := range []dvtest.Match{
		dvtest.ForResource("server-1"), dvtest.WithKey("rack-1"), dvtest.ForTenant("tenant-1"),
		dvtest.InCorrelation(got.Envelope.CorrelationID), dvtest.CausedBy(""), dvtest.InSchema("messaging"),
		dvtest.Where("it is the secret one", func(d ServerProvisionedV1) bool { return d.Hostname == secret }),
	} {
		require.Equal(t, got.Envelope.ID, dvtest.RequireEnqueued(t, pool, ServerProvisioned, match).Envelope.ID)
	}
	require.Equal(t, secret, got.Data.Hostname)
	require.Equal(t, ServerProvisioned.Subject(), got.Subject)
	require.Equal(t, "DV_MASKIN_EVT", got.Stream)
	require.Equal(t, "rack-1", got.OrderingKey)
	dvtest.RequireHeadersOf(t, got.Header, got.Envelope)
}

func TestEachMatchExcludesOtherMessages(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	enqueue(t, pool, provisioned("server-1"))
	for want, match := range map[string]dvtest.Match{
		`resource is "server-1", want "server-2"`:      dvtest.ForResource("server-2"),
		`ordering key is "server-1", want "rack-1"`:    dvtest.WithKey("rack-1"),
		`tenant is "tenant-1", want ""`:                dvtest.ForTenant(""),
		`want "another"`:                               dvtest.InCorrelation("another"),
		`causation is "", want "some message"`:         dvtest.CausedBy("some message"),
		"its data does not fit: the hostname is short": dvtest.Where("the hostname is short", func(d ServerProvisionedV1) bool { return len(d.Hostname) < 3 }),
	} {
		dvtest.RequireNotEnqueued(t, pool, ServerProvisioned, match)
		said := failure(t, func(tb testing.TB) { dvtest.RequireEnqueued(tb, pool, ServerProvisioned, match) })
		requireSays(t, said, "not enqueued: maskin.server.provisioned v1", want)
		require.NotContains(t, said, secret)
	}
}

func TestRolledBackTransactionEnqueuedNothing(t *testing.T) {
	t.Parallel()
	pool, changed := dvtest.Postgres(t), errors.New("changed its mind")
	out := newOutbox(t, maskin, outbox.Config{})
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		require.NoError(t, out.Enqueue(request(t), tx, provisioned("server-1")))
		dvtest.RequireEnqueued(t, tx, ServerProvisioned)      // its own transaction sees it
		dvtest.RequireNotEnqueued(t, pool, ServerProvisioned) // nobody else does
		return changed
	})
	require.ErrorIs(t, err, changed)
	dvtest.RequireNotEnqueued(t, pool, ServerProvisioned)
	said := failure(t, func(tb testing.TB) { dvtest.RequireEnqueued(tb, pool, ServerProvisioned) })
	requireSays(t, said, "messaging.outbox_events is empty", "rolled back", "still open")
}

func TestNearestMissIsNamedAndDataIsNot(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	enqueue(t, pool, provisioned("server-1"), provisioned("server-2", envelope.OrderingKey("rack-9")),
		ProvisionServer.New("server-3", ServerProvisionedV1{Hostname: secret}))
	second := dvtest.RequireEnqueued(t, pool, ServerProvisioned, dvtest.ForResource("server-2"))
	said := failure(t, func(tb testing.TB) {
		dvtest.RequireEnqueued(tb, pool, ServerProvisioned, dvtest.WithKey("rack-9"), dvtest.ForResource("server-4"))
	})
	requireSays(t, said,
		`not enqueued: maskin.server.provisioned v1, ordering key "rack-9", resource "server-4"`,
		"the nearest is message "+second.Envelope.ID+`, but:`+"\n"+`  - resource is "server-2", want "server-4"`+"\nenqueued (3):\n",
		`maskin.server.provisioned v1 resource "server-1" tenant "tenant-1"`,
		`resource "server-2" key "rack-9"`,
		`maskin.server.provision.requested v1 resource "server-3"`)
	require.NotContains(t, said, secret)
}

// The commonest mistake after a new version: the producer still sends the old.
func TestAnotherVersionIsAMissAndNamed(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	enqueue(t, pool, provisioned("server-1"))
	dvtest.RequireNotEnqueued(t, pool, ServerProvisionedNew)
	said := failure(t, func(tb testing.TB) { dvtest.RequireEnqueued(tb, pool, ServerProvisionedNew) })
	requireSays(t, said, "version is v1, want v2")
}

func TestAnotherTypeIsNoNearMiss(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	enqueue(t, pool, provisioned("server-1"))
	said := failure(t, func(tb testing.TB) { dvtest.RequireEnqueued(tb, pool, NodeRegistered) })
	requireSays(t, said, "nothing of this type is enqueued\nenqueued (1):", "maskin.server.provisioned")
}

func TestSeveralMatchesAreAFailure(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	var drafts []envelope.Draft
	for i := range 23 {
		drafts = append(drafts, provisioned(fmt.Sprint("server-", i)))
	}
	enqueue(t, pool, drafts...)
	said := failure(t, func(tb testing.TB) { dvtest.RequireEnqueued(tb, pool, ServerProvisioned) })
	requireSays(t, said, "enqueued 23 times, want once", `"server-19"`, "and 3 more", "narrow it with ForResource")
	require.NotContains(t, said, `"server-20"`)
}

func TestRequireNotEnqueuedListsWhatIs(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	enqueue(t, pool, provisioned("server-1"), provisioned("server-2"))
	said := failure(t, func(tb testing.TB) {
		dvtest.RequireNotEnqueued(tb, pool, ServerProvisioned, dvtest.ForResource("server-2"))
	})
	requireSays(t, said, `enqueued, but must not be: maskin.server.provisioned v1, resource "server-2"`, "these match (1):")
	require.NotContains(t, said, "server-1")
}

func TestEnqueuedIsFoundInAnotherSchema(t *testing.T) {
	t.Parallel()
	pool := dvtest.EmptyPostgres(t)
	require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{Schema: "bus"}))
	out := newOutbox(t, maskin, outbox.Config{Schema: "bus"})
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return out.Enqueue(request(t), tx, provisioned("server-1"))
	}))
	dvtest.RequireEnqueued(t, pool, ServerProvisioned, dvtest.InSchema("bus"))

	said := failure(t, func(tb testing.TB) { dvtest.RequireEnqueued(tb, pool, ServerProvisioned) })
	requireSays(t, said, `not in schema "messaging"`, "migrate.Up", "dvtest.InSchema")
	said = failure(t, func(tb testing.TB) {
		dvtest.RequireNotEnqueued(tb, pool, ServerProvisioned, dvtest.InSchema("Bus; drop"))
	})
	requireSays(t, said, "InSchema", "lower-case letters")
}

func TestAbortedTransactionIsExplained(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select 1/0")
	require.Error(t, err)
	said := failure(t, func(tb testing.TB) { dvtest.RequireNotEnqueued(tb, tx, ServerProvisioned) })
	requireSays(t, said, "an earlier statement of this transaction failed", "check the error of Enqueue")
	require.NoError(t, tx.Rollback(t.Context()))
}

func TestMisusedSearchSaysEverythingAtOnce(t *testing.T) {
	t.Parallel()
	said := failure(t, func(tb testing.TB) {
		dvtest.RequireEnqueued(tb, nil, envelope.Type[ServerProvisionedV1]{},
			dvtest.Where("it is new", func(ServerProvisionedV2) bool { return true }))
	})
	requireSays(t, said, "the zero envelope.Type", "the Querier is nil", "Where takes a dvtest_test.ServerProvisionedV2", "carries dvtest_test.ServerProvisionedV1")
}

func TestRowThatDoesNotDecodeIsListedAndNoHit(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	_, err := pool.Exec(t.Context(), `insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
values ('DV_MASKIN_EVT', gen_random_uuid(), 'dv.maskin.evt.server.provisioned', 'k', '', $1)`, []byte(`{"secret":"`+secret+`"}`))
	require.NoError(t, err)
	said := failure(t, func(tb testing.TB) { dvtest.RequireEnqueued(tb, pool, ServerProvisioned) })
	requireSays(t, said, "nothing of this type", "on dv.maskin.evt.server.provisioned: envelope: malformed")
	require.NotContains(t, said, secret)
}

// What a producer enqueued is what the handler of another service gets.
func TestEnqueuedMessageCanBeDelivered(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	origin := envelope.NewOrigin("user:kari", "tenant-1")
	origin.Traceparent = traceparent
	out := newOutbox(t, maskin, outbox.Config{})
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return out.Enqueue(envelope.WithOrigin(t.Context(), origin), tx, provisioned("server-1"))
	}))
	sent := dvtest.RequireEnqueued(t, pool, ServerProvisioned)
	require.NoError(t, dvtest.Deliver(t, RegisterNode(t, pool), sent.Message()))
	follow := dvtest.RequireEnqueued(t, pool, NodeRegistered, dvtest.CausedBy(sent.Envelope.ID),
		dvtest.InCorrelation(origin.CorrelationID), dvtest.ForTenant("tenant-1"))
	require.Equal(t, subject.Plattform, follow.Envelope.Source)
	require.True(t, strings.HasPrefix(follow.Header.Get(envelope.HeaderTraceparent), traceparent[:35]))
}

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
