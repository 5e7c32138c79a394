package sites

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/topology"
)

// Watcher watches the flows that end at its site in streams of its service, and
// answers the questions of other sites about those that begin there. All its
// methods are safe for concurrent use.
type Watcher struct {
	conn       *natsconn.Conn
	cfg        Config
	log        *slog.Logger
	site       string
	departures []departure
	verbs      map[string]handler
	watched    []*watch
	measured   *measures
	network    topology.Network
	pace       pace          // of what is sent again
	resending  chan struct{} // held by the one question for which that happens
	patience   time.Duration // noProgress, less in tests
	calm       time.Duration // calm, less in tests

	ran    atomic.Bool
	asker  *asker               // while Run runs
	subs   []*nats.Subscription // to questions; the same
	places chan struct{}        // one for each question that is being answered

	mu        sync.Mutex
	silent    bool           // no more questions are taken
	answering sync.WaitGroup // grows only while not silent
	warned    time.Time      // of a question that was refused
}

// New returns a watcher of the flows of a service at its site. The set is what
// [topology.Network.At] made; a set of a platform of one site has no flows, and the
// watcher then does nothing. New does no I/O and reports all faults at once.
func New(conn *natsconn.Conn, set topology.Set, cfg Config) (*Watcher, error) {
	cfg = cfg.withDefaults()
	faults := cfg.faults()
	if conn == nil {
		faults = append(faults, errNoConnection)
	}
	if err := set.Validate(); err != nil {
		faults = append(faults, err)
	}
	measured, err := newMeasures(cfg.MeterProvider)
	if err != nil {
		faults = append(faults, fmt.Errorf("sites: Config.MeterProvider: %w", err))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	w := &Watcher{
		conn: conn, cfg: cfg, log: cfg.Logger.With("site", set.Site), site: set.Site,
		departures: departures(set), places: make(chan struct{}, maxAnswering), patience: noProgress, calm: calm,
		network: set.Network, pace: pace{each: time.Second / time.Duration(cfg.ResendRate)}, resending: make(chan struct{}, 1),
	}
	for i, d := range w.departures {
		w.departures[i].index = &index{stream: d.stream, filters: d.filters, horizon: cfg.Horizon}
	}
	w.verbs, w.measured = w.handlers(), measured
	for _, a := range arrivals(set) {
		w.watched = append(w.watched, newWatch(w, a))
	}
	return w, nil
}

// Run watches and answers until ctx ends, and returns nil then. A broker that does
// not answer is waited for. A connection that is closed for good ends Run with
// [ErrConnectionClosed]. Run may be called once; drain the connection after it has
// returned.
func (w *Watcher) Run(ctx context.Context) error {
	if !w.ran.CompareAndSwap(false, true) {
		return ErrAlreadyRun
	}
	if len(w.watched)+len(w.departures) == 0 {
		<-ctx.Done() // nothing flows: a site may have no name then
		return nil
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	if w.asker, err = openAsker(w.conn.NATS(), w.site); err != nil {
		return closed(err)
	}
	defer w.asker.close()
	defer w.silence()
	if err = w.listen(work); err != nil {
		cancel()
		return closed(err)
	}
	defer w.measured.observe(w, time.Now())()
	gone := w.asker.gone()
	var watching sync.WaitGroup
	for _, one := range w.watched {
		watching.Go(func() { one.run(work) })
		watching.Go(func() { newCompared(w, one.arrival, w.cfg.Horizon).run(work, one.hurry, one.note) })
	}
	select {
	case <-ctx.Done():
	case <-gone:
		err = ErrConnectionClosed
	}
	cancel()
	watching.Wait()
	return err
}

// closed tells a connection that is closed from other errors.
func closed(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrConnectionDraining) {
		return ErrConnectionClosed
	}
	return err
}

// silence takes no more questions, and waits for those that are being answered.
func (w *Watcher) silence() {
	for _, sub := range w.subs {
		_ = sub.Unsubscribe() // an error says that it has ended already
	}
	w.mu.Lock()
	w.silent = true
	w.mu.Unlock()
	w.answering.Wait()
}

// Flows returns the status of each flow that ends here in a stream of the service,
// in the order of the network's declaration: a copy, as of the latest look.
func (w *Watcher) Flows() []Flow {
	all := make([]Flow, 0, len(w.watched))
	for _, one := range w.watched {
		all = append(all, one.status())
	}
	return slices.Clip(all)
}
