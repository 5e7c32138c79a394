package consumer

import (
	"sync/atomic"
	"time"
)

// overdue counts the handlers that do not return soon after the end of their ctx.
// They are no company any more.
type overdue struct {
	limits deadlines[*pass]
	count  atomic.Int64
}

func newOverdue(after time.Duration) *overdue {
	o := &overdue{}
	o.limits.after, o.limits.passed = after, func(p *pass) {
		o.count.Add(1)
		p.end()
	}
	return o
}

// begun has the handler watched that runs by p since now.
func (o *overdue) begun(p *pass, now time.Time) {
	p.limit.of = p
	o.limits.set(&p.limit, now)
}

// returned ends that.
func (o *overdue) returned(p *pass) {
	if !o.limits.clear(&p.limit) {
		o.count.Add(-1)
	}
}
