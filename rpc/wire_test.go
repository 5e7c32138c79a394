package rpc_test

import (
	"context"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/rpc"
)

// The exchange that docs/WIRE.md describes, by a client that knows nothing of this
// library.
func TestForeignClientIsServed(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	var origin envelope.Origin
	serve(t, nc, quiet(), rpc.On(getServer, func(ctx context.Context, r getRequest) (getReply, error) {
		origin, _ = envelope.OriginFrom(ctx)
		if r.ID == "" {
			return getReply{}, rpc.Errorf(rpc.CodeInvalidArgument, "id is empty\r\nForged: æ")
		}
		return hello(ctx, r)
	}))
	m := request(`{"id":"7","unknown":[1,{"a":null}]}`)
	m.Header["X-Foreign"] = []string{"a", "b"}
	reply, err := nc.RequestMsg(m, patience)
	require.NoError(t, err)
	require.Equal(t, nats.Header{"X-Event-Version": {"1"}}, reply.Header)
	require.Equal(t, `{"hostname":"host-7"}`, string(reply.Data))
	require.Equal(t, envelope.Origin{CorrelationID: "c-1", Actor: "user:ola", TenantID: "tenant-1"}, origin)

	m = request(`{}`)
	delete(m.Header, "tenant-id")
	reply, err = nc.RequestMsg(m, patience)
	require.NoError(t, err)
	require.Equal(t, nats.Header{"Nats-Service-Error-Code": {"400"}, "Nats-Service-Error": {"id is empty  Forged: ?"}}, reply.Header)
	require.Equal(t, `{"code":"invalid_argument","message":"id is empty  Forged: æ"}`, string(reply.Data))
	require.True(t, origin.PlatformScope)
}

// The other side of it: what a server in another language receives.
func TestCallSendsWhatTheWireContractSays(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	got := make(chan *nats.Msg, 1)
	_, err := nc.Subscribe("dv.rpc.maskin.get_server", func(m *nats.Msg) {
		got <- m
		_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"X-Event-Version": {"1"}}, Data: []byte(`{"hostname":"h"}`)})
	})
	require.NoError(t, err)
	ctx := envelope.WithOrigin(asking(t, patience), envelope.Origin{
		CorrelationID: "c-1", CausationID: "m-1", Actor: "user:ola", TenantID: "tenant-1",
		Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	})
	reply, err := getServer.Call(ctx, dial(t, nc), getRequest{ID: "7"})
	require.NoError(t, err)
	require.Equal(t, "h", reply.Hostname)
	m := <-got
	require.Equal(t, `{"id":"7"}`, string(m.Data))
	require.Regexp(t, `^[1-8][0-9]{3}$`, m.Header.Get("Dv-Timeout-Ms"))
	delete(m.Header, "Dv-Timeout-Ms")
	require.Equal(t, nats.Header{
		"X-Event-Version": {"1"}, "X-Correlation-Id": {"c-1"}, "X-Causation-Id": {"m-1"}, "Dv-Actor": {"user:ola"},
		"tenant-id": {"tenant-1"}, "Dv-Source": {"plattform"}, "traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
	}, m.Header)
}

func TestRequestThatBreaksTheContractIsRefusedWithWhatToDo(t *testing.T) {
	t.Parallel()
	nc := dvtest.NATS(t).NATS()
	serve(t, nc, quiet(), rpc.On(getServer, func(context.Context, getRequest) (getReply, error) {
		panic("the handler saw it")
	}))
	set := func(name string, values ...string) func(*nats.Msg) {
		return func(m *nats.Msg) { m.Header[name] = values }
	}
	without := func(name string) func(*nats.Msg) { return func(m *nats.Msg) { delete(m.Header, name) } }
	body := func(text string) func(*nats.Msg) { return func(m *nats.Msg) { m.Data = []byte(text) } }
	for _, c := range []struct {
		name   string
		change func(*nats.Msg)
		text   string
	}{
		{"no headers", func(m *nats.Msg) { m.Header = nil }, "header Dv-Timeout-Ms is missing"},
		{"no timeout", without("Dv-Timeout-Ms"), "header Dv-Timeout-Ms is missing: say for how many milliseconds"},
		{"zero", set("Dv-Timeout-Ms", "0"), "must be a number of milliseconds, 1 to 10000"},
		{"leading zero", set("Dv-Timeout-Ms", "010"), "1 to 10000"},
		{"negative", set("Dv-Timeout-Ms", "-5"), "1 to 10000"},
		{"unit", set("Dv-Timeout-Ms", "5s"), "1 to 10000"},
		{"very long", set("Dv-Timeout-Ms", strings.Repeat("9", 40)), "1 to 10000"},
		{"above the ceiling", set("Dv-Timeout-Ms", "10001"), "more than 10000 ms: work that takes longer is a command with a task"},
		{"no version", without("X-Event-Version"), "header X-Event-Version is missing"},
		{"no correlation", without("X-Correlation-Id"), "header X-Correlation-Id is missing"},
		{"bad correlation", set("X-Correlation-Id", "a b"), "header X-Correlation-Id must be letters"},
		{"no actor", without("Dv-Actor"), "header Dv-Actor is missing"},
		{"bad actor", set("Dv-Actor", "robot:1"), "header Dv-Actor kind must be user"},
		{"bad tenant and causation", func(m *nats.Msg) {
			set("tenant-id", "a b")(m)
			set("X-Causation-Id", "æ")(m)
		}, "; header tenant-id must be letters"},
		{"unknown source", set("Dv-Source", "nobody"), "header Dv-Source is no service"},
		{"two tenants", set("tenant-id", "a", "b"), "header tenant-id comes more than once"},
		{"tenant in another case", set("Tenant-Id", "b"), "header tenant-id is spelled in another case"},
		{"timeout in another case", func(m *nats.Msg) {
			set("dv-timeout-ms", "9")(m)
			without("Dv-Timeout-Ms")(m)
		}, "header Dv-Timeout-Ms is spelled in another case"},
		{"empty body", body(""), "not acceptable JSON"},
		{"no object", body("[1]"), "an object"},
		{"twice the name", body(`{"id":"1","id":"2"}`), "name comes twice"},
		{"another case", body(`{"ID":"1"}`), "but for case"},
		{"broken UTF-8", body("{\"id\":\"\xff\"}"), "UTF-8"},
		{"bytes behind", body(`{}x`), "not acceptable JSON"},
		{"another type", body(`{"id":4711}`), "cannot take a number"},
	} {
		m := request(`{"id":"1"}`)
		c.change(m)
		requireRefused(t, nc, m, "400", "invalid_argument", c.text)
		reply, err := nc.RequestMsg(m, patience)
		require.NoError(t, err)
		require.NotContains(t, string(reply.Data), "4711", c.name)
	}
	m := request(`{}`)
	m.Header.Set("X-Event-Version", "01")
	requireRefused(t, nc, m, "501", "unimplemented", "maskin.get_server is served in version 1")
}
