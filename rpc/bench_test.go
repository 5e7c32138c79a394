package rpc_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/rpc"
)

// All of these send the same bodies there and back over two TCP connections, through
// a broker in the same process: raw by nc.Request to a callback that responds; raw
// with what any typed, concurrent exchange has (headers, JSON at both ends, a
// goroutine and a deadline for each request); and by Call, which adds strictness,
// checks and counts.
const benchBody = `{"id":"srv-0123456789"}`

// connections returns a server's and a caller's.
func connections(b *testing.B) (server, caller *nats.Conn) {
	b.Helper()
	broker := dvtest.Server(b)
	return broker.Connect(b).NATS(), broker.Connect(b).NATS()
}

// measure runs call by one caller and by 16 for each processor.
func measure(b *testing.B, call func() error) {
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := call(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func BenchmarkRawRequest(b *testing.B) {
	server, caller := connections(b)
	_, err := server.QueueSubscribe(getServer.Subject().String(), "maskin", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"hostname":"host-srv-0123456789"}`))
	})
	require.NoError(b, err)
	require.NoError(b, server.Flush())
	measure(b, func() error {
		_, err := caller.Request(getServer.Subject().String(), []byte(benchBody), patience)
		return err
	})
}

// BenchmarkRawLikeCall does by hand what Call does, without its checks.
func BenchmarkRawLikeCall(b *testing.B) {
	server, caller := connections(b)
	mark := nats.Header{envelope.HeaderEventVersion: {"1"}}
	_, err := server.QueueSubscribe(getServer.Subject().String(), "maskin", func(m *nats.Msg) {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			var r getRequest
			_ = json.Unmarshal(m.Data, &r)
			reply, _ := hello(ctx, r)
			data, _ := json.Marshal(reply)
			_ = m.RespondMsg(&nats.Msg{Header: mark, Data: data})
		}()
	})
	require.NoError(b, err)
	require.NoError(b, server.Flush())
	header := rpc.WriteHeader(patience, "1", "plattform", envelope.NewOrigin("user:ola", "tenant-1"))
	measure(b, func() error {
		ctx, cancel := context.WithTimeout(b.Context(), patience)
		defer cancel()
		body, err := json.Marshal(getRequest{ID: "srv-0123456789"})
		if err != nil {
			return err
		}
		m, err := caller.RequestMsgWithContext(ctx, &nats.Msg{Subject: getServer.Subject().String(), Header: header, Data: body})
		if err != nil {
			return err
		}
		var reply getReply
		return json.Unmarshal(m.Data, &reply)
	})
}

func BenchmarkCall(b *testing.B) {
	server, caller := connections(b)
	serve(b, server, quiet(), rpc.On(getServer, hello))
	client, origin := dial(b, caller), envelope.NewOrigin("user:ola", "tenant-1")
	measure(b, func() error {
		// A deadline of its own, as nc.Request has.
		ctx, cancel := context.WithTimeout(envelope.WithOrigin(b.Context(), origin), patience)
		defer cancel()
		_, err := getServer.Call(ctx, client, getRequest{ID: "srv-0123456789"})
		return err
	})
}
