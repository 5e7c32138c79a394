package sites_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/sites"
)

// request asks site dc1 from site dc2 as a watcher would, with any text.
func request(t *testing.T, nc *nats.Conn, on, reply, text string) map[string]any {
	t.Helper()
	sub, err := nc.SubscribeSync(reply)
	require.NoError(t, err)
	defer func() { _ = sub.Unsubscribe() }()
	require.NoError(t, nc.PublishMsg(&nats.Msg{Subject: on, Reply: reply, Data: []byte(text)}))
	m, err := sub.NextMsg(soon)
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(m.Data, &got), "%q %v", m.Data, m.Header)
	return got
}

// Whatever comes in over the link is answered with a reason, and the flow goes on. A row of docs/DELIVERY.md.
func TestQuestionsOfAnotherFormAreRefusedAndNothingIsLost(t *testing.T) {
	t.Parallel()
	_, a, b := ends(t, eventsToB())
	a.watcher(t, fast())
	w := b.watcher(t, fast())
	a.publish(t, 5, "server")
	requireFlow(t, w, "it moves", func(f sites.Flow) bool { return moving(f) && !f.CaughtUp.IsZero() })
	nc := b.conn.NATS()
	for i, c := range []struct{ on, text, code string }{
		{"dvsites.dc1.position.DV_MASKIN_EVT", "", "malformed"},
		{"dvsites.dc1.position.DV_MASKIN_EVT", `{"v":1,"to":"dc2","at":"x"}`, "malformed"},
		{"dvsites.dc1.position.DV_MASKIN_EVT", `{"v":1,"to":"dc2","at":1,"payload":"x"}`, "malformed"},
		{"dvsites.dc1.position.DV_MASKIN_EVT", `{"v":2,"to":"dc2"}`, "version"},
		{"dvsites.dc1.position.DV_MASKIN_EVT", `{"v":1,"to":"dc9"}`, "flow"},
		{"dvsites.dc1.delete.DV_MASKIN_EVT", `{"v":1,"to":"dc2"}`, "verb"},
	} {
		got := request(t, nc, c.on, fmt.Sprintf("dvsites.dc2.reply.test.%d", i), c.text)
		require.EqualValues(t, 1, got["v"])
		require.Equal(t, "dc1", got["site"])
		require.Equal(t, c.code, got["error"].(map[string]any)["code"], c.text)
	}
	good := request(t, nc, "dvsites.dc1.position.DV_MASKIN_EVT", "dvsites.dc2.reply.test.good", `{"v":1,"to":"dc2","at":2}`)
	require.EqualValues(t, 5, good["last"])
	require.EqualValues(t, 3, good["behind"])
	a.publish(t, 5, "server")
	requireFlow(t, w, "it moves on", func(f sites.Flow) bool { return moving(f) && f.CaughtUp.After(f.Looked.Add(-fast().Silent)) })
}

// impostor answers in the place of the watchers of dc1.
func impostor(t *testing.T, nc *nats.Conn, text func() string) {
	t.Helper()
	sub, err := nc.Subscribe("dvsites.dc1.*."+events, func(m *nats.Msg) { _ = m.Respond([]byte(text())) })
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	require.NoError(t, nc.Flush())
}

// A row of docs/DELIVERY.md.
func TestAnswersOfSomebodyElseDoNotHarmTheFlow(t *testing.T) {
	t.Parallel()
	_, a, b := ends(t, eventsToB())
	answers := []string{"", "{", `{"v":9}`, `{"v":1,"site":"dc1","last":"x"}`, `{"v":1,"site":"dc1","error":{"code":"failed","reason":"no"}}`}
	asked := make(chan int, 1)
	asked <- 0
	impostor(t, a.conn.NATS(), func() string {
		n := <-asked
		asked <- n + 1
		return answers[n%len(answers)]
	})
	w := b.watcher(t, fast())
	a.publish(t, 20, "server")
	require.Eventually(t, func() bool {
		n := <-asked
		asked <- n
		return n > 2*len(answers)
	}, soon, tick)
	f := requireFlow(t, w, "by the server's own word it moves", func(f sites.Flow) bool { return f.State == sites.StateMoving && f.Err != "" })
	require.False(t, f.Reachable)
	stream, err := b.conn.JetStream().Stream(t.Context(), copyAtB)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Msgs == 20
	}, soon, tick)
}
