package sites

import "time"

// Verbs by which the two ends of a flow find out what the destination lacks.
const (
	verbDigest = "digest"
	verbIDs    = "ids"
	verbResend = "resend"
)

// Bounds of what is asked and answered at once.
const (
	maxWindows = 2000 // of a digest
	maxIDs     = 1500 // of a page of ids: at maxID bytes each they fit
	maxResend  = 500  // of a question
	// maxJump bounds how far the stream of what is resent may be moved.
	maxJump = 1 << 53
)

// digestQuestion asks for the digests of windows.
type digestQuestion struct {
	question
	Kind  kind  `json:"kind"`
	Width int64 `json:"width"` // minutes of a window: 1 or 60
	From  int64 `json:"from"`  // minutes since 1970: messages before are left out
	Until int64 `json:"until"` // and windows that begin then or later
}

// digestAnswer is what the origin has, of messages up to Last.
type digestAnswer struct {
	answer
	Last     uint64         `json:"last"`     // the newest message of the flow that was counted; 0: none
	Resent   uint64         `json:"resent"`   // the newest that waits in the stream of what is resent; 0: none
	Resends  uint64         `json:"resends"`  // the sequence that stream gave out last
	Complete int64          `json:"complete"` // the minute from which the origin has all that it had
	Windows  []windowAnswer `json:"windows"`  // in order; one that is empty is left out
	Next     int64          `json:"next"`     // ask on from here; 0: that was all
}

// windowAnswer is the digest of one window.
type windowAnswer struct {
	Start int64  `json:"start"` // its first minute since 1970
	Count uint64 `json:"count"`
	Sum   string `json:"sum"` // 32 hexadecimal digits
}

// idsQuestion asks for the ids of a window of a minute.
type idsQuestion struct {
	question
	Kind  kind   `json:"kind"`
	Start int64  `json:"start"`
	After uint64 `json:"after"` // a sequence: the page begins behind it
}

// idsAnswer is a page of ids.
type idsAnswer struct {
	answer
	IDs  []heldID `json:"ids"`
	Next uint64   `json:"next"` // ask on behind this sequence; 0: that was all
}

// heldID is a message that the origin holds.
type heldID struct {
	ID  string `json:"id"`
	Seq uint64 `json:"seq"` // in the stream that the flow begins in
}

// resendQuestion asks for messages again.
type resendQuestion struct {
	question
	Messages []heldID `json:"messages"`
	// Beyond is a sequence of the stream of what is resent: what is resent now gets
	// a higher one, and what is there up to it may go, since the destination has it.
	Beyond uint64 `json:"beyond"`
}

// resendAnswer tells what became of the first Done messages of the question.
type resendAnswer struct {
	answer
	Done int `json:"done"`
	Sent int `json:"sent"`
	Gone int `json:"gone"` // the origin holds them no more
}

// resendTime bounds the work on one question, whatever the rate. Ask again for the
// rest.
const resendTime = 2 * time.Second
