package sites

import (
	"context"
	"errors"
	"time"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/topology"
)

// answered reports whether err came over the link, from somebody at the other site.
func answered(err error) bool {
	_, none := errors.AsType[*NoAnswerError](err)
	return err != nil && !none
}

// resumePace is how long the server is given to hear of its source before it is made
// to ask again.
func resumePace() backoff.Policy {
	return backoff.Policy{Initial: 5 * time.Second, Max: time.Minute}
}

// mend makes the copy ask its origin again where the link works and the copy does
// not hear: a question of the server that was lost with the link is waited for 30 s
// and more. While the origin does not answer there is nobody to ask.
func (o *watch) mend(ctx context.Context, s sight) {
	now := time.Now()
	if !o.due(s, now) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	o.asksAgain(now)
	if err := topology.Resume(ctx, o.w.conn.JetStream(), o.stream); err != nil {
		o.w.log.Warn("sites: a copy could not be made to ask again", "flow", o.Flow.String(), "stream", o.stream.Name, "error", err)
		return
	}
	o.mu.Lock()
	o.flow.Resumed++
	o.mu.Unlock()
	o.w.log.Info("sites: a copy was made to ask its origin again", "flow", o.Flow.String(), "stream", o.stream.Name, "times", o.resumes)
}

// due reports whether the copy is to be made to ask now.
func (o *watch) due(s sight, now time.Time) bool {
	// Of a stream that it never heard of the server cannot tell whether it is there.
	againSilent := s.again != nil && s.again.Active >= o.w.cfg.Silent
	if s.heard && !againSilent || s.origin == nil && !answered(s.asked) {
		// Nothing is wrong; or the link is down, and with it what was asked before,
		// so that there is no reason to wait when it is back.
		o.resumes, o.resumeAt = 0, time.Time{}
		return false
	}
	return (s.silent || againSilent) && s.local == nil && s.origin != nil && !now.Before(o.resumeAt)
}

// asksAgain sets when the copy may be made to ask the next time.
func (o *watch) asksAgain(now time.Time) {
	o.resumes++
	o.resumeAt = now.Add(resumePace().Delay(o.resumes))
}
