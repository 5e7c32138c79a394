package rpc_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/rpc"
)

// ask collects n answers to one question, as "nats micro" does.
func ask[T any](t *testing.T, nc *nats.Conn, on string, n int) []T {
	t.Helper()
	inbox := nats.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	require.NoError(t, err)
	require.NoError(t, nc.PublishRequest(on, inbox, nil))
	var all []T
	for range n {
		m, err := sub.NextMsg(soon)
		require.NoError(t, err, "%s: %d of %d answers", on, len(all), n)
		var one T
		require.NoError(t, json.Unmarshal(m.Data, &one))
		all = append(all, one)
	}
	require.NoError(t, sub.Unsubscribe())
	return all
}

func TestStockToolsFindTheService(t *testing.T) {
	t.Parallel()
	broker := dvtest.Server(t)
	cfg := quiet(func(c *rpc.ServerConfig) { c.Version, c.Description = "1.4.0-rc.1", "servers and racks" })
	for range 2 {
		serve(t, broker.Connect(t).NATS(), cfg, rpc.On(getServer, hello))
	}
	// A service of the stock framework stands beside ours, in the same list.
	nc := broker.Connect(t).NATS()
	other, err := micro.AddService(nc, micro.Config{Name: "other", Version: "1.0.0"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = other.Stop() })
	require.NoError(t, nc.Flush())

	pings := ask[micro.Ping](t, nc, "$SRV.PING", 3)
	names := map[string]int{}
	var ids []string
	for _, p := range pings {
		names[p.Name]++
		require.Equal(t, "io.nats.micro.v1.ping_response", p.Type)
		if p.Name == "maskin" {
			require.Equal(t, "1.4.0-rc.1", p.Version)
			require.NotNil(t, p.Metadata)
			ids = append(ids, p.ID)
		}
	}
	require.Equal(t, map[string]int{"maskin": 2, "other": 1}, names)
	require.NotEqual(t, ids[0], ids[1])
	require.Len(t, ask[micro.Ping](t, nc, "$SRV.PING.maskin", 2), 2)
	require.Equal(t, ids[0], ask[micro.Ping](t, nc, "$SRV.PING.maskin."+ids[0], 1)[0].ID)

	info := ask[micro.Info](t, nc, "$SRV.INFO.maskin", 2)[0]
	require.Equal(t, "io.nats.micro.v1.info_response", info.Type)
	require.Equal(t, "servers and racks", info.Description)
	require.Equal(t, []micro.EndpointInfo{{
		Name: "get_server", Subject: "dv.rpc.maskin.get_server", QueueGroup: "maskin",
		Metadata: map[string]string{
			"type": "maskin.get_server", "version": "1",
			"request_schema": "urn:dataverket:schema:maskin.get_server.request:v1",
			"reply_schema":   "urn:dataverket:schema:maskin.get_server.reply:v1",
		},
	}}, info.Endpoints)
}

// What the stock framework tells of handlers that it did not run itself is that
// they took no time and did not fail.
func TestStatsTellTimeAndErrorsOfConcurrentHandlers(t *testing.T) {
	t.Parallel()
	const pause = 5 * time.Millisecond
	nc := dvtest.NATS(t).NATS()
	serve(t, nc, quiet(), rpc.On(getServer, func(_ context.Context, r getRequest) (getReply, error) {
		<-time.After(pause)
		if r.ID == "missing" {
			return getReply{}, rpc.Errorf(rpc.CodeNotFound, "server missing does not exist")
		}
		return getReply{}, nil
	}))
	client := dial(t, nc)
	for _, id := range []string{"1", "missing", "2"} {
		_, _ = getServer.Call(asking(t, patience), client, getRequest{ID: id})
	}
	var stats micro.Stats
	require.Eventually(t, func() bool {
		stats = ask[micro.Stats](t, nc, "$SRV.STATS.maskin", 1)[0]
		return stats.Endpoints[0].NumRequests == 3 // counted behind the answer
	}, soon, tick)
	require.Equal(t, "io.nats.micro.v1.stats_response", stats.Type)
	require.WithinDuration(t, time.Now(), stats.Started, time.Minute)
	one := stats.Endpoints[0]
	require.Equal(t, "dv.rpc.maskin.get_server", one.Subject)
	require.Equal(t, 1, one.NumErrors)
	require.Equal(t, "404:server missing does not exist", one.LastError)
	require.GreaterOrEqual(t, one.ProcessingTime, 3*pause)
	require.Equal(t, one.ProcessingTime/3, one.AverageProcessingTime)
}

func TestServerThatStoppedIsNotFound(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	server := serve(t, nc, quiet(), rpc.On(getServer, hello))
	require.NoError(t, server.stop())
	_, err := nc.Request("$SRV.PING.maskin", nil, patience)
	require.ErrorIs(t, err, nats.ErrNoResponders)
}
