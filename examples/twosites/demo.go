package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"codeberg.org/dataverket/messaging/examples/internal/progress"
)

// demo is one run.
type demo struct {
	opts     options
	infra    *infra
	line     *progress.Line
	services []*service // osl1, trd1

	busy atomic.Bool            // there will be more requests or faults
	link atomic.Pointer[string] // its state, for the progress

	began, ended time.Time // of the traffic
	faults       []fault
}

// play runs the whole demo. Whatever happens, it leaves nothing behind.
func play(ctx context.Context, opts options, line *progress.Line) (r *report, err error) {
	began := time.Now()
	line.Say("starting %d NATS server(s) and a database at %s and at %s, a link between them, and maskin at both", opts.servers, osl1, trd1)
	d := &demo{opts: opts, line: line}
	d.setLink("whole")
	d.infra, err = startInfra(ctx, opts.servers)
	defer func() { err = errors.Join(err, d.infra.close()) }()
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, s := range d.services {
			s.close()
		}
	}()
	if err := d.work(ctx); err != nil {
		return nil, err
	}
	line.Say("nothing moves any more; counting in the databases and in the streams")
	if err := d.gatherFacts(ctx); err != nil {
		return nil, fmt.Errorf("gather facts: %w", err)
	}
	if r, err = readReport(ctx, d.infra.check); err != nil {
		return nil, err
	}
	r.faults = r.verdict(opts)
	r.took = time.Since(began)
	return r, nil
}

// work opens the services and runs them until all has gone its way.
func (d *demo) work(ctx context.Context) error {
	for _, site := range d.infra.sites() {
		s, err := open(ctx, d.infra.settings(site))
		d.services = append(d.services, s) // closed after an error, too
		if err != nil {
			return fmt.Errorf("start maskin at %s: %w", site.Name(), err)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	living, stop := context.WithCancel(ctx)
	defer stop()
	for _, s := range d.services {
		g.Go(func() error { return s.run(living) })
	}
	g.Go(func() error {
		defer stop()
		return d.direct(ctx)
	})
	return g.Wait()
}

// direct plays traffic and faults, and returns when nothing moves any more.
func (d *demo) direct(ctx context.Context) error {
	if err := poll(ctx, 20*time.Millisecond, d.ready); err != nil {
		return err
	}
	d.line.Say("%d requests at each site within %s; meanwhile %d faults of the link, %s each",
		d.opts.events, d.opts.lasts().Round(100*time.Millisecond), len(plan), d.opts.fault)
	d.busy.Store(true)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer d.busy.Store(false)
		return d.disturb(ctx)
	})
	g.Go(func() error { return d.watch(ctx) })
	return g.Wait()
}

// disturb makes the requests at both sites, and meanwhile the faults.
func (d *demo) disturb(ctx context.Context) error {
	d.began = time.Now()
	defer func() { d.ended = time.Now() }()
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range d.services {
		g.Go(func() error { return s.traffic(ctx, d.opts.events, d.opts.lasts()) })
	}
	g.Go(func() error {
		for i, kind := range plan {
			if err := pause(ctx, d.opts.rest()); err != nil {
				return err
			}
			d.setLink(fmt.Sprintf("%s (%d of %d)", kind, i+1, len(plan)))
			f, err := strike(ctx, d.infra.link, kind, d.opts.fault)
			if err != nil {
				return err
			}
			d.faults = append(d.faults, f)
			d.setLink("whole")
		}
		return nil
	})
	return g.Wait()
}

func (d *demo) setLink(state string) { d.link.Store(&state) }

// ready says whether every part of both services is.
func (d *demo) ready() (bool, error) {
	for _, s := range d.services {
		if s.ready() != nil {
			return false, nil
		}
	}
	return true, nil
}
