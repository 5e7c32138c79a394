package sites

import (
	"fmt"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// State is how a flow is, in a word.
type State string

// The states of a flow.
const (
	// StateUnknown: nobody has looked yet.
	StateUnknown State = "unknown"
	// StateMoving: the copy hears of its origin and holds all that was there.
	StateMoving State = "moving"
	// StateBehind: it hears of its origin and has more to fetch.
	StateBehind State = "behind"
	// StateSilent: neither the origin's stream nor the origin's watchers are heard
	// of. The link is down; both sites go on alone, and the copy catches up when it
	// is back.
	StateSilent State = "silent"
	// StateStuck: the link works and the flow does not, see Flow.Err. The watcher
	// does what it can about it.
	StateStuck State = "stuck"
)

// Flow is the status of a flow that ends at this site, as of one look.
type Flow struct {
	From    string          // the site of origin
	To      string          // this site
	Cargo   topology.Cargo  // what it carries
	Service subject.Service // whose events, or who is commanded
	Stream  string          // where it ends: "DV_MASKIN_EVT_FROM_OSL1"
	Source  string          // where it begins: "DV_MASKIN_EVT"

	State  State
	Looked time.Time // when this was found; zero: nobody has looked yet

	// Reachable tells whether the origin answered the last question.
	Reachable bool
	// Heard is when this site's server last heard of the origin's stream. Signs of
	// life come every second. Zero: never, since the server or the watcher started.
	Heard time.Time
	// Behind is how many messages the copy lacks: by comparison with the origin
	// while it answers, else by the server's own count while it hears of it, else
	// what was known last. Where a flow has chosen entities, other messages of the
	// stream count too, so that it is an upper bound.
	Behind uint64
	// CaughtUp is the newest moment at which the copy is known, by comparison, to have
	// held all that the origin held. Where nothing of the flow is left in the stream
	// here, so that there is nothing to compare, it is when the origin answered, its
	// stream was heard of, and 10 s had brought nothing. Zero: none is known.
	CaughtUp time.Time
	// Full is how full the stream at this site is, 0 to 1. At 1 copying waits.
	// 0 without a limit.
	Full float64
	// Resumed is how often the watcher made the copy ask its origin again.
	Resumed uint64

	// Compared is when both ends were last compared, message by message as far as
	// they differ; what is younger than a minute is left for the next comparison while
	// messages come. Zero: not yet.
	Compared time.Time
	// Missing is how many messages that the origin holds were not here at the last
	// comparison. They are sent again, and the next comparison looks for them.
	Missing uint64
	// OriginLacks is how many messages the origin held no more. A relay there sends
	// them again if they are in its outbox still.
	OriginLacks uint64
	// Resent is how many messages the origin sent again at this watcher's word.
	Resent uint64
	// CompareErr says why the last comparison could not be made or what was missing
	// not be sent again; "" if nothing is wrong.
	CompareErr string

	// Err says what is wrong and what to do about it; "" if nothing is.
	Err string
}

// String is one line about the flow: "events of maskin from osl1: behind by 120".
func (f Flow) String() string {
	of := "of"
	if f.Cargo == topology.CargoCommands {
		of = "to"
	}
	text := fmt.Sprintf("%s %s %s from %s: %s", f.Cargo, of, f.Service, f.From, f.State)
	if f.Behind > 0 {
		text += fmt.Sprintf(" by %d", f.Behind)
	}
	if f.State == StateSilent && !f.Heard.IsZero() {
		text += " for " + f.Looked.Sub(f.Heard).Round(time.Second).String()
	}
	if f.Err != "" {
		text += " (" + f.Err + ")"
	}
	return text
}

// Detail is one line for people about all flows, for a part of package health that
// only tells: a partition never makes a site unready. Flows that move are counted
// only.
func (w *Watcher) Detail() string {
	flows := w.Flows()
	moving, texts := 0, []string(nil)
	for _, f := range flows {
		if f.State == StateMoving && f.Err == "" {
			moving++
			continue
		}
		texts = append(texts, f.String())
	}
	switch {
	case len(flows) == 0:
		return "no flow of another site ends here"
	case len(texts) == 0:
		return fmt.Sprintf("flows that move: %d of %d", moving, len(flows))
	}
	return fmt.Sprintf("flows that move: %d of %d; %s", moving, len(flows), strings.Join(texts, "; "))
}
