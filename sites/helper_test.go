package sites_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

const (
	// soon bounds what takes milliseconds.
	soon = 20 * time.Second
	tick = 5 * time.Millisecond

	events  = "DV_MASKIN_EVT"
	copyAtB = "DV_MASKIN_EVT_FROM_DC1"
)

// eventsToB is the events of maskin from A to B.
func eventsToB(entities ...string) topology.Flow {
	return topology.Flow{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoEvents, Service: subject.Maskin, Entities: entities}
}

// fast looks often.
func fast() sites.Config {
	return sites.Config{
		Every: 50 * time.Millisecond, Silent: 1500 * time.Millisecond, AskTimeout: time.Second,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// end is one site as maskin has it.
type end struct {
	site *dvtest.Site
	conn *natsconn.Conn
	set  topology.Set
	sent int
}

// ends starts two sites and maskin's streams at both.
func ends(t *testing.T, flows ...topology.Flow) (*dvtest.TwoSites, *end, *end) {
	t.Helper()
	s := dvtest.Sites(t, flows...)
	return s, newEnd(t, s.A()), newEnd(t, s.B())
}

func newEnd(t *testing.T, site *dvtest.Site) *end {
	t.Helper()
	e := &end{site: site, conn: site.Connect(t)}
	e.set = site.Ensure(t, e.conn, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{
		topology.Events(subject.Maskin, topology.Limits{}), topology.Commands(subject.Maskin, topology.Limits{}),
	}})
	return e
}

// watcher makes a watcher of maskin at the site and runs it until the test ends.
func (e *end) watcher(t *testing.T, cfg sites.Config) *sites.Watcher {
	t.Helper()
	w, _ := e.stoppable(t, cfg)
	return w
}

func (e *end) watcherWith(t *testing.T, cfg sites.Config, change func(*sites.Watcher)) *sites.Watcher {
	t.Helper()
	w, _ := e.stoppable(t, cfg, change)
	return w
}

func (e *end) stoppable(t *testing.T, cfg sites.Config, change ...func(*sites.Watcher)) (w *sites.Watcher, stop func()) {
	t.Helper()
	w, err := sites.New(e.conn, e.set, cfg)
	require.NoError(t, err)
	for _, f := range change {
		f(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-ended)
		}
	}
	t.Cleanup(stop)
	return w, stop
}

// publish stores n events of an entity at the site.
func (e *end) publish(t *testing.T, n int, entity string) {
	t.Helper()
	for range n {
		e.sent++
		msg := nats.NewMsg("dv.maskin.evt." + entity + ".provisioned")
		_, err := e.conn.JetStream().PublishMsg(t.Context(), msg, jetstream.WithMsgID(fmt.Sprint(e.site.Name(), e.sent)), jetstream.WithExpectStream(events))
		require.NoError(t, err)
	}
}

// requireFlow waits until the one flow of w is as wanted, and returns it.
func requireFlow(t *testing.T, w *sites.Watcher, what string, wanted func(sites.Flow) bool) sites.Flow {
	t.Helper()
	var f sites.Flow
	require.Eventually(t, func() bool {
		f = w.Flows()[0]
		return wanted(f)
	}, soon, tick, what)
	return f
}

func moving(f sites.Flow) bool {
	return f.State == sites.StateMoving && f.Behind == 0 && f.Reachable && f.Err == ""
}
