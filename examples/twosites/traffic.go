package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"codeberg.org/dataverket/messaging/envelope"
)

const (
	// writers is how many changes a site makes at once.
	writers = 4
	// servers is how many a site has. Each is with one writer.
	servers = 200
)

// traffic plays the tenants of a site: n changes, evenly over a time. A writer that
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
				id, size := fmt.Sprintf("%s-%03d", s.Site, i%servers), fmt.Sprintf("size-%d", i/servers)
				if err := s.change(ctx, id, size); err != nil {
					return errors.Join(context.Cause(ctx), fmt.Errorf("maskin at %s: change %s: %w", s.Site, id, err))
				}
			}
			return nil
		})
	}
	return g.Wait()
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
