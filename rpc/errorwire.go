package rpc

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"codeberg.org/dataverket/messaging/internal/strictjson"
)

// wireError is the body of an error reply. It is what counts: the two headers of
// the micro protocol repeat it for stock tools, as far as they can.
type wireError struct {
	Code         Code   `json:"code"`
	Message      string `json:"message"`
	RetryAfterMs int64  `json:"retry_after_ms,omitempty"`
}

// maxRetryAfterMs bounds the hint on the wire: a day.
const maxRetryAfterMs = int64(24 * time.Hour / time.Millisecond)

// errorNames is constant: the known names of a wireError.
var errorNames = strictjson.NewNames("code", "message", "retry_after_ms")

// errorReply writes e.
func errorReply(e *Error) (nats.Header, []byte) {
	w := wireError{Code: e.Code.known(), Message: oneLine(e.Message)}
	if w.Message == "" {
		w.Message = string(w.Code)
	}
	if e.RetryAfter > 0 {
		w.RetryAfterMs = min(max(e.RetryAfter.Milliseconds(), 1), maxRetryAfterMs)
	}
	body, err := json.Marshal(w)
	if err != nil { // strings and a number always marshal
		body = []byte(`{"code":"internal","message":"internal error"}`)
	}
	return nats.Header{
		micro.ErrorCodeHeader: {statuses[w.Code]},
		micro.ErrorHeader:     {ascii(w.Message)},
	}, body
}

// ascii replaces what header readers do not agree on.
func ascii(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
}

// isErrorReply reports whether h is that of an error. Either header is enough: a
// foreign server may forget one.
func isErrorReply(h nats.Header) bool {
	return len(h[micro.ErrorCodeHeader]) > 0 || len(h[micro.ErrorHeader]) > 0
}

// readError reads an error reply. What does not read as one, and a code outside the
// set, is internal: a fault of the server all the same, and not a success.
func readError(data []byte) *Error {
	var w wireError
	if err := decode(data, errorNames, &w); err != nil {
		return &Error{Code: CodeInternal, Message: "the server answered with an error in a form that is not known: its body " + err.Error()}
	}
	e := &Error{Code: w.Code.known(), Message: oneLine(w.Message)}
	if w.RetryAfterMs > 0 {
		e.RetryAfter = time.Duration(min(w.RetryAfterMs, maxRetryAfterMs)) * time.Millisecond
	}
	return e
}
