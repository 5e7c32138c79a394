package natsconn

import (
	"regexp"
	"strings"
	"time"
)

// Operation is what a permission did not allow.
type Operation string

// The two operations that the server checks.
const (
	OperationPublish   Operation = "publish"   // sending to the subject
	OperationSubscribe Operation = "subscribe" // receiving from the subject
)

// Denial is one refusal by the server: our user may not publish to, or
// subscribe to, Subject.
type Denial struct {
	Operation Operation
	Subject   string
	At        time.Time // when it was first seen on this connection
	Count     int       // how often since then
}

// maxDenials bounds what is remembered: a denied subject may hold generated
// parts, and then there is no end of them. The first ones are kept, for they
// are nearest to the cause.
const maxDenials = 16

// denialText finds operation and subject in what the server wrote, as in
// `nats: permissions violation: Permissions Violation for Publish to "a.b"`;
// a queue name may follow.
var denialText = regexp.MustCompile(`(?i)\b(publish|subscription) to "([^"\s]+)"`)

// parseDenial reads the server's text. A text it does not know gives false; the
// violation is then kept without a subject.
func parseDenial(text string) (Operation, string, bool) {
	match := denialText.FindStringSubmatch(text)
	if match == nil {
		return "", "", false
	}
	if strings.EqualFold(match[1], "publish") {
		return OperationPublish, match[2], true
	}
	return OperationSubscribe, match[2], true
}
