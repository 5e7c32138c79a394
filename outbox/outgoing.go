package outbox

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// outgoing is the one message value that a pipeline sends all rows with: the
// client encodes it before it returns.
type outgoing struct {
	msg   nats.Msg
	fixed map[string]string // headers that the relay sets, whatever the row says
}

func newOutgoing(stream, site string) outgoing {
	fixed := map[string]string{nats.ExpectedStreamHdr: stream}
	if site != "" {
		fixed[envelope.HeaderSite] = site
	}
	return outgoing{msg: nats.Msg{Header: nats.Header{}}, fixed: fixed}
}

// send writes a row to the connection's buffer.
func (o *outgoing) send(nc *nats.Conn, r *row, reply string) error {
	if !o.replaceHeader(r.headers) {
		if err := o.resetHeader(r.headers); err != nil {
			return fmt.Errorf("row %d: %w", r.seq, err)
		}
	}
	if impossibleSubject(r.subject) {
		return fmt.Errorf("row %d: %w", r.seq, nats.ErrBadSubject)
	}
	o.msg.Subject, o.msg.Reply, o.msg.Data = r.subject, reply, r.envelope
	return nc.PublishMsg(&o.msg)
}

// impossibleSubject tells that no stream can ever have a subject, beyond what the
// client refuses itself. The server closes the connection on one that is too long
// for a protocol line, and no stream listens on one with an empty token.
func impossibleSubject(text string) bool {
	return len(text) > subject.MaxOriginal || strings.Contains(text, "..") || strings.HasPrefix(text, ".") || strings.HasSuffix(text, ".")
}

// replaceHeader puts the values of a row in the place of those of the row
// before, if both have the same names, as the rows of a stream mostly have: a
// new map and new slices for each message would be a tenth of a relay's work.
func (o *outgoing) replaceHeader(text string) bool {
	names, before := 0, ""
	for text != "" {
		line, rest, ended := strings.Cut(text, "\r\n")
		name, value, ok := strings.Cut(line, ": ")
		values := o.msg.Header[name]
		if !ended || !ok || name <= before || len(values) != 1 || o.fixed[name] != "" {
			return false
		}
		values[0], text, before = value, rest, name
		names++
	}
	return names+len(o.fixed) == len(o.msg.Header)
}

var errHeaderColumn = errors.New("the header column is not made of lines \"Name: value\"")

// resetHeader makes the header anew: the lines "Name: value" of a row, and what
// is fixed.
func (o *outgoing) resetHeader(text string) error {
	h := o.msg.Header
	clear(h)
	for line := range strings.SplitSeq(text, "\r\n") {
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ": ")
		if !ok || name == "" || strings.ContainsAny(name, "\r\n") {
			return errHeaderColumn
		}
		h[name] = append(h[name], value)
	}
	for name, value := range o.fixed {
		h[name] = []string{value}
	}
	return nil
}
