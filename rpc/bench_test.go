package rpc_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/rpc"
)

// The two benchmarks send the same bytes there and back over two TCP connections,
// raw by nc.Request to a callback that responds, and by Call. What lies between
// them is headers, deadlines, strict JSON both ways, and a goroutine per request.
const benchBody = `{"id":"srv-0123456789"}`

// connections returns a server's and a caller's.
func connections(b *testing.B) (server, caller *nats.Conn) {
	b.Helper()
	broker := dvtest.Server(b)
	return broker.Connect(b).NATS(), broker.Connect(b).NATS()
}

func raw(b *testing.B) *nats.Conn {
	b.Helper()
	server, caller := connections(b)
	_, err := server.QueueSubscribe(getServer.Subject().String(), "maskin", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"hostname":"host-srv-0123456789"}`))
	})
	require.NoError(b, err)
	require.NoError(b, server.Flush())
	return caller
}

func BenchmarkRawRequest(b *testing.B) {
	caller := raw(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := caller.Request(getServer.Subject().String(), []byte(benchBody), patience); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRawRequestParallel(b *testing.B) {
	caller := raw(b)
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := caller.Request(getServer.Subject().String(), []byte(benchBody), patience); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkCall(b *testing.B) {
	server, caller := connections(b)
	serve(b, server, quiet(), rpc.On(getServer, hello))
	client, origin := dial(b, caller), envelope.NewOrigin("user:ola", "tenant-1")
	b.ReportAllocs()
	for b.Loop() {
		if err := callOnce(b, client, origin); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCallParallel(b *testing.B) {
	server, caller := connections(b)
	serve(b, server, quiet(), rpc.On(getServer, hello))
	client, origin := dial(b, caller), envelope.NewOrigin("user:ola", "tenant-1")
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := callOnce(b, client, origin); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// callOnce has a deadline of its own, as nc.Request has.
func callOnce(b *testing.B, client *rpc.Client, origin envelope.Origin) error {
	ctx, cancel := context.WithTimeout(envelope.WithOrigin(b.Context(), origin), patience)
	defer cancel()
	_, err := getServer.Call(ctx, client, getRequest{ID: "srv-0123456789"})
	return err
}
