package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/subject"
)

func TestCallReturnsTheTypedReply(t *testing.T) {
	t.Parallel()
	_, client := setup(t, hello)
	reply, err := getServer.Call(asking(t, patience), client, getRequest{ID: "7"})
	require.NoError(t, err)
	require.Equal(t, getReply{Hostname: "host-7"}, reply)
}

func TestOriginAndDeadlineReachTheHandler(t *testing.T) {
	t.Parallel()
	want := envelope.Origin{
		CorrelationID: "c-1", CausationID: "0190a0b0-0000-7000-8000-00000000000a", Actor: "user:ola", TenantID: "tenant-1",
		Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
	var got envelope.Origin
	var left time.Duration
	_, client := setup(t, func(ctx context.Context, _ getRequest) (getReply, error) {
		got, _ = envelope.OriginFrom(ctx)
		deadline, _ := ctx.Deadline()
		left = time.Until(deadline)
		return getReply{}, nil
	})
	ctx := asking(t, patience)
	_, err := getServer.Call(envelope.WithOrigin(ctx, want), client, getRequest{})
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Greater(t, left, time.Duration(0))
	require.LessOrEqual(t, left, patience)

	want.CausationID, want.TenantID, want.PlatformScope, want.Traceparent = "", "", true, "nonsense\r\nX: y"
	_, err = getServer.Call(envelope.WithOrigin(ctx, want), client, getRequest{})
	require.NoError(t, err)
	want.Traceparent = "" // a fault of telemetry does not fail the work
	require.Equal(t, want, got)
}

func TestCallWithoutDeadlineIsRefusedHere(t *testing.T) {
	t.Parallel()
	_, client := setup(t, hello)
	origin := envelope.NewOrigin("user:ola", "tenant-1")
	_, err := getServer.Call(envelope.WithOrigin(t.Context(), origin), client, getRequest{})
	require.ErrorIs(t, err, rpc.ErrNoDeadline)
	requireLocal(t, err, rpc.CodeInvalidArgument, false)

	_, err = getServer.Call(asking(t, 11*time.Second), client, getRequest{})
	require.ErrorIs(t, err, rpc.ErrDeadlineTooFar)
	requireLocal(t, err, rpc.CodeInvalidArgument, false)
	require.ErrorContains(t, err, "command with a task")

	ctx, cancel := context.WithDeadline(asking(t, patience), time.Now().Add(-time.Second))
	defer cancel()
	_, err = getServer.Call(ctx, client, getRequest{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	requireLocal(t, err, rpc.CodeDeadlineExceeded, false)
}

func TestCallWithoutOriginIsRefusedHere(t *testing.T) {
	t.Parallel()
	_, client := setup(t, hello)
	ctx := envelope.WithOrigin(asking(t, patience), envelope.Origin{})
	_, err := getServer.Call(ctx, client, getRequest{})
	requireLocal(t, err, rpc.CodeInvalidArgument, false)
	require.ErrorContains(t, err, "envelope.WithOrigin")

	for field, origin := range map[string]envelope.Origin{
		"Origin.CorrelationID": {Actor: "user:ola", TenantID: "t"},
		"Origin.Actor":         {CorrelationID: "c", TenantID: "t"},
		"Origin.TenantID":      {CorrelationID: "c", Actor: "user:ola"},
		"Origin.PlatformScope": {CorrelationID: "c", Actor: "user:ola", TenantID: "t", PlatformScope: true},
	} {
		_, err := getServer.Call(envelope.WithOrigin(ctx, origin), client, getRequest{})
		requireLocal(t, err, rpc.CodeInvalidArgument, false)
		require.ErrorContains(t, err, field)
	}
	_, err = getServer.Call(envelope.WithOrigin(ctx, envelope.Origin{CorrelationID: "secret\r\nX: y", Actor: "user:ola", TenantID: "t"}), client, getRequest{})
	require.ErrorContains(t, err, "Origin.CorrelationID")
	require.NotContains(t, err.Error(), "secret", "no value in an error")
}

// requireLocal checks that the caller's own process said so.
func requireLocal(t *testing.T, err error, code rpc.Code, retryable bool) {
	t.Helper()
	e := failure(t, err)
	require.True(t, e.Local, "%v", err)
	require.Equal(t, code, e.Code, "%v", err)
	require.Equal(t, retryable, e.Retryable(), "%v", err)
	require.ErrorContains(t, err, string(code)+" (local)")
}

// requireWire checks that the server said so.
func requireWire(t *testing.T, err error, code rpc.Code, retryable bool) *rpc.Error {
	t.Helper()
	e := failure(t, err)
	require.False(t, e.Local, "%v", err)
	require.Equal(t, code, e.Code, "%v", err)
	require.Equal(t, code, rpc.CodeOf(err))
	require.Equal(t, retryable, e.Retryable(), "%v", err)
	require.Equal(t, "maskin.get_server", e.Operation)
	require.NotContains(t, err.Error(), "(local)")
	return e
}

func TestNoServerIsToldFromAServerThatIsUnavailable(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	client := dial(t, nc)
	_, err := getServer.Call(asking(t, patience), client, getRequest{})
	requireLocal(t, err, rpc.CodeUnavailable, true)
	require.ErrorIs(t, err, nats.ErrNoResponders)

	serve(t, nc, quiet(), rpc.On(getServer, func(context.Context, getRequest) (getReply, error) {
		return getReply{}, rpc.Errorf(rpc.CodeUnavailable, "the rack controller is being replaced")
	}))
	_, err = getServer.Call(asking(t, patience), client, getRequest{})
	requireWire(t, err, rpc.CodeUnavailable, true)
	require.ErrorContains(t, err, "the rack controller is being replaced")
}

func TestOversizeRequestIsRefusedHere(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	client := dial(t, nc, func(c *rpc.ClientConfig) { c.MaxRequest = 1024 })
	serve(t, nc, quiet(), rpc.On(getServer, hello))
	frame := len(`{"id":""}`)
	_, err := getServer.Call(asking(t, patience), client, getRequest{ID: strings.Repeat("x", 1024-frame)})
	require.NoError(t, err)
	_, err = getServer.Call(asking(t, patience), client, getRequest{ID: strings.Repeat("x", 1025-frame)})
	require.ErrorIs(t, err, rpc.ErrTooLarge)
	requireLocal(t, err, rpc.CodeResourceExhausted, false)
	require.NotContains(t, err.Error(), "xxx")
}

type vain struct{}

// MarshalJSON fails with a text that quotes what it was given.
func (vain) MarshalJSON() ([]byte, error) { return nil, errors.New("secret-4711") }

// UnmarshalJSON does the same.
func (*vain) UnmarshalJSON([]byte) error { return errors.New("secret-4711") }

func TestBodyThatDoesNotMarshalIsRefusedWithoutQuotingIt(t *testing.T) {
	t.Parallel()
	client := dial(t, dvtest.NATS(t).NATS())
	op := rpc.MustOperation[vain, getReply](rpc.Spec{Service: subject.Maskin, Name: "get_server", Version: 1})
	_, err := op.Call(asking(t, patience), client, vain{})
	requireLocal(t, err, rpc.CodeInvalidArgument, false)
	require.NotContains(t, err.Error(), "secret")

	nilable := rpc.MustOperation[*getRequest, getReply](rpc.Spec{Service: subject.Maskin, Name: "get_server", Version: 1})
	_, err = nilable.Call(asking(t, patience), client, nil)
	requireLocal(t, err, rpc.CodeInvalidArgument, false)
	require.ErrorContains(t, err, "nil pointer")
}

// shouted marshals itself, by a method of its pointer.
type shouted struct{ word string }

func (s *shouted) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"id": strings.ToUpper(s.word)})
}

func (s *shouted) UnmarshalJSON(data []byte) error {
	var in getRequest
	err := json.Unmarshal(data, &in)
	s.word = in.ID
	return err
}

func TestBodyMarshalsItselfWhateverItsReceiver(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	op := rpc.MustOperation[shouted, shouted](rpc.Spec{Service: subject.Maskin, Name: "shout", Version: 1})
	serve(t, nc, quiet(), rpc.On(op, func(_ context.Context, r shouted) (shouted, error) {
		return shouted{r.word + "-and-back"}, nil
	}))
	reply, err := op.Call(asking(t, patience), dial(t, nc), shouted{"there"})
	require.NoError(t, err)
	require.Equal(t, shouted{"THERE-AND-BACK"}, reply)
}

func TestCallerWhoGivesUpGetsCanceled(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	_, client := setup(t, func(context.Context, getRequest) (getReply, error) {
		close(begun)
		<-release
		return getReply{}, nil
	})
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithCancel(asking(t, patience))
	go func() {
		<-begun
		cancel()
	}()
	_, err := getServer.Call(ctx, client, getRequest{})
	require.ErrorIs(t, err, context.Canceled)
	requireLocal(t, err, rpc.CodeCanceled, false)
}

func TestCallOverAClosedConnectionIsUnavailable(t *testing.T) {
	t.Parallel()
	nc := dvtest.Server(t).Connect(t).NATS()
	client := dial(t, nc)
	nc.Close()
	_, err := getServer.Call(asking(t, patience), client, getRequest{})
	requireLocal(t, err, rpc.CodeUnavailable, true)
}

// A client library may keep a request until the broker is back, which nobody waits
// for then; and one that is refused there leaves its place in the table of answers
// behind, so that retries fill the memory for as long as the broker is away.
func TestCallWithoutTheBrokerIsNeitherKeptNorSent(t *testing.T) {
	t.Parallel()
	broker := dvtest.Server(t)
	nc, err := nats.Connect(broker.URL()) // it buffers, as the library's own connection does not
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	client := dial(t, nc)
	broker.Stop()
	require.Eventually(t, func() bool { return !nc.IsConnected() }, soon, tick)
	_, err = getServer.Call(asking(t, patience), client, getRequest{ID: "1"})
	requireLocal(t, err, rpc.CodeUnavailable, true)
	require.ErrorContains(t, err, "nothing was sent")
	buffered, err := nc.Buffered()
	require.NoError(t, err)
	require.Zero(t, buffered)
}

// The connection goes while the handler is at work: nobody knows whether it is done.
func TestConnectionLostWhileWaitingIsNotRetryable(t *testing.T) {
	t.Parallel()
	broker := dvtest.Server(t)
	nc := broker.Connect(t).NATS()
	begun := make(chan struct{})
	_, err := nc.Subscribe(getServer.Subject().String(), func(*nats.Msg) { close(begun) })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	caller := broker.Connect(t).NATS()
	client := dial(t, caller)
	go func() {
		<-begun
		caller.Close()
	}()
	_, err = getServer.Call(asking(t, patience), client, getRequest{})
	requireLocal(t, err, rpc.CodeCanceled, false) // unavailable would say that nothing was done
	require.ErrorIs(t, err, nats.ErrConnectionClosed)
}

// A stream that holds RPC subjects answers each request with an acknowledgement,
// which is a JSON object, too. It must not pass for a reply of zero values.
func TestAcknowledgementOfAStreamIsNoReply(t *testing.T) {
	t.Parallel()
	conn := dvtest.NATS(t)
	_, err := conn.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "GREEDY", Subjects: []string{"dv.rpc.>"}})
	require.NoError(t, err)
	_, err = getServer.Call(asking(t, patience), dial(t, conn.NATS()), getRequest{})
	requireLocal(t, err, rpc.CodeInternal, false)
	require.ErrorContains(t, err, "does a stream or another program listen on dv.rpc.maskin.get_server?")
}

func TestForeignServersErrorsAndRepliesAreReadStrictly(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	answers := make(chan *nats.Msg, 1)
	_, err := nc.Subscribe(getServer.Subject().String(), func(m *nats.Msg) {
		answer := <-answers
		_ = m.RespondMsg(answer)
	})
	require.NoError(t, err)
	client := dial(t, nc)
	ok := nats.Header{"X-Event-Version": {"1"}}
	bad := nats.Header{"Nats-Service-Error-Code": {"404"}, "Nats-Service-Error": {"x"}}
	for _, c := range []struct {
		name   string
		header nats.Header
		body   string
		local  bool
		code   rpc.Code
		text   string
	}{
		{"unknown fields are ignored", ok, `{"hostname":"h","rack":{"a":1}}`, false, "", ""},
		{"white space", ok, " {\n} ", false, "", ""},
		{"another version", nats.Header{"X-Event-Version": {"2"}}, `{}`, true, rpc.CodeInternal, "no reply of this operation in version 1"},
		{"twice the name", ok, `{"hostname":"a","hostname":"b"}`, true, rpc.CodeInternal, "name comes twice"},
		{"another case", ok, `{"Hostname":"a"}`, true, rpc.CodeInternal, "but for case"},
		{"bytes behind", ok, `{} {}`, true, rpc.CodeInternal, "not acceptable JSON"},
		{"null", ok, `null`, true, rpc.CodeInternal, "an object"},
		{"another type", ok, `{"hostname":4711}`, true, rpc.CodeInternal, `field "hostname" cannot take a number`},
		{"error", bad, `{"code":"not_found","message":"no server æ","more":1}`, false, rpc.CodeNotFound, "no server æ"},
		{"either header", nats.Header{"Nats-Service-Error": {"x"}}, `{"code":"conflict","message":"m"}`, false, rpc.CodeConflict, "m"},
		{"unknown code", bad, `{"code":"teapot","message":"m"}`, false, rpc.CodeInternal, "m"},
		{"micro service", bad, ``, false, rpc.CodeInternal, "in a form that is not known"},
		{"several lines", bad, `{"code":"not_found","message":"a\nb\u2028c"}`, false, rpc.CodeNotFound, "a b c"},
	} {
		answers <- &nats.Msg{Header: c.header, Data: []byte(c.body)}
		_, err := getServer.Call(asking(t, patience), client, getRequest{})
		if c.code == "" {
			require.NoError(t, err, c.name)
			continue
		}
		e := failure(t, err)
		require.Equal(t, c.local, e.Local, c.name)
		require.Equal(t, c.code, e.Code, c.name)
		require.Contains(t, e.Message, c.text, c.name)
		require.NotContains(t, e.Message, "4711", c.name)
	}
}

func TestRetryAfterTravels(t *testing.T) {
	t.Parallel()
	_, client := setup(t, func(context.Context, getRequest) (getReply, error) {
		e := rpc.Errorf(rpc.CodeResourceExhausted, "10 calls a second")
		e.RetryAfter = 1500 * time.Millisecond
		return getReply{}, e
	})
	_, err := getServer.Call(asking(t, patience), client, getRequest{})
	require.Equal(t, 1500*time.Millisecond, requireWire(t, err, rpc.CodeResourceExhausted, true).RetryAfter)
}

func TestOnlyWhatWasNotHandledIsRetryable(t *testing.T) {
	t.Parallel()
	for _, c := range []rpc.Code{
		rpc.CodeInvalidArgument, rpc.CodeNotFound, rpc.CodeAlreadyExists, rpc.CodePermissionDenied, rpc.CodeFailedPrecondition,
		rpc.CodeConflict, rpc.CodeResourceExhausted, rpc.CodeDeadlineExceeded, rpc.CodeCanceled, rpc.CodeUnimplemented, rpc.CodeInternal,
	} {
		require.False(t, rpc.Errorf(c, "x").Retryable(), string(c))
	}
	require.True(t, rpc.Errorf(rpc.CodeUnavailable, "x").Retryable())
	require.Equal(t, rpc.Code(""), rpc.CodeOf(nil))
	require.Equal(t, rpc.CodeInternal, rpc.CodeOf(errors.New("x")))
	require.Equal(t, rpc.CodeInternal, rpc.CodeOf(rpc.Errorf("teapot", "x")))
	require.Equal(t, "rpc: not_found: server 7", rpc.Errorf(rpc.CodeNotFound, "server %d", 7).Error())
}
