package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/service/plattformapi"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/subject"
)

// soon bounds what takes milliseconds on a machine that is not busy.
const soon = 20 * time.Second

// running is the whole service, and how to reach it.
type running struct {
	*service
	operator *natsconn.Conn // another connection to the same broker
	stop     context.CancelFunc
	ended    chan error
}

// start runs the service on a broker and a database of this test's own. maskin has
// announced server-1 before.
func start(t *testing.T) *running {
	t.Helper()
	broker, pool := dvtest.Server(t), newDatabase(t)
	r := &running{operator: broker.Connect(t), ended: make(chan error, 1)}
	require.NoError(t, others(t.Context(), r.operator.JetStream()))
	cfg, err := readConfig(environment(map[string]string{
		"NATS_URL": broker.URL(), "DATABASE_URL": pool.Config().ConnString(),
		"HTTP_ADDR": "127.0.0.1:0", "PROBE_ADDR": "127.0.0.1:0", "API_TOKENS": "t1=kari@tenant-1,t2=ola@tenant-2",
	}))
	require.NoError(t, err)
	r.service, err = open(t.Context(), cfg)
	t.Cleanup(func() { require.NoError(t, r.close()) })
	require.NoError(t, err)
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.WithoutCancel(t.Context()))
	go func() { r.ended <- r.run(ctx) }()
	t.Cleanup(func() {
		r.stop()
		require.NoError(t, <-r.ended)
	})
	return r
}

// ask sends a request and returns the answer.
func (r *running) ask(t require.TestingT, method, path, token string) (status int, body string) {
	request, err := http.NewRequest(method, "http://"+r.apis.Addr().String()+path, nil)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, strings.TrimSpace(string(text))
}

// probe returns the status of /readyz or /livez.
func (r *running) probe(path string) int {
	response, err := http.Get("http://" + r.probes.Addr().String() + path)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// node is what the API says of server-1.
func (r *running) node(t require.TestingT) (n plattformapi.NodeV1) {
	if status, body := r.ask(t, "GET", "/nodes/server-1", "t1"); status == http.StatusOK {
		require.NoError(t, json.NewDecoder(bytes.NewReader([]byte(body))).Decode(&n))
	}
	return n
}

func TestFromMaskinsEventToADrainedNode(t *testing.T) {
	t.Parallel()
	r := start(t)
	require.Eventually(t, func() bool { return r.node(t).State == "ready" }, soon, 10*time.Millisecond)
	require.Eventually(t, func() bool { return r.probe("/readyz") == http.StatusOK }, soon, 10*time.Millisecond)
	require.Equal(t, http.StatusOK, r.probe("/livez"))

	// Over HTTP, as a tenant: another's node does not exist, nobody's is forbidden.
	status, _ := r.ask(t, "POST", "/nodes/server-1/drain", "t2")
	require.Equal(t, http.StatusNotFound, status)
	status, _ = r.ask(t, "POST", "/nodes/server-1/drain", "none")
	require.Equal(t, http.StatusUnauthorized, status)
	status, body := r.ask(t, "POST", "/nodes/server-1/workloads/w1", "t1")
	require.Equal(t, http.StatusOK, status, body)
	status, body = r.ask(t, "POST", "/nodes/server-1/drain?reason=disks", "t1")
	require.Equal(t, http.StatusAccepted, status, body)
	var accepted struct{ Task string }
	require.NoError(t, json.Unmarshal([]byte(body), &accepted))
	dvtest.RequireHandledOnce(t, r.pool, "plattform", subject.Plattform, accepted.Task, dvtest.Within(soon))
	require.Equal(t, 1, dvtest.RequireEnqueued(t, r.pool, plattformapi.NodeDrained, dvtest.ForTenant("tenant-1")).Data.Moved)

	// Over the broker, as another service on behalf of the tenant.
	client, err := rpc.NewClient(r.operator.NATS(), rpc.ClientConfig{Service: subject.Sentral})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:kari", "tenant-1")), 5*time.Second)
	defer cancel()
	node, err := plattformapi.GetNode.Call(ctx, client, plattformapi.GetNodeV1{ID: "server-1"})
	require.NoError(t, err)
	require.Equal(t, "drained", node.State)
	_, err = plattformapi.GetNode.Call(ctx, client, plattformapi.GetNodeV1{ID: "server-9"})
	require.Equal(t, rpc.CodeNotFound, rpc.CodeOf(err))
}

func TestDrainOfANodeThatIsNotThereIsADeadLetter(t *testing.T) {
	t.Parallel()
	r := start(t)
	m, err := envelope.New(envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:kari", "tenant-1")), subject.Sentral,
		plattformapi.Drain.New("server-9", plattformapi.DrainV1{}))
	require.NoError(t, err)
	require.NoError(t, publish(t.Context(), r.operator.JetStream(), m))
	letter := dvtest.RequireDeadLettered(t, r.operator, subject.Plattform, dlq.Filter{Type: plattformapi.Drain.Name()}, dvtest.Within(soon))
	require.Equal(t, "drain node server-9: no such node", letter.Error)
}

// A request is accepted a moment before the stop: its command is committed, so it is
// published by this process or by the next one, and the stop ends all the same.
func TestStopEndsEveryPartInTime(t *testing.T) {
	t.Parallel()
	r := start(t)
	require.Eventually(t, func() bool { return r.node(t).State == "ready" }, soon, 10*time.Millisecond)
	status, body := r.ask(t, "POST", "/nodes/server-1/drain", "t1")
	require.Equal(t, http.StatusAccepted, status, body)
	r.stop()
	require.NoError(t, <-r.ended)
	r.ended <- nil // for the end of the test
	require.Zero(t, r.probe("/livez"), "the last server is gone, too")
	dvtest.RequireEnqueued(t, r.pool, plattformapi.Drain)
}

func TestStagesStopInOrderAndAFailureStopsAll(t *testing.T) {
	t.Parallel()
	var order []string // written by one stage at a time
	ends := func(name string) part {
		return func(ctx context.Context) error {
			<-ctx.Done()
			order = append(order, name)
			return nil
		}
	}
	broken := errors.New("broken")
	err := runStages(t.Context(),
		stage{"http": ends("http")},
		stage{"consumer": ends("consumer")},
		stage{"relay": ends("relay")},
		stage{"janitor": func(context.Context) error { return broken }},
	)
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "janitor: ")
	require.Equal(t, []string{"http", "consumer", "relay"}, order)

	err = runStages(t.Context(), stage{"short": func(context.Context) error { return nil }})
	require.ErrorContains(t, err, "short: ended unasked")
}
