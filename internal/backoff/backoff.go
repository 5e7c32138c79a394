// Package backoff computes the growing, jittered delays between attempts.
//
// It is a pure value: no timer, no state, no clock. The relay, the consumer
// and the connection each keep their own attempt count, because each forgives
// differently, and ask a Policy how long to wait.
package backoff

import (
	"math"
	"math/rand/v2"
	"time"
)

// Policy describes delays that grow by Factor from Initial to Max.
//
// The zero value is usable: 100 ms, doubling, at most 30 s, 20 % jitter.
// A Policy is a value and safe for concurrent use.
type Policy struct {
	Initial time.Duration // delay after the first failure; default 100 ms
	Max     time.Duration // upper bound of a delay, jitter included; default 30 s
	Factor  float64       // growth per failure, at least 1; default 2
	Jitter  float64       // share of the delay that is random, 0 to 1; default 0.2
}

// Delay returns the wait after the given failure, counted from 1.
//
// Jitter subtracts: replicas that fail together must not return together, and
// Max stays a bound that a caller can reason with.
func (p Policy) Delay(failure int) time.Duration {
	return p.delay(failure, rand.Float64())
}

// delay is Delay with the random number given, 0 ≤ r < 1.
func (p Policy) delay(failure int, r float64) time.Duration {
	p = p.withDefaults()
	grown := float64(p.Initial) * math.Pow(p.Factor, float64(max(failure, 1)-1))
	capped := math.Min(grown, float64(p.Max)) // also catches +Inf
	return time.Duration(capped * (1 - p.Jitter*r))
}

func (p Policy) withDefaults() Policy {
	if p.Initial <= 0 {
		p.Initial = 100 * time.Millisecond
	}
	if p.Max <= 0 {
		p.Max = 30 * time.Second
	}
	if p.Factor < 1 {
		p.Factor = 2
	}
	if p.Jitter <= 0 || p.Jitter > 1 {
		p.Jitter = 0.2
	}
	return p
}
