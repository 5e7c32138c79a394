package outbox

import (
	"errors"
	"fmt"
	"time"
)

// ErrNotMigrated says that the outbox tables are missing. Run migrate.Up, or
// `dvmsg migrate up`, against this database and schema.
var ErrNotMigrated = errors.New("the outbox tables are missing; run `dvmsg migrate up` or migrate.Up for this database and schema")

// ErrSequenceCache says that somebody gave the sequence of outbox_events a
// cache: numbers are then handed out in blocks, and no longer in an order that
// a backlog can be read in.
var ErrSequenceCache = errors.New("the sequence of outbox_events must have a cache of 1; run ALTER TABLE … ALTER COLUMN seq SET CACHE 1")

// ErrDrainTimeout says that a stop did not wait any longer for messages in
// flight. Nothing is lost: the cursor did not move past them.
var ErrDrainTimeout = errors.New("the drain timeout passed with messages in flight; they will be sent again")

var (
	errNotRunning = errors.New("Run is not running")
	errNoBroker   = errors.New("the broker is not connected")
	errStopped    = errors.New("stopped while the stream is held back")
)

// ErrNothingToAccept says that no relay found this stream deleted and created
// anew, or that it was accepted already.
var ErrNothingToAccept = errors.New("no relay waits for this stream to be accepted")

// RecreatedError is what Relay.Ready returns while a stream waits for an
// operator: it was deleted and created anew, so what it had acknowledged is
// gone. Nothing is published to it until AcceptStream, or until the stream that
// was is back.
type RecreatedError struct {
	Stream   string
	Recorded time.Time // when the stream we published to was created
	Found    time.Time // when the one that is there was created
}

// Error says what was found and what to do.
func (e *RecreatedError) Error() string {
	return fmt.Sprintf("stream %s was deleted and created anew (ours is of %s, this one of %s); nothing is published to it until an operator accepts it, see outbox.AcceptStream",
		e.Stream, e.Recorded.UTC().Format(time.RFC3339Nano), e.Found.UTC().Format(time.RFC3339Nano))
}

// errLeaseLost ends a term: another instance leads, or may lead by now.
var errLeaseLost = errors.New("the lease was lost")
