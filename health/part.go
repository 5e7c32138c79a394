package health

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"
)

// part is a Part and what is known of it.
type part struct {
	Part
	cfg Config

	mu    sync.Mutex
	began time.Time     // the newest check
	done  chan struct{} // closed at its end; nil while none runs
	asked time.Time     // the newest check that ended: when it began; zero before the first
	why   string        // what it found; "" is ready
	text  string        // of an Info: what it told

	told  bool      // whether a verdict was given
	shown string    // the reason that was given last; "" is ready
	since time.Time // when the part became ready, or ceased to be
}

// verdict is what a probe is told of a part.
type verdict struct {
	Name    string `json:"name"`
	Ready   bool   `json:"ready"`
	Since   string `json:"since"`             // of being ready, or not
	Checked string `json:"checked,omitempty"` // the newest check that ended
	Reason  string `json:"reason,omitempty"`
	Detail  string `json:"detail,omitempty"` // of a part that is told of, which is always ready
}

// Reasons that are ours.
const reasonUnasked = "not checked yet"

// refresh has the part asked if its answer is too old, and nobody asks it now. It
// returns until when to wait for what: nil for nothing.
func (p *part) refresh(now time.Time, patience time.Duration) (done <-chan struct{}, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		// An answer is as old as its question: what was asked before a loss may
		// have been answered after it.
		if !p.asked.IsZero() && now.Sub(p.asked) < p.cfg.Interval {
			return nil, now
		}
		p.began, p.done = now, make(chan struct{})
		go p.ask()
	}
	return p.done, p.began.Add(patience)
}

// ask runs one check. It is nobody's request: whoever gives up waiting leaves the
// answer to the next.
func (p *part) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.Timeout)
	defer cancel()
	why, text := p.answer(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked, p.why, p.text = p.began, why, text
	close(p.done)
	p.done = nil
}

// answer is the reason why the part is not ready, or "", and what an Info tells. A
// panic, of the error's own text too, is a reason: it must not end a process that
// only answers a probe.
func (p *part) answer(ctx context.Context) (why, text string) {
	defer func() {
		if v := recover(); v != nil {
			why = reason(fmt.Sprintf("the check panicked: %v", v))
		}
	}()
	if p.tell != nil {
		if text = p.tell(); text != "" {
			text = reason(text)
		}
		return "", text
	}
	if err := p.check(ctx); err != nil {
		return reason(err.Error()), ""
	}
	return "", ""
}

// verdict is what is known now. A check that is under way for longer than it may
// is an answer, too.
func (p *part) verdict(now time.Time) verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	why := p.why
	switch late := now.Sub(p.began); {
	case p.done != nil && late >= p.cfg.Timeout:
		why = fmt.Sprintf("no answer for %v", late.Round(time.Second/10))
	case p.asked.IsZero():
		why = reasonUnasked
	}
	v := verdict{Name: p.name}
	if p.tell != nil {
		v.Detail, why = cmp.Or(why, p.text), ""
	}
	p.note(why, now)
	v.Ready, v.Since, v.Reason = why == "", stamp(p.since), why
	if !p.asked.IsZero() {
		v.Checked = stamp(p.asked)
	}
	return v
}

// note remembers since when the part is what it is, and logs a change. The first
// look is none, unless it finds fault.
func (p *part) note(why string, now time.Time) {
	if changed := !p.told || (why == "") != (p.shown == ""); changed {
		switch {
		case why != "" && why != reasonUnasked:
			p.cfg.Logger.Warn("health: a part is not ready", "part", p.name, "reason", why)
		case why == "" && p.told && p.shown != reasonUnasked:
			p.cfg.Logger.Info("health: a part is ready again", "part", p.name, "after", now.Sub(p.since).Round(time.Second/10))
		}
		p.since = now
	}
	p.told, p.shown = true, why
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
