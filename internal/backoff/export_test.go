package backoff

import "time"

// DelayAt is Delay with the random number chosen by the test.
func (p Policy) DelayAt(failure int, r float64) time.Duration { return p.delay(failure, r) }
