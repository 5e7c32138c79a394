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
	// Of a stream that it never heard of the server cannot tell whether it is there.
	againSilent := s.again != nil && s.again.Active >= o.w.cfg.Silent
	switch {
	case s.heard && !againSilent:
		o.resumes, o.resumeAt = 0, time.Time{}
		return
	case !s.silent && !againSilent, s.local != nil, s.origin == nil, now.Before(o.resumeAt):
		return
	}
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	o.resumes++
	o.resumeAt = now.Add(resumePace().Delay(o.resumes))
	if err := topology.Resume(ctx, o.w.conn.JetStream(), o.stream); err != nil {
		o.w.log.Warn("sites: a copy could not be made to ask again", "flow", o.Flow.String(), "stream", o.stream.Name, "error", err)
		return
	}
	o.mu.Lock()
	o.flow.Resumed++
	o.mu.Unlock()
	o.w.log.Info("sites: a copy was made to ask its origin again", "flow", o.Flow.String(), "stream", o.stream.Name, "times", o.resumes)
}
