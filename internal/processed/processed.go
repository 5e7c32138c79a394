// Package processed reads from a handler's error that the effect was there.
package processed

import (
	"errors"

	"codeberg.org/dataverket/messaging/envelope"
)

// Already reports whether the whole of err says that the effect was there. In an
// error that joins several, another part may say that it is not, and the message is
// tried again: errors.Is would not see that.
func Already(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if err == envelope.ErrAlreadyProcessed {
			return true
		}
	}
	return false
}
