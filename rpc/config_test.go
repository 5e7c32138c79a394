package rpc_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/subject"
)

func TestServerReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	other := rpc.MustOperation[getRequest, getReply](rpc.Spec{Service: subject.Nett, Name: "get_net", Version: 1})
	_, err := rpc.NewServer(nil, rpc.ServerConfig{
		Service: subject.Maskin, Version: "v1", Concurrency: -1, MaxTimeout: time.Hour, MaxRequest: 1, MaxReply: 1 << 30, DrainTimeout: -1,
	}, rpc.On(getServer, hello), rpc.On(getServer, hello), rpc.On(other, hello), rpc.On[getRequest, getReply](getServer, nil), rpc.Route{})
	for _, text := range []string{
		"connection: is nil", "ServerConfig.Version", "ServerConfig.Concurrency: -1", "ServerConfig.MaxTimeout: 1h0m0s",
		"ServerConfig.MaxRequest: 1 ", "ServerConfig.MaxReply", "ServerConfig.DrainTimeout",
		"routes[1] (maskin.get_server v1): is routed twice", "routes[2] (nett.get_net v1): is an operation of another service",
		"routes[3] (maskin.get_server v1): has no handler", "routes[4]: names no operation",
	} {
		require.ErrorContains(t, err, text)
	}
	_, err = rpc.NewServer(nil, rpc.ServerConfig{})
	require.ErrorContains(t, err, "ServerConfig.Service: is not set")
	require.ErrorContains(t, err, "routes: none given")
}

func TestClientReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := rpc.NewClient(nil, rpc.ClientConfig{Service: 99, MaxTimeout: time.Nanosecond, MaxRequest: 1 << 20})
	for _, text := range []string{"connection: is nil", "ClientConfig.Service", "ClientConfig.MaxTimeout: 1ns", "ClientConfig.MaxRequest: 1048576"} {
		require.ErrorContains(t, err, text)
	}
}

// No server answers on such a subject; every call would end at its deadline.
func TestClientWhoseInboxIsNotAnsweredIsRefused(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"dv.maskin.inbox", "$inbox"} {
		_, err := rpc.NewClient(&nats.Conn{Opts: nats.Options{InboxPrefix: prefix}}, rpc.ClientConfig{})
		require.ErrorContains(t, err, "connection: its inbox prefix begins with dv. or $", prefix)
	}
}

func TestServerIsReadyWhileItServesAndRunsOnce(t *testing.T) {
	t.Parallel()
	server, client := setup(t, hello)
	require.NoError(t, server.Ready())
	_, err := getServer.Call(asking(t, patience), client, getRequest{ID: "1"})
	require.NoError(t, err)
	require.NoError(t, server.stop())
	require.ErrorIs(t, server.Ready(), rpc.ErrNotRunning)
	require.ErrorIs(t, server.Run(t.Context()), rpc.ErrAlreadyRun)
}

func TestServerThatWasNeverRunIsNotReady(t *testing.T) {
	t.Parallel()
	s, err := rpc.NewServer(dvtest.NATS(t).NATS(), quiet(), rpc.On(getServer, hello))
	require.NoError(t, err)
	require.ErrorIs(t, s.Ready(), rpc.ErrNotRunning)
}

func TestClosedConnectionEndsRunWithAnError(t *testing.T) {
	t.Parallel()
	broker := dvtest.Server(t)
	nc := broker.Connect(t).NATS()
	server := serve(t, nc, quiet(), rpc.On(getServer, hello))
	nc.Close()
	require.ErrorIs(t, <-server.done, nats.ErrConnectionClosed)
	server.once.Do(func() {})
}

// A broker that restarts is no reason to stop: the client library subscribes again.
func TestServerOutlivesARestartOfTheBroker(t *testing.T) {
	t.Parallel()
	broker := dvtest.Server(t)
	server := serve(t, broker.Connect(t).NATS(), quiet(), rpc.On(getServer, hello))
	client := dial(t, broker.Connect(t).NATS())
	broker.Stop()
	require.Eventually(t, func() bool { return server.Ready() != nil }, soon, tick)
	_, err := getServer.Call(asking(t, time.Second), client, getRequest{ID: "1"})
	require.True(t, failure(t, err).Local) // or, until its connection has noticed, at its deadline
	broker.Restart(t)
	require.Eventually(t, func() bool {
		_, err := getServer.Call(asking(t, time.Second), client, getRequest{ID: "1"})
		return err == nil
	}, soon, tick)
	require.NoError(t, server.Ready())
}
