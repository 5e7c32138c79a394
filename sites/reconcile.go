package sites

import (
	"context"
	"errors"
	"time"

	"codeberg.org/dataverket/messaging/topology"
)

// soonAgain is the pause after a comparison that had something sent again, or that
// could not be made.
const soonAgain = 2 * time.Second

// Comparison is what the comparison of a flow's two ends found.
type Comparison struct {
	Flow topology.Flow // which

	// From is what was compared: messages whose id, or else whose storage at the
	// origin, is of then or later. Older ones may have been removed from a stream, or
	// are before the horizon.
	From time.Time

	// Windows is how many windows of a minute were looked at closely: those whose
	// hours differed.
	Windows int

	// Missing is how many messages the origin holds and the destination does not, at
	// least.
	Missing uint64

	// OriginLacks is how many messages the destination holds and the origin does not.
	// A relay there sends them again if they are in its outbox still.
	OriginLacks uint64

	// Resent is how many of the missing ones the origin sent again, Gone how many it
	// did not hold any more when it was asked.
	Resent, Gone uint64

	// Err says why the comparison, or sending again, ended before its time; "" if it
	// did not. Only of Verify.
	Err string

	// More tells that more are missing than one comparison counts, 50,000 or a few
	// more.
	More bool
}

// run compares the flow's two ends every Config.Compare, until ctx ends.
func (o *compared) run(ctx context.Context, hurry <-chan struct{}, report func(Comparison, error)) {
	for pause := min(soonAgain, o.w.cfg.Compare); ; {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-hurry: // the origin has lost something
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
		found, err := o.reconcile(ctx, true)
		if ctx.Err() != nil {
			return
		}
		report(found, err)
		pause = o.w.cfg.Compare
		if err != nil || found.Missing > 0 {
			pause = min(soonAgain, pause)
		}
	}
}

// reconcile compares the two ends, and has what is missing sent again if repair is
// set.
func (o *compared) reconcile(ctx context.Context, repair bool) (Comparison, error) {
	c, all, err := o.compare(ctx)
	found := Comparison{
		Flow: o.Flow, From: timeOf(c.from), Windows: c.windows,
		Missing: uint64(len(all.lacking)), OriginLacks: all.lacks, More: all.more,
	}
	if len(all.lacking) == 0 && err == nil {
		o.sent, o.jump = "", 0
	}
	if len(all.lacking) == 0 || !repair {
		return found, err
	}
	// What was found before an error is missing all the same.
	sent, gone, resendErr := c.resend(ctx, all.lacking)
	found.Resent, found.Gone = uint64(sent), uint64(gone)
	return found, errors.Join(err, resendErr)
}

// note keeps the result of a comparison for the flow's status.
func (o *watch) note(found Comparison, err error) {
	o.mu.Lock()
	o.flow.Resent += found.Resent
	if err == nil || found.Missing > 0 {
		o.flow.Missing, o.flow.OriginLacks = found.Missing, found.OriginLacks
	}
	o.flow.CompareErr = ""
	switch {
	case err != nil:
		o.flow.CompareErr = reason(err)
	case !found.More:
		o.flow.Compared = time.Now()
	}
	o.mu.Unlock()
	if found.Missing > 0 {
		o.w.log.Warn("sites: messages were missing", "flow", o.Flow.String(), "stream", o.stream.Name,
			"missing", found.Missing, "resent", found.Resent, "gone", found.Gone, "why", o.status().CompareErr)
	}
	if found.OriginLacks > 0 {
		o.w.log.Warn("sites: the origin lacks messages that are here", "flow", o.Flow.String(), "stream", o.stream.Name, "lacks", found.OriginLacks)
	}
}
