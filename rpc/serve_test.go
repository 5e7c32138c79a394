package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/subject"
)

// journal is a log that a test reads.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// logging is a config change that writes to j.
func (j *journal) logging(c *rpc.ServerConfig) { c.Logger = slog.New(slog.NewTextHandler(j, nil)) }

func TestHandlersErrorIsTheAnswer(t *testing.T) {
	t.Parallel()
	_, client := setup(t, func(_ context.Context, r getRequest) (getReply, error) {
		return getReply{Hostname: "half"}, fmt.Errorf("looked everywhere: %w", rpc.Errorf(rpc.CodeNotFound, "server %s does not exist, så synd", r.ID))
	})
	reply, err := getServer.Call(asking(t, patience), client, getRequest{ID: "9"})
	e := requireWire(t, err, rpc.CodeNotFound, false)
	require.Equal(t, "server 9 does not exist, så synd", e.Message, "what wraps the error is not for the caller")
	require.Equal(t, "rpc: call maskin.get_server: not_found: server 9 does not exist, så synd", err.Error())
	require.Zero(t, reply)
}

func TestOrdinaryErrorIsInternalAndItsTextStaysInTheLog(t *testing.T) {
	t.Parallel()
	var log journal
	_, client := setup(t, func(context.Context, getRequest) (getReply, error) {
		return getReply{}, errors.New("pq: password\nof maskin is hunter2")
	}, log.logging)
	_, err := getServer.Call(asking(t, patience), client, getRequest{})
	e := requireWire(t, err, rpc.CodeInternal, false)
	require.Equal(t, "internal error; the server's log says more", e.Message)
	require.Contains(t, log.String(), "password of maskin is hunter2")
	require.Contains(t, log.String(), "operation=\"maskin.get_server v1\"")
	require.Contains(t, log.String(), "source=plattform")
	require.Contains(t, log.String(), "correlation_id=")
}

func TestPanicIsInternalAndItsStackStaysInTheLog(t *testing.T) {
	t.Parallel()
	var log journal
	_, client := setup(t, func(_ context.Context, r getRequest) (getReply, error) {
		if r.ID == "ok" {
			return getReply{}, nil
		}
		panic("the rack fell over")
	}, log.logging, func(c *rpc.ServerConfig) { c.Concurrency = 1 })
	_, err := getServer.Call(asking(t, patience), client, getRequest{})
	e := requireWire(t, err, rpc.CodeInternal, false)
	require.NotContains(t, e.Message, "rack")
	require.NotContains(t, e.Message, "goroutine")
	require.Contains(t, log.String(), "handler panicked: the rack fell over")
	require.Contains(t, log.String(), "serve_test.go")

	// The place is free again.
	require.Eventually(t, func() bool {
		_, err := getServer.Call(asking(t, patience), client, getRequest{ID: "ok"})
		return err == nil
	}, soon, tick)
}

// brittle is an error whose methods panic.
type brittle struct{}

func (brittle) Error() string { panic("no text") }
func (brittle) As(any) bool   { panic("no kind") }

func TestWhateverAHandlerDoesItsCallerGetsAnAnswer(t *testing.T) {
	t.Parallel()
	var typedNil *rpc.Error
	_, client := setup(t, func(_ context.Context, r getRequest) (getReply, error) {
		switch r.ID {
		case "goexit":
			runtime.Goexit()
		case "brittle":
			return getReply{}, brittle{}
		case "typed nil":
			return getReply{}, typedNil
		case "unknown code":
			return getReply{}, rpc.Errorf("teapot", "short and stout")
		}
		panic(errors.New("nil"))
	})
	for _, id := range []string{"goexit", "brittle", "typed nil", "unknown code", "panic"} {
		_, err := getServer.Call(asking(t, patience), client, getRequest{ID: id})
		require.Equal(t, rpc.CodeInternal, rpc.CodeOf(err), id)
		require.False(t, failure(t, err).Local, id)
	}
}

// What a third service said is about that service. Passed on, its "not found" would
// be taken for ours, and its "unavailable" for a promise that we did nothing.
func TestErrorOfACallIsNotPassedOn(t *testing.T) {
	t.Parallel()
	var log journal
	nc := dvtest.NATS(t).NATS()
	client := dial(t, nc)
	missing := rpc.MustOperation[getRequest, getReply](rpc.Spec{Service: subject.Nett, Name: "get_net", Version: 1})
	serve(t, nc, quiet(log.logging), rpc.On(getServer, func(ctx context.Context, r getRequest) (getReply, error) {
		_, err := missing.Call(ctx, client, r)
		return getReply{}, err
	}))
	_, err := getServer.Call(asking(t, patience), client, getRequest{})
	requireWire(t, err, rpc.CodeInternal, false)
	require.Contains(t, log.String(), "call nett.get_net: unavailable (local)")
}

func TestHandlersContextEndsAtTheCallersDeadline(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	_, client := setup(t, func(ctx context.Context, _ getRequest) (getReply, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return getReply{}, fmt.Errorf("query: %w", ctx.Err())
	})
	_, err := getServer.Call(asking(t, 500*time.Millisecond), client, getRequest{})
	// Who is first to notice, the server or the caller, is not to be relied on.
	require.Equal(t, rpc.CodeDeadlineExceeded, rpc.CodeOf(err), "%v", err)
	require.False(t, failure(t, err).Retryable())
	require.ErrorIs(t, <-ended, context.DeadlineExceeded)
}

// A server that never answers does not keep a caller beyond its deadline.
func TestCallEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	_, err := nc.Subscribe(getServer.Subject().String(), func(*nats.Msg) {})
	require.NoError(t, err)
	_, err = getServer.Call(asking(t, 20*time.Millisecond), dial(t, nc), getRequest{})
	requireLocal(t, err, rpc.CodeDeadlineExceeded, false)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// A caller whose patience outlasts what it said in the header hears from the server.
func TestServerSaysThatTheDeadlineIsOver(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	serve(t, nc, quiet(), rpc.On(getServer, func(ctx context.Context, _ getRequest) (getReply, error) {
		<-ctx.Done()
		return getReply{}, errors.New("cut off")
	}))
	m := request(`{"id":"1"}`)
	m.Header.Set("Dv-Timeout-Ms", "1")
	reply, err := nc.RequestMsg(m, patience)
	require.NoError(t, err)
	require.Equal(t, "504", reply.Header.Get("Nats-Service-Error-Code"))
	require.JSONEq(t, `{"code":"deadline_exceeded","message":"the handler was not done before the deadline"}`, string(reply.Data))
}

// A reply behind the deadline reaches nobody. Counted as a success, it would hide from
// the operator that an operation is too slow for its callers.
func TestReplyBehindTheDeadlineIsAnError(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	serve(t, nc, quiet(), rpc.On(getServer, func(ctx context.Context, _ getRequest) (getReply, error) {
		<-ctx.Done()
		return getReply{}, nil // it does not look at ctx
	}))
	m := request(`{"id":"1"}`)
	m.Header.Set("Dv-Timeout-Ms", "1")
	requireRefused(t, nc, m, "504", "deadline_exceeded", "not done before the deadline")
}

func TestHandlersRunConcurrentlyAndOverloadIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	const places = 3
	var log journal
	begun, release := make(chan struct{}, places), make(chan struct{})
	_, client := setup(t, func(context.Context, getRequest) (getReply, error) {
		begun <- struct{}{}
		<-release
		return getReply{}, nil
	}, log.logging, func(c *rpc.ServerConfig) { c.Concurrency = places })
	results := make(chan error, places)
	for range places {
		go func() {
			_, err := getServer.Call(asking(t, patience), client, getRequest{})
			results <- err
		}()
	}
	for range places {
		<-begun // all of them at the same time
	}
	for range 20 {
		_, err := getServer.Call(asking(t, patience), client, getRequest{})
		requireWire(t, err, rpc.CodeUnavailable, true)
		require.ErrorContains(t, err, "all 3 handlers are busy")
	}
	close(release)
	for range places {
		require.NoError(t, <-results)
	}
	require.Equal(t, 1, strings.Count(log.String(), "requests are refused"), "no line for each refusal")
}

func TestOversizeReplyIsAnErrorThatSaysSo(t *testing.T) {
	t.Parallel()
	var log journal
	_, client := setup(t, func(_ context.Context, r getRequest) (getReply, error) {
		return getReply{Hostname: strings.Repeat("x", 1024-len(`{"hostname":""}`)) + r.ID}, nil
	}, log.logging, func(c *rpc.ServerConfig) { c.MaxReply = 1024 })
	_, err := getServer.Call(asking(t, patience), client, getRequest{})
	require.NoError(t, err)
	_, err = getServer.Call(asking(t, patience), client, getRequest{ID: "y"})
	e := requireWire(t, err, rpc.CodeResourceExhausted, false)
	require.Equal(t, "reply has 1025 bytes, at most 1024; ask for less", e.Message)
	require.Contains(t, log.String(), "reply has 1025 bytes, at most 1024; page it")
}

func TestOversizeRequestOfAForeignClientIsRefused(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	serve(t, nc, quiet(func(c *rpc.ServerConfig) { c.MaxRequest = 1024 }), rpc.On(getServer, hello))
	requireRefused(t, nc, request(`{"id":"`+strings.Repeat("x", 1024)+`"}`), "429", "resource_exhausted", "request has 1033 bytes, at most 1024")
}

func TestServedVersionsAreToldApart(t *testing.T) {
	t.Parallel()
	type replyV2 struct {
		Name string `json:"name"`
	}
	getServerV2 := rpc.MustOperation[getRequest, replyV2](rpc.Spec{Service: subject.Maskin, Name: "get_server", Version: 2})
	getServerV3 := rpc.MustOperation[getRequest, replyV2](rpc.Spec{Service: subject.Maskin, Name: "get_server", Version: 3})
	nc := dvtest.NATS(t).NATS()
	serve(t, nc, quiet(), rpc.On(getServer, hello), rpc.On(getServerV2, func(_ context.Context, r getRequest) (replyV2, error) {
		return replyV2{Name: "name-" + r.ID}, nil
	}))
	client := dial(t, nc)
	one, err := getServer.Call(asking(t, patience), client, getRequest{ID: "1"})
	require.NoError(t, err)
	require.Equal(t, "host-1", one.Hostname)
	two, err := getServerV2.Call(asking(t, patience), client, getRequest{ID: "1"})
	require.NoError(t, err)
	require.Equal(t, "name-1", two.Name)
	_, err = getServerV3.Call(asking(t, patience), client, getRequest{ID: "1"})
	requireWire(t, err, rpc.CodeUnimplemented, false)
	require.ErrorContains(t, err, "maskin.get_server is served in version 1, 2")
}

// An RPC server answers requests. What is only published there is nobody's call, and
// must not have an effect.
func TestMessageWithoutAReplySubjectIsNotHandled(t *testing.T) {
	t.Parallel()
	var handled atomic.Int32
	nc := dvtest.NATS(t).NATS()
	server := serve(t, nc, quiet(), rpc.On(getServer, func(context.Context, getRequest) (getReply, error) {
		handled.Add(1)
		return getReply{}, nil
	}))
	require.NoError(t, nc.PublishMsg(request(`{"id":"1"}`)))
	_, err := getServer.Call(asking(t, patience), dial(t, nc), getRequest{})
	require.NoError(t, err)
	require.NoError(t, server.stop()) // whatever was begun is done now
	require.Equal(t, int32(1), handled.Load())
}

// The broker lets a server answer on whatever subject the request names. A caller
// that may only call must not get events published, or streams purged, that way.
func TestReplySubjectThatIsNoInboxIsNotAnswered(t *testing.T) {
	t.Parallel()
	var handled atomic.Int32
	nc := dvtest.NATS(t).NATS()
	server := serve(t, nc, quiet(), rpc.On(getServer, func(context.Context, getRequest) (getReply, error) {
		handled.Add(1)
		return getReply{}, nil
	}))
	var answers []*nats.Subscription
	for _, abused := range []string{"dv.maskin.evt.server.deleted", "$JS.API.STREAM.PURGE.DV_MASKIN_EVT", "$JS.ACK.x"} {
		sub, err := nc.SubscribeSync(abused)
		require.NoError(t, err)
		answers = append(answers, sub)
		m := request(`{"id":"1"}`)
		m.Reply = abused
		require.NoError(t, nc.PublishMsg(m))
		require.NoError(t, nc.PublishRequest("$SRV.PING", abused, nil))
	}
	_, err := getServer.Call(asking(t, patience), dial(t, nc), getRequest{})
	require.NoError(t, err)
	_, err = nc.Request("$SRV.PING", nil, patience)
	require.NoError(t, err)
	require.NoError(t, server.stop())
	require.NoError(t, nc.Flush())
	require.Equal(t, int32(1), handled.Load())
	for _, sub := range answers {
		n, _, err := sub.Pending()
		require.NoError(t, err)
		require.Zero(t, n, sub.Subject)
	}
}

// request is what a client in another language sends.
func request(body string) *nats.Msg {
	return &nats.Msg{Subject: "dv.rpc.maskin.get_server", Data: []byte(body), Header: nats.Header{
		"Dv-Timeout-Ms": {"9000"}, "X-Event-Version": {"1"}, "X-Correlation-Id": {"c-1"}, "Dv-Actor": {"user:ola"}, "tenant-id": {"tenant-1"},
	}}
}

// requireRefused sends m and checks the error reply.
func requireRefused(t *testing.T, nc *nats.Conn, m *nats.Msg, number, code, text string) {
	t.Helper()
	reply, err := nc.RequestMsg(m, patience)
	require.NoError(t, err)
	require.Equal(t, number, reply.Header.Get("Nats-Service-Error-Code"), text)
	require.Contains(t, string(reply.Data), `{"code":"`+code+`","message":"`, text)
	require.Contains(t, string(reply.Data), text)
	require.Contains(t, reply.Header.Get("Nats-Service-Error"), text)
	require.Len(t, reply.Header, 2)
}
