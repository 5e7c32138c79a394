package dvtest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

func TestProvisionAnnouncesTheServer(t *testing.T) {
	t.Parallel()
	pool := newPool(t) // dvtest.Postgres(t) and the service's own tables

	require.NoError(t, Provision(request(t), pool, "server-1", "db1.oslo.example"))
	got := dvtest.RequireEnqueued(t, pool, ServerProvisioned, dvtest.ForResource("server-1"))
	require.Equal(t, "db1.oslo.example", got.Data.Hostname)

	require.Error(t, Provision(request(t), pool, "server-1", "again")) // the id is taken
	dvtest.RequireEnqueued(t, pool, ServerProvisioned)                 // still exactly one
}

func TestServerIsRegisteredOnce(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	route := RegisterNode(t, pool) // inbox.On(in, ServerProvisioned, …)

	m := dvtest.DeliverTwice(t, route, ServerProvisioned.New("server-1", ServerProvisionedV1{Hostname: "db1"}))
	require.Equal(t, 1, count(t, pool, "node"))
	dvtest.RequireEnqueued(t, pool, NodeRegistered, dvtest.CausedBy(m.Envelope.ID))

	err := dvtest.Deliver(t, route, ServerProvisioned.New("server-2", ServerProvisionedV1{}))
	require.True(t, envelope.IsPermanent(err), "no retry gives it a hostname: %v", err)
}

func TestFromTransactionToEffectOrDeadLetter(t *testing.T) {
	t.Parallel()
	conn, pool := dvtest.NATS(t), newPool(t)
	Serve(t, pool, conn.JetStream()) // relay and consumer, until the test ends

	require.NoError(t, Provision(request(t), pool, "server-1", "db1"))
	sent := dvtest.RequireEnqueued(t, pool, ServerProvisioned)
	dvtest.RequireHandledOnce(t, pool, "node_registry", subject.Maskin, sent.Envelope.ID)

	require.NoError(t, Provision(request(t), pool, "server-2", ""))
	letter := dvtest.RequireDeadLettered(t, conn, subject.Plattform, dlq.Filter{Type: ServerProvisioned.Name()})
	require.Equal(t, "server server-2 has no hostname", letter.Error)
}

// The package documentation shows the tests above; what it shows must compile.
func TestUsageIsTheCodeOfTheseTests(t *testing.T) {
	t.Parallel()
	code, err := os.ReadFile("usage_test.go")
	require.NoError(t, err)
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	_, usage, _ := strings.Cut(string(doc), "// # Usage\n")
	usage, _, _ = strings.Cut(usage, "// # ")
	var shown []string
	for line := range strings.Lines(usage) {
		text, isCode := strings.CutPrefix(line, "//\t")
		if isCode {
			shown = append(shown, text)
		}
	}
	var written []string
	for line := range strings.Lines(string(code)) {
		if line != "\n" {
			written = append(written, line)
		}
	}
	require.Greater(t, len(shown), 20)
	require.Contains(t, strings.Join(written, ""), strings.Join(shown, ""))
}
