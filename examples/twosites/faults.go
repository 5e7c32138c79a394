package main

import (
	"context"
	"time"

	"codeberg.org/dataverket/messaging/internal/twosites"
)

// What is done to the link. A cut resets its connections, a black hole swallows what
// is sent while they stay.
const (
	kindCut   = "cut"
	kindHole  = "black hole"
	kindFlap  = "flapping"
	kindSlow  = "slow, 200 ms"
	slowBy    = 200 * time.Millisecond
	flapTimes = 5
)

// plan is constant: what happens to the link, one after the other.
var plan = []string{kindCut, kindHole, kindCut, kindSlow, kindCut, kindFlap, kindCut, kindHole, kindCut}

// fault is what happened to the link, and when.
type fault struct {
	kind string
	// began is when it was done, healed a moment before its end.
	began, healed time.Time
}

// strike does something to the link for a time, and heals it.
func strike(ctx context.Context, link *twosites.Pair, kind string, lasts time.Duration) (fault, error) {
	f := fault{kind: kind}
	defer link.Heal()
	defer link.Latency(0)
	switch kind {
	case kindCut:
		link.Cut()
	case kindHole:
		link.BlackHole()
	case kindSlow:
		link.Latency(slowBy)
	}
	f.began = time.Now()
	var err error
	if kind == kindFlap {
		link.Flap(ctx, flapTimes, lasts/flapTimes)
		err = context.Cause(ctx)
	} else {
		err = pause(ctx, lasts)
	}
	f.healed = time.Now()
	return f, err
}
