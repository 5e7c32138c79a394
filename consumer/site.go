package consumer

import (
	"strings"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/topology"
)

// sourceHeader is set by the server, which takes it from no publisher: where a
// message was copied from, "<stream>:<hash> <sequence> …".
const sourceHeader = "Nats-Stream-Source"

// origin tells where the messages of a consumer come from.
type origin struct {
	here   string // the site of this consumer; "" if it does not know
	stream topology.Stream
}

// of returns the site that published a message, and whether that is another one.
// The error is a *envelope.MismatchError: Dv-Site says something else than what
// stored it, as in a message that leaked over the link or was published at the
// wrong site. An absent Dv-Site is fine.
func (o origin) of(h envelope.Header) (site string, remote bool, err error) {
	stored, remote, reason := o.stored(h)
	claimed := h.Get(envelope.HeaderSite)
	if reason == "" && claimed != "" && stored != "" && claimed != stored {
		reason = "is not the site whose stream stored the message"
	}
	if reason != "" {
		return "", false, &envelope.MismatchError{Field: envelope.HeaderSite, Reason: reason}
	}
	if stored == "" {
		stored = claimed
	}
	return stored, remote, nil
}

// stored returns the site that stored the message first, "" if that is not known,
// or why it cannot be.
func (o origin) stored(h envelope.Header) (site string, remote bool, reason string) {
	source := h.Get(sourceHeader)
	switch {
	case source == "" && o.stream.Class == topology.ClassEventCopy:
		return "", false, "cannot be: the message was published into a copy of another site's events"
	case source == "" || len(o.stream.Sources) == 0:
		return o.here, false, ""
	}
	name, _, _ := strings.Cut(source, " ")
	name, _, _ = strings.Cut(name, ":")
	if site = o.stream.SourceSite(name); site == "" {
		return "", false, "cannot be: the message was copied from a stream that is no declared source"
	}
	return site, true, ""
}
