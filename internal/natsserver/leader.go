package natsserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// MetaLeader is the node that leads the cluster's administration, or nil while
// there is none.
func (c *Cluster) MetaLeader() *Server {
	return c.leader((*server.Server).JetStreamIsLeader)
}

// StreamLeader is the node that leads the stream, or nil while there is none.
func (c *Cluster) StreamLeader(stream string) *Server {
	return c.leader(func(s *server.Server) bool { return s.JetStreamIsStreamLeader(c.account, stream) })
}

// ConsumerLeader is the node that leads the durable, or nil while there is none.
func (c *Cluster) ConsumerLeader(stream, durable string) *Server {
	return c.leader(func(s *server.Server) bool { return s.JetStreamIsConsumerLeader(c.account, stream, durable) })
}

// StepDownStream makes the stream's leader give up and returns when another node
// leads.
func (c *Cluster) StepDownStream(ctx context.Context, stream string) error {
	find := func() *Server { return c.StreamLeader(stream) }
	if err := stepDown(ctx, find, func(s *server.Server) error { return s.JetStreamStepdownStream(c.account, stream) }); err != nil {
		return fmt.Errorf("natsserver: move leader of stream %s: %w", stream, err)
	}
	return nil
}

// StepDownConsumer makes the durable's leader give up and returns when another
// node leads.
func (c *Cluster) StepDownConsumer(ctx context.Context, stream, durable string) error {
	find := func() *Server { return c.ConsumerLeader(stream, durable) }
	if err := stepDown(ctx, find, func(s *server.Server) error { return s.JetStreamStepdownConsumer(c.account, stream, durable) }); err != nil {
		return fmt.Errorf("natsserver: move leader of durable %s on %s: %w", durable, stream, err)
	}
	return nil
}

// stepDown asks the leader it finds to step down until another one is found: an
// election may well choose the old leader again.
func stepDown(ctx context.Context, find func() *Server, ask func(*server.Server) error) error {
	var first *Server
	if err := await(ctx, func() bool { first = find(); return first != nil }); err != nil {
		return fmt.Errorf("wait for a leader: %w", err)
	}
	asked := false
	var refusal error
	err := await(ctx, func() bool {
		switch now := find(); {
		case now == nil:
			asked = false // the election runs; whoever wins is looked at anew
		case now != first:
			return true
		case !asked:
			asked, refusal = true, askRunning(now, ask)
		}
		return refusal != nil
	})
	return errors.Join(refusal, err)
}

// askRunning asks a node unless it was stopped meanwhile, which makes it step
// down as well.
func askRunning(node *Server, ask func(*server.Server) error) error {
	if native := node.Native(); native != nil {
		return ask(native)
	}
	return nil
}

// leader finds the running node that says of itself that it leads.
func (c *Cluster) leader(leads func(*server.Server) bool) *Server {
	for _, node := range c.nodes {
		if native := node.Native(); native != nil && leads(native) {
			return node
		}
	}
	return nil
}

// await looks until done says yes or ctx ends.
func await(ctx context.Context, done func() bool) error {
	ticker := time.NewTicker(leaderPoll)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
	return nil
}
