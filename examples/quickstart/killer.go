package main

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// kill is one SIGKILL of maskin, and what it hit.
type kill struct {
	// Handled is how many commands were done at the time.
	Handled int `json:"handled"`
	// Sequence is the command that was in flight.
	Sequence uint64 `json:"sequence"`
	// Committed says that its effect was committed already and only the
	// acknowledgement was missing: the case that the inbox is for. Otherwise the
	// effect was lost with the process, and the redelivery makes it.
	Committed bool `json:"committed"`
}

// settle is what the broker gets to hear what a frozen process has sent.
const settle = 5 * time.Millisecond

// killAll kills maskin at points that are evenly spread over the work, each time
// in the middle of a command, and starts it again. Odd kills aim between commit
// and acknowledgement, even ones before the commit.
func (s *supervisor) killAll(ctx context.Context) error {
	stride := s.expected / (s.opts.kills + 1)
	last := uint64(0)
	for done := 0; done < s.opts.kills; {
		aim := aim{from: stride * (done + 1), until: stride*(done+1) + stride/2, committed: done%2 == 0, last: last}
		hit, err := s.strike(ctx, aim)
		if err == nil {
			err = s.start(ctx, "maskin")
		}
		switch {
		case ctx.Err() != nil:
			return nil // all is done, or something else failed; either is told elsewhere
		case err != nil:
			return err
		case hit != nil:
			done, last = done+1, hit.Sequence
			s.mu.Lock()
			s.kills = append(s.kills, *hit)
			s.mu.Unlock()
		}
	}
	return nil
}

// aim is what a kill should hit: maskin when it has handled from commands, with
// one in flight whose effect is committed or not. When until commands are
// handled, any command in flight will do.
type aim struct {
	from, until int
	committed   bool
	last        uint64 // the command that the last kill hit
}

// strike kills maskin. It freezes the process first and looks what it holds,
// because a kill between two commands would prove nothing. It returns nil when
// the kill hit nothing after all.
func (s *supervisor) strike(ctx context.Context, aim aim) (*kill, error) {
	err := poll(ctx, killEvery, func() (bool, error) {
		handled, err := s.count(ctx, "maskin", inboxCount)
		return handled >= aim.from, err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	victim := s.services["maskin"]
	s.mu.Unlock()
	for {
		victim.freeze()
		pause(ctx, settle)
		hit, err := s.inFlight(ctx)
		if err != nil {
			victim.thaw()
			return nil, err
		}
		// What the last kill left behind is in flight, too, until it is delivered
		// again, but not in this process's hands.
		fresh := hit != nil && hit.Sequence != aim.last
		if fresh && (hit.Committed == aim.committed || hit.Handled >= aim.until) {
			victim.kill()
			still, err := s.inFlight(ctx) // unless its acknowledgement was under way
			if still == nil || still.Sequence != hit.Sequence {
				return nil, err
			}
			return still, err
		}
		victim.thaw()
		pause(ctx, time.Duration(1000+s.random.IntN(9000))*time.Microsecond)
	}
}

// inFlight asks broker and database which command maskin has in its hands; nil is
// none.
func (s *supervisor) inFlight(ctx context.Context) (*kill, error) {
	c, err := s.infra.js.Consumer(ctx, maskinDurable.Stream.Name, maskinDurable.Durable)
	if err != nil {
		return nil, err
	}
	info := c.CachedInfo()
	if info.NumAckPending == 0 {
		return nil, nil
	}
	stream, err := s.infra.js.Stream(ctx, maskinDurable.Stream.Name)
	if err != nil {
		return nil, err
	}
	hit := &kill{Sequence: info.Delivered.Stream}
	m, err := stream.GetMsg(ctx, hit.Sequence)
	if err != nil {
		return nil, err
	}
	err = s.infra.pools["maskin"].QueryRow(ctx, `select count(*), count(*) filter (where message_id = $1) > 0
		from messaging.inbox_messages`, m.Header.Get(jetstream.MsgIDHeader)).Scan(&hit.Handled, &hit.Committed)
	return hit, err
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
