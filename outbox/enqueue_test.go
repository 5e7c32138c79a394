package outbox_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestEnqueueStoresWhatTheRelayNeeds(t *testing.T) {
	t.Parallel()
	pool, out := dvtest.Postgres(t), newOutbox(t)
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return out.Enqueue(origin(t.Context()), tx,
			serverCounted.New("server-1", counted{Key: "a", N: 1}, envelope.OrderingKey("rack-7")),
			provision.New("link-1", counted{Key: "b", N: 1}))
	})
	require.NoError(t, err)

	rows, err := pool.Query(t.Context(), `select stream, subject, ordering_key, headers, envelope from messaging.outbox_events order by seq`)
	require.NoError(t, err)
	type stored struct {
		Stream, Subject, Key, Headers string
		Envelope                      []byte
	}
	got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[stored])
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, "DV_MASKIN_EVT", got[0].Stream)
	require.Equal(t, "dv.maskin.evt.server.counted", got[0].Subject)
	require.Equal(t, "rack-7", got[0].Key)
	require.Equal(t, "DV_NETT_CMD", got[1].Stream)
	require.Equal(t, "link-1", got[1].Key, "the resource is the default ordering key")

	e, err := envelope.Decode(got[0].Envelope)
	require.NoError(t, err)
	require.Equal(t, subject.Maskin, e.Source)
	require.Equal(t, "tenant-1", e.TenantID)
	h, err := envelope.UnmarshalHeader(got[0].Headers)
	require.NoError(t, err)
	require.Equal(t, e.ID, h.Get(envelope.HeaderMsgID))
	require.NoError(t, e.CheckHeader(h))
}

func TestEnqueueOfNothingIsNothing(t *testing.T) {
	t.Parallel()
	require.NoError(t, newOutbox(t).Enqueue(t.Context(), nil))
}

// A refused message must leave the caller's transaction as it was: the service
// may answer its client and commit something else.
func TestEnqueueRefusesBeforeItTouchesTheTransaction(t *testing.T) {
	t.Parallel()
	pool, out := dvtest.Postgres(t), newOutbox(t)
	undeclared := envelope.MustCommand[counted](envelope.CommandSpec{Service: subject.Objekt, Entity: "bucket", Action: "make", Version: 1})
	foreign := envelope.MustEvent[counted](envelope.EventSpec{Service: subject.Nett, Entity: "link", Verb: "made", Version: 1})
	ctx := origin(t.Context())

	for _, c := range []struct {
		name  string
		draft envelope.Draft
		want  func(*testing.T, error)
	}{
		{"no stream declared", undeclared.New("b", counted{}), func(t *testing.T, err error) {
			undeclared, ok := errors.AsType[*topology.UndeclaredError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, "dv.objekt.cmd.make", undeclared.Subject.String())
		}},
		{"event of another service", foreign.New("l", counted{}), func(t *testing.T, err error) {
			mismatch, ok := errors.AsType[*envelope.MismatchError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, "source", mismatch.Field)
		}},
		{"too large", serverCounted.New("s", counted{Pad: strings.Repeat("x", envelope.MaxSize)}), func(t *testing.T, err error) {
			require.ErrorIs(t, err, envelope.ErrTooLarge)
			require.NotContains(t, err.Error(), "xxxx", "an error never shows a payload")
		}},
		{"no resource", serverCounted.New("", counted{}), func(t *testing.T, err error) {
			field, ok := errors.AsType[*envelope.FieldError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, "resource id", field.Field)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				c.want(t, out.Enqueue(ctx, tx, serverCounted.New("fine", counted{}), c.draft))
				var one int
				return tx.QueryRow(t.Context(), "select 1").Scan(&one) // fails in an aborted transaction
			})
			require.NoError(t, err)
		})
	}
}

func TestEnqueueReportsTheFaultsOfAllMessages(t *testing.T) {
	t.Parallel()
	err := newOutbox(t).Enqueue(origin(t.Context()), nil,
		serverCounted.New("", counted{}), serverCounted.New("fine", counted{}), serverCounted.New("", counted{}))
	require.ErrorContains(t, err, "message 1 of 3")
	require.ErrorContains(t, err, "message 3 of 3")
	require.NotContains(t, err.Error(), "message 2 of 3")
}

// Without an origin a message would be in no workflow; a fresh correlation id
// would hide that.
func TestEnqueueWithoutOriginIsAnError(t *testing.T) {
	t.Parallel()
	err := newOutbox(t).Enqueue(t.Context(), nil, serverCounted.New("s", counted{}))
	require.ErrorContains(t, err, "Origin")
}

func TestEnqueueRaisesSynchronousCommit(t *testing.T) {
	t.Parallel()
	pool, out := dvtest.Postgres(t), newOutbox(t)
	for set, want := range map[string]string{"off": "on", "local": "local", "on": "on"} {
		t.Run(set, func(t *testing.T) {
			t.Parallel()
			err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), "set local synchronous_commit = "+set)
				require.NoError(t, err)
				require.NoError(t, out.Enqueue(origin(t.Context()), tx, serverCounted.New("s", counted{})))
				var got string
				require.NoError(t, tx.QueryRow(t.Context(), "show synchronous_commit").Scan(&got))
				require.Equal(t, want, got)
				return nil
			})
			require.NoError(t, err)
		})
	}
}

// A connection that does not look at the mark uses another statement.
func TestEnqueueRaisesSynchronousCommitAlsoWhereItDoesNotLook(t *testing.T) {
	t.Parallel()
	pool, out := dvtest.Postgres(t), newOutbox(t)
	out.TrustFor(time.Hour)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	for n, set := range []string{"on", "on", "off", "off", "local"} {
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "set local synchronous_commit = "+set)
			require.NoError(t, err)
			require.NoError(t, out.Enqueue(origin(t.Context()), tx, serverCounted.New("s", counted{})))
			var got string
			var rows int
			require.NoError(t, tx.QueryRow(t.Context(), "select current_setting('synchronous_commit'), count(*) from messaging.outbox_events").Scan(&got, &rows))
			require.Equal(t, strings.ReplaceAll(set, "off", "on"), got)
			require.Equal(t, n+1, rows)
			return nil
		})
		require.NoError(t, err)
	}
}

// Poolers take away prepared statements, so a pool may be set to any mode.
func TestEnqueueWorksInEveryQueryMode(t *testing.T) {
	t.Parallel()
	pool, out := dvtest.Postgres(t), newOutbox(t)
	out.TrustFor(time.Hour)
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			cfg := pool.Config().ConnConfig.Copy()
			cfg.DefaultQueryExecMode = mode
			conn, err := pgx.ConnectConfig(t.Context(), cfg)
			require.NoError(t, err)
			defer conn.Close(t.Context())
			key := "key-" + mode.String()
			first := serverCounted.New(key, counted{N: 1}) // looks at the asleep mark, and the next does not
			one, two, three := serverCounted.New(key, counted{N: 2}), serverCounted.New(key, counted{N: 3}), provision.New(key, counted{N: 4})
			err = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
				return errors.Join(out.Enqueue(origin(t.Context()), tx, first), out.Enqueue(origin(t.Context()), tx, one),
					out.Enqueue(origin(t.Context()), tx, two, three))
			})
			require.NoError(t, err)
			rows, err := pool.Query(t.Context(), "select stream, id::text, headers, envelope from messaging.outbox_events where ordering_key = $1 order by seq", key)
			require.NoError(t, err)
			var stream, id, headers string
			var data []byte
			n := 0
			_, err = pgx.ForEachRow(rows, []any{&stream, &id, &headers, &data}, func() error {
				e, err := envelope.Decode(data)
				require.NoError(t, err)
				h, err := envelope.UnmarshalHeader(headers)
				require.NoError(t, err)
				require.NoError(t, e.CheckHeader(h))
				require.Equal(t, e.ID, id)
				n++
				require.JSONEq(t, fmt.Sprintf(`{"key":"","n":%d}`, n), string(e.Data))
				require.Equal(t, n == 4, stream == "DV_NETT_CMD")
				return nil
			})
			require.NoError(t, err)
			require.Equal(t, 4, n)
		})
	}
}

func TestEnqueueSaysThatMigrationsAreMissing(t *testing.T) {
	t.Parallel()
	pool, out := dvtest.EmptyPostgres(t), newOutbox(t)
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return out.Enqueue(origin(t.Context()), tx, serverCounted.New("s", counted{}))
	})
	require.ErrorIs(t, err, outbox.ErrNotMigrated)
}

func TestLegacyCorrelationHeaderIsAnOption(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	out, err := outbox.New(maskinSet, outbox.Config{LegacyCorrelationHeader: true})
	require.NoError(t, err)
	err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return out.Enqueue(origin(t.Context()), tx, serverCounted.New("s", counted{}))
	})
	require.NoError(t, err)
	var headers string
	require.NoError(t, pool.QueryRow(t.Context(), "select headers from messaging.outbox_events").Scan(&headers))
	require.Contains(t, headers, "\r\ncorrelation-id: ")
}

func TestNewReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := outbox.New(topology.Set{}, outbox.Config{MaxSize: -1, Schema: `"; drop`})
	for _, part := range []string{"topology", "Config.MaxSize", "Config.Schema"} {
		require.ErrorContains(t, err, part)
	}
	_, err = outbox.NewRelay(nil, nil, nil, outbox.RelayConfig{LeaseTTL: 1, PageRows: -1})
	for _, part := range []string{"out is nil", "pool is nil", "js is nil",
		"RelayConfig.LeaseTTL: 1ns is out of range; use 1s to 1m0s (", "RelayConfig.PageRows: -1 is out of range; use 1 to 100000 (rows)"} {
		require.ErrorContains(t, err, part)
	}
}
