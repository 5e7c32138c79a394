package task_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
)

// BenchmarkHandle is a command with a small effect, without a task and with one.
func BenchmarkHandle(b *testing.B) {
	w := setup(b, time.Second)
	routes := map[string]envelope.Route{
		"inbox.On": inbox.On(w.in, provision, succeed),
		"task.On":  task.On(w.reporter, inbox.On, w.in, provision, succeed),
	}
	for name, route := range routes {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, deliver(b, route, command(b)))
			}
		})
	}
}

// BenchmarkStart is a transaction that enqueues a command, without a task and with one.
func BenchmarkStart(b *testing.B) {
	pool, out := dvtest.Postgres(b), newOutbox(b, sentral)
	draft, ctx := provision.New("srv-1", provisionV1{Hostname: "db1"}), request(b)
	for name, send := range map[string]func(pgx.Tx) error{
		"Enqueue": func(tx pgx.Tx) error { return out.Enqueue(ctx, tx, draft) },
		"Start":   func(tx pgx.Tx) error { _, err := task.Start(ctx, tx, out, draft, "Provision db1"); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, pgx.BeginFunc(ctx, pool, send))
			}
		})
	}
}

// BenchmarkProject is one event of a task that is known.
func BenchmarkProject(b *testing.B) {
	p, err := task.NewProjection(dvtest.Postgres(b), task.ProjectionConfig{})
	require.NoError(b, err)
	var route envelope.Route
	for _, r := range p.Routes() {
		if r.Type == task.Progress.Name() {
			route = r
		}
	}
	half, version := 50, int64(3)
	for b.Loop() {
		version++
		m, err := envelope.New(request(b), subject.Maskin, task.Progress.New(the, task.EventV1{Version: version, Attempt: 1, Percent: &half}))
		require.NoError(b, err)
		require.NoError(b, deliver(b, route, m))
	}
}
