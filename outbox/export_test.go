package outbox

import "time"

// OnPublished calls f after every row of a page is acknowledged and before the
// cursor moves: the window in which a crash leaves messages stored and the
// cursor behind.
func (r *Relay) OnPublished(f func(stream string, rows int)) { r.hooks.published = f }

// OnPolled calls f after every poll.
func (r *Relay) OnPolled(f func()) { r.hooks.polled = f }

// AnchorEvery sets how often the cursor is moved in a walk and copied; zero
// moves it past every page and copies every one.
func (r *Relay) AnchorEvery(d time.Duration) { r.anchorEvery, r.moveEvery = d, min(d, r.moveEvery) }
