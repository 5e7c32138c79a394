package sites

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// judge makes the status of the flow of what a look found, and of what was known.
func (o *watch) judge(s sight, now time.Time) Flow {
	f := o.status()
	f.Looked, f.Err = now, ""
	f.Reachable = s.origin != nil
	if s.local != nil {
		// Nothing is known of the own stream: what was known stays.
		f.State, f.Err = StateStuck, s.local.Error()
		return f
	}
	f.Full = fill(s.stream)
	if s.source != nil && s.source.Active >= 0 {
		f.Heard = now.Add(-s.source.Active)
	}
	o.measure(&f, s, now)
	f.State, f.Err = o.state(f, s, now)
	return f
}

// fill is the share of its limits that a stream uses.
func fill(info *jetstream.StreamInfo) float64 {
	full := 0.0
	if most := info.Config.MaxBytes; most > 0 {
		full = float64(info.State.Bytes) / float64(most)
	}
	if most := info.Config.MaxMsgs; most > 0 {
		full = max(full, float64(info.State.Msgs)/float64(most))
	}
	return min(full, 1)
}

// measure finds how far the copy is behind, and whether it is complete.
func (o *watch) measure(f *Flow, s sight, now time.Time) {
	if o.position.seq != s.before.seq || o.moved.IsZero() {
		o.moved = now
	}
	known := o.position.sure && o.position.seq > 0
	switch {
	case s.origin != nil && (known || s.origin.OfFlow == 0):
		// What came after the origin was asked is not counted.
		f.Behind = 0
		if held := max(o.position.seq, max(s.origin.First, 1)-1); s.origin.OfFlow > held {
			f.Behind = s.origin.OfFlow - held
		}
		if f.Behind == 0 && s.ahead == 0 {
			f.CaughtUp = s.began
		}
	case s.origin != nil && o.position.seq == 0 && (s.stream.State.LastSeq == 0 || !s.heard):
		// The server's count begins at 0 when it begins to ask (measured: 0 with 99
		// to come).
		f.Behind = s.origin.Behind
	case s.heard:
		f.Behind = s.source.Lag
		if s.origin != nil && o.position.none && f.Behind == 0 && now.Sub(o.moved) >= o.w.patience {
			// What came by the flow is gone from our stream, by its age or by a purge,
			// so that there is nothing to compare. More would have come by now.
			f.CaughtUp = s.began
		}
	}
}

// lost reports whether the origin has less than the copy got from it: its store is an
// older one. A leader that was just elected may say so once, and mean it not.
func (s sight) lost() bool { return s.origin != nil && s.ahead > 1 }

// state names the state of the flow, and says what is wrong and what to do.
func (o *watch) state(f Flow, s sight, now time.Time) (State, string) {
	switch {
	case s.lost():
		return StateStuck, fmt.Sprintf("%s has lost what it gave: it ends at %d, and %d came from there; until it is beyond that, what it stores is sent again after a comparison",
			f.From, s.origin.Last, s.before.seq)
	case s.silent:
		return o.unheardOf(f, s, now)
	case !s.heard:
		return o.status().State, o.status().Err // it was asked a moment ago
	case f.Behind == 0:
		return StateMoving, o.unasked(s.asked)
	case f.Full > 0.99 && (o.once || now.Sub(o.moved) >= o.w.patience):
		return StateStuck, fmt.Sprintf("stream %s is full and takes no more; raise its limits in the flow's declaration and apply it", f.Stream)
	case now.Sub(o.moved) >= o.w.patience:
		return StateStuck, fmt.Sprintf("%s is heard of, and nothing came for %s; check the rights of the link (dvmsg topology server-config --check)",
			f.From, now.Sub(o.moved).Round(time.Second))
	}
	return StateBehind, o.unasked(s.asked)
}

// unasked says why an origin that is heard of did not answer.
func (o *watch) unasked(err error) string {
	if err == nil || answered(err) {
		return reason(err)
	}
	return fmt.Sprintf("%s is heard of, and nobody answers there about %s; if it stays so, run a sites.Watcher there in %s, which owns it",
		o.From, o.source.Stream, startOwner(o.Flow))
}

// unheardOf is state while the server does not hear of the origin's stream.
func (o *watch) unheardOf(f Flow, s sight, now time.Time) (State, string) {
	switch {
	case s.origin == nil && answered(s.asked):
		return StateStuck, reason(s.asked)
	case s.origin == nil:
		return StateSilent, fmt.Sprintf("nothing is heard of %s: the link is down, or JetStream there; both sites go on alone, and what is lacking comes when it is back", f.From)
	case s.source == nil:
		return StateStuck, fmt.Sprintf("stream %s does not ask for %s; it is made to, and else compare it with its declaration (dvmsg topology diff)", f.Stream, f.Source)
	case f.Heard.IsZero():
		return StateStuck, fmt.Sprintf("%s answers, and its stream was never heard of; a watcher at this site makes it ask again, else check the rights of the link (dvmsg topology server-config --check)", f.From)
	}
	return StateStuck, fmt.Sprintf("%s answers, and its stream was not heard of for %s; a watcher at this site makes it ask again", f.From, now.Sub(f.Heard).Round(100*time.Millisecond))
}
