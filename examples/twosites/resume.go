package main

import (
	"context"
	"time"

	"codeberg.org/dataverket/messaging/topology"
)

const (
	// lookEvery is how often the service looks at what it copies.
	lookEvery = time.Second
	// silent is how long nothing may be heard of the other site, whose heartbeat is
	// a second, until the server is made to ask again.
	silent = 3 * time.Second
)

// resume makes the server ask the other site again when it has heard nothing, until
// ctx ends.
func (s *service) resume(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, declared := range s.set.Streams {
			stream, err := s.conn.JetStream().Stream(ctx, declared.Name)
			if err != nil {
				continue // no leader at the moment
			}
			for _, source := range stream.CachedInfo().Sources {
				if source.Active < 0 || source.Active > silent {
					_ = topology.Resume(ctx, s.conn.JetStream(), declared) // tried again with the next tick
				}
			}
		}
	}
}
