package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"codeberg.org/dataverket/messaging/examples/internal/progress"
	"codeberg.org/dataverket/messaging/outbox"
)

const (
	// sampleEvery is how often the state is looked at, killEvery how often the
	// point of the next kill.
	sampleEvery = 100 * time.Millisecond
	killEvery   = 10 * time.Millisecond
	// patience is how long nothing may move; a kill costs ack wait and lease.
	patience = 30 * time.Second
)

// supervisor starts everything, kills maskin, and looks at the state from
// outside: nothing it reports comes from the services' own counting.
type supervisor struct {
	opts     options
	infra    *infra
	spawner  *spawner
	progress *progress.Line
	random   *rand.Rand
	expected int // requests that the input file makes

	mu       sync.Mutex
	services map[string]*process
	kills    []kill
	failures chan error // a service that ended by itself
}

// supervise runs the whole demo. Whatever happens, it leaves nothing behind.
func supervise(ctx context.Context, opts options, line *progress.Line) (r *report, err error) {
	began := time.Now()
	line.Say("starting PostgreSQL with a database per service, NATS with file storage and three services; ack wait %s, lease %s", ackWait, leaseTTL)
	s := &supervisor{
		opts: opts, spawner: newSpawner(), progress: line, random: rand.New(rand.NewPCG(opts.seed, 1)),
		services: map[string]*process{}, failures: make(chan error, 1),
	}
	defer s.spawner.end()
	s.infra, err = startInfra(ctx)
	defer func() { err = errors.Join(err, s.infra.close()) }()
	if err != nil {
		return nil, err
	}
	defer s.stopServices()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case failure := <-s.failures:
			cancel(failure)
		case <-ctx.Done():
		}
	}()
	r, err = s.play(ctx, began)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	return r, err
}

// play is the demo from the first service to the last figure.
func (s *supervisor) play(ctx context.Context, began time.Time) (*report, error) {
	if err := s.startServices(ctx); err != nil {
		return nil, err
	}
	working := time.Now()
	if err := s.work(ctx); err != nil {
		return nil, err
	}
	r := &report{
		Servers: s.opts.servers, Kills: append([]kill{}, s.kills...), DeadLetters: []letter{}, Seed: s.opts.seed,
		AckWait: seconds(ackWait), LeaseTTL: seconds(leaseTTL), Working: seconds(time.Since(working)),
	}
	if err := s.repair(ctx, r); err != nil {
		return nil, err
	}
	facts, err := s.gatherFacts(ctx)
	if err != nil {
		return nil, err
	}
	if r.Workflow, err = s.workflow(ctx, facts); err != nil {
		return nil, err
	}
	if r.Figures, err = readFigures(ctx, facts.pool); err != nil {
		return nil, err
	}
	r.Faults = r.Figures.faults(s.opts.kills, len(s.kills), r.Replay != nil)
	r.Took = seconds(time.Since(began))
	return r, nil
}

// startServices starts maskin first, because the others verify its streams.
func (s *supervisor) startServices(ctx context.Context) error {
	servers, err := readServers(inputFile, s.opts.servers)
	if err != nil {
		return err
	}
	s.expected = len(requestsFor(servers, s.opts.seed))
	if err := s.start(ctx, "maskin"); err != nil {
		return err
	}
	if err := s.awaitStreams(ctx); err != nil {
		return err
	}
	if err := s.start(ctx, "plattform"); err != nil {
		return err
	}
	return s.start(ctx, "sentral")
}

// start starts a service and watches over it.
func (s *supervisor) start(ctx context.Context, role string) error {
	p, err := startProcess(s.spawner, s.infra.dir, role, settings{
		NATSURL: s.infra.nats.URL(), DatabaseURL: s.infra.postgres.URL(role),
		AckWait: ackWait, LeaseTTL: leaseTTL, Servers: s.opts.servers, Seed: s.opts.seed,
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.services[role] = p
	s.mu.Unlock()
	go func() {
		if err := p.watch(ctx); err != nil {
			select {
			case s.failures <- err:
			default: // the first failure is the one to tell
			}
		}
	}()
	return nil
}

// stopServices ends all services at the same time.
func (s *supervisor) stopServices() {
	s.mu.Lock()
	running := maps.Clone(s.services)
	s.mu.Unlock()
	var all sync.WaitGroup
	for _, p := range running {
		all.Go(p.stop)
	}
	all.Wait()
}

// awaitStreams waits until maskin has declared what the others verify.
func (s *supervisor) awaitStreams(ctx context.Context) error {
	return poll(ctx, killEvery, func() (bool, error) {
		for _, stream := range []string{maskinDurable.Stream.Name, plattformDurable.Stream.Name} {
			if _, err := s.infra.js.Stream(ctx, stream); errors.Is(err, jetstream.ErrStreamNotFound) {
				return false, nil
			} else if err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// work returns when every request has gone all the way. Kills come meanwhile.
func (s *supervisor) work(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	working, done := context.WithCancel(ctx)
	g.Go(func() error { return s.killAll(working) })
	g.Go(func() error {
		defer done()
		var last counts
		moved := time.Now()
		return poll(ctx, sampleEvery, func() (bool, error) {
			now, err := s.sample(ctx)
			if err != nil {
				return false, err
			}
			s.progress.Show(now)
			if now != last {
				last, moved = now, time.Now()
			}
			if time.Since(moved) > patience {
				return false, fmt.Errorf("nothing has moved for %s: %s%s", patience, now, s.logTails())
			}
			return s.quiet(ctx, now)
		})
	})
	return g.Wait()
}

// logTails is the end of what the services say, for a run that is stuck.
func (s *supervisor) logTails() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var text strings.Builder
	for role, p := range s.services {
		fmt.Fprintf(&text, "\n--- the log of %s ends with:\n%s", role, p.logTail())
	}
	return text.String()
}

// quiet reports whether nothing is on its way. It looks upstream first: what is
// empty there cannot feed what is looked at next.
func (s *supervisor) quiet(ctx context.Context, c counts) (bool, error) {
	if c.Requested < s.expected {
		return false, nil
	}
	for _, look := range []func() (bool, error){
		func() (bool, error) { return s.published(ctx, "sentral") },
		func() (bool, error) { return s.consumed(ctx, maskinDurable.Stream.Name, maskinDurable.Durable) },
		func() (bool, error) { return s.published(ctx, "maskin") },
		func() (bool, error) { return s.consumed(ctx, plattformDurable.Stream.Name, plattformDurable.Durable) },
	} {
		if empty, err := look(); !empty || err != nil {
			return false, err
		}
	}
	return true, nil
}

// published reports whether an outbox has nothing left to publish.
func (s *supervisor) published(ctx context.Context, database string) (bool, error) {
	status, err := outbox.ReadStatus(ctx, s.infra.pools[database], "")
	if err != nil {
		return false, err
	}
	for _, stream := range status.Streams {
		if stream.Unpublished > 0 {
			return false, nil
		}
	}
	return true, nil
}

// consumed reports whether a durable has nothing left to deliver and to hear of.
func (s *supervisor) consumed(ctx context.Context, stream, durable string) (bool, error) {
	c, err := s.infra.js.Consumer(ctx, stream, durable)
	if err != nil {
		return false, err
	}
	info := c.CachedInfo()
	return info.NumPending == 0 && info.NumAckPending == 0, nil
}

// poll calls look until it says done, fails, or ctx ends.
func poll(ctx context.Context, every time.Duration, look func() (done bool, err error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		done, err := look()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
