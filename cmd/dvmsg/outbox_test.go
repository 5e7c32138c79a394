package main

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

type serverV1 struct {
	Hostname string `json:"hostname"`
}

var provisioned = envelope.MustEvent[serverV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
})

// fromEdge is the context of a request from the edge.
func fromEdge(ctx context.Context) context.Context {
	return envelope.WithOrigin(ctx, envelope.NewOrigin("user:kari", "tenant-1"))
}

// enqueue commits n events of maskin.
func enqueue(t testing.TB, out *outbox.Outbox, pool *pgxpool.Pool, n int) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		for range n {
			if err := out.Enqueue(fromEdge(t.Context()), tx, provisioned.New("srv-1", serverV1{canary})); err != nil {
				return err
			}
		}
		return nil
	}))
}

func TestOutboxStatusShowsWhoLeadsAndWhatWaits(t *testing.T) {
	t.Parallel()
	pool, broker := dvtest.Postgres(t), dvtest.Server(t)
	js := broker.Connect(t).JetStream()
	e := environment{envDatabase: databaseURL(pool)}
	requireGolden(t, "outbox-empty.golden", masked(e.dvmsg(t, "outbox", "status").ok(t).out))
	require.Equal(t, []outbox.StreamStatus{}, decode[outboxResult](t, e.dvmsg(t, "outbox", "status", "--json").ok(t)).Streams)

	out, err := outbox.New(maskinSet(), outbox.Config{})
	require.NoError(t, err)
	require.NoError(t, topology.Ensure(t.Context(), js, maskinSet()))
	enqueue(t, out, pool, 1)
	ctx, stop := context.WithCancel(t.Context())
	relay, err := outbox.NewRelay(out, pool, js, outbox.RelayConfig{Logger: quiet()})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	status := func() outboxResult {
		return decode[outboxResult](t, e.dvmsg(t, "outbox", "status", "--json").ok(t))
	}
	require.Eventually(t, func() bool {
		s := status()
		return s.Led && len(s.Streams) == 1 && s.Streams[0].AckedSequence == 1 && s.Streams[0].Unpublished == 0
	}, soon, tick)
	led := e.dvmsg(t, "outbox", "status").ok(t).out
	require.Contains(t, led, " leads (term 1) until ")
	require.Contains(t, led, "up to date")
	stop()
	require.NoError(t, <-ended)

	enqueue(t, out, pool, 3)
	s := status()
	require.False(t, s.Led)
	require.EqualValues(t, 3, s.Streams[0].Unpublished)
	waiting := e.dvmsg(t, "outbox", "status").ok(t).out
	require.Contains(t, waiting, "NONE LEADS: nothing is published; ")
	require.Regexp(t, `DV_MASKIN_EVT  3  .* waiting\n`, waiting)
	require.Regexp(t, `DV_MASKIN_EVT  0  +0  +0  +about 1  `, waiting)
	_, err = pool.Exec(t.Context(), `
insert into messaging.outbox_parked (stream, ordering_key, seq, id, subject, cause, parked_at)
select stream, ordering_key, seq, id, subject, 'too large', now() - interval '3 hours' from messaging.outbox_events order by seq limit 1`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), "update messaging.outbox_state set rewinds = 2, rewound_at = now() - interval '1 day', recreated = now()")
	require.NoError(t, err)
	troubled := e.dvmsg(t, "outbox", "status").ok(t).out
	require.Contains(t, troubled, "STREAM MADE ANEW: see dvmsg outbox accept")
	require.Regexp(t, `DV_MASKIN_EVT  1 key, for 3h00m  1  +0  +about 0  .* 2, last .* \(1d00h ago\)\n`, troubled)
	require.NotContains(t, waiting, canary)
}

func TestOutboxStatusWithoutTablesSaysWhatToRun(t *testing.T) {
	t.Parallel()
	e := environment{envDatabase: databaseURL(dvtest.EmptyPostgres(t))}
	e.dvmsg(t, "outbox", "status").failed(t, exitFailure, "migrate")
}
