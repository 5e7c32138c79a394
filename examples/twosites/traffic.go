package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"codeberg.org/dataverket/messaging/envelope"
)

const (
	// writers is how many requests a site takes at once.
	writers = 4
	// servers is how many a site has. Each is with one writer.
	servers = 200
	// orderEvery makes every so manieth request one for a server of the other site.
	// It has no common divisor with servers, so that each server is ordered for.
	orderEvery = 11
)

// traffic plays the tenants of a site: n requests, evenly over a time. A writer that
// is late does not wait.
func (s *service) traffic(ctx context.Context, n int, over time.Duration) error {
	ctx = envelope.WithOrigin(ctx, envelope.NewOrigin("user:kari", "tenant-1"))
	began, every := time.Now(), over/time.Duration(n)
	g, ctx := errgroup.WithContext(ctx)
	for w := range writers {
		g.Go(func() error {
			for i := w; i < n; i += writers {
				if err := pause(ctx, time.Until(began.Add(time.Duration(i)*every))); err != nil {
					return err
				}
				if err := s.request(ctx, i); err != nil {
					return errors.Join(context.Cause(ctx), fmt.Errorf("maskin at %s: request %d: %w", s.Site, i, err))
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// request changes a server of this site, or has one of the other site changed.
func (s *service) request(ctx context.Context, i int) error {
	size := fmt.Sprintf("size-%d", i/servers)
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if i%orderEvery == 0 {
			return s.order(ctx, tx, s.other(), serverOf(s.other(), i), size)
		}
		return s.change(ctx, tx, serverOf(s.Site, i), size)
	})
}

// orders is how many of n requests are for the other site.
func orders(n int) int { return (n + orderEvery - 1) / orderEvery }

func serverOf(site string, i int) string { return fmt.Sprintf("%s-%03d", site, i%servers) }

// other is the site that is not this one.
func (s *service) other() string {
	if s.Site == osl1 {
		return trd1
	}
	return osl1
}

// pause waits; the error is the cause of ctx's end.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
