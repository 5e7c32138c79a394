package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
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
		"NATS_URL": broker.URL(), "DATABASE_URL": address(pool),
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

// address is how another pool reaches the database of this test. The pool's own
// connection string names the server's.
func address(pool *pgxpool.Pool) string {
	to := pool.Config().ConnConfig
	return fmt.Sprintf("host='%s' port=%d user='%s' password='%s' dbname='%s'", to.Host, to.Port, to.User, to.Password, to.Database)
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

// probe returns what /readyz or /livez answer; 0 for nothing.
func (r *running) probe(path string) (status int, body string) {
	response, err := http.Get("http://" + r.probes.Addr().String() + path)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// answers reports whether a probe has that status.
func (r *running) answers(path string, want int) func() bool {
	return func() bool {
		status, _ := r.probe(path)
		return status == want
	}
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
	require.Eventually(t, r.answers("/readyz", http.StatusOK), soon, 10*time.Millisecond)
	require.True(t, r.answers("/livez", http.StatusOK)())

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

// While a request is under way the process is alive, but not ready for another; the
// request is answered, and then everything ends.
func TestStopFinishesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	r := start(t)
	require.Eventually(t, func() bool { return r.node(t).State == "ready" }, soon, 10*time.Millisecond)
	lock, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = lock.Exec(t.Context(), `lock table node`)
	require.NoError(t, err)
	status := make(chan int, 1)
	go func() {
		request, _ := http.NewRequest("GET", "http://"+r.apis.Addr().String()+"/nodes/server-1", nil)
		request.Header.Set("Authorization", "Bearer t1")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			status <- 0
			return
		}
		_ = response.Body.Close()
		status <- response.StatusCode
	}()
	require.Eventually(t, func() bool {
		var waits bool
		err := r.pool.QueryRow(t.Context(), `select exists (select from pg_locks
			where not granted and database = (select oid from pg_database where datname = current_database()))`).Scan(&waits)
		return err == nil && waits
	}, soon, 10*time.Millisecond)

	r.stop()
	require.Eventually(t, func() bool {
		status, body := r.probe("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "the process is stopping")
	}, soon, 10*time.Millisecond)
	require.True(t, r.answers("/livez", http.StatusOK)())
	require.NoError(t, lock.Rollback(t.Context()))
	require.Equal(t, http.StatusOK, <-status)
	require.NoError(t, <-r.ended)
	r.ended <- nil // for the end of the test
	require.True(t, r.answers("/livez", 0)(), "the last server is gone, too")
}

func TestStagesStopInOrderAndAFailureStopsAll(t *testing.T) {
	t.Parallel()
	var order []string // written by one stage at a time
	relaying := make(chan context.Context, 1)
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
		stage{"consumer": func(ctx context.Context) error {
			err := ends("consumer")(ctx)
			return errors.Join(err, (<-relaying).Err()) // a handler may still enqueue
		}},
		stage{"relay": func(ctx context.Context) error {
			relaying <- ctx
			return ends("relay")(ctx)
		}},
		stage{"janitor": func(context.Context) error { return broken }},
	)
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, context.Canceled, "the relay was told to stop before the consumer had ended")
	require.ErrorContains(t, err, "janitor: ")
	require.Equal(t, []string{"http", "consumer", "relay"}, order)

	err = runStages(t.Context(), stage{"short": func(context.Context) error { return nil }})
	require.ErrorContains(t, err, "short: ended unasked")
}
