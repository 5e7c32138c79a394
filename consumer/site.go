package consumer

import (
	"fmt"
	"slices"
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
	sites, remote, reason := o.stored(h)
	claimed := h.Get(envelope.HeaderSite)
	if reason == "" && claimed != "" && len(sites) > 0 && !slices.Contains(sites, claimed) {
		reason = "is not the site whose stream stored the message" + leakRemedy
	}
	if reason != "" {
		return "", false, &envelope.MismatchError{Field: envelope.HeaderSite, Reason: reason}
	}
	if claimed == "" && len(sites) == 1 {
		claimed = sites[0]
	}
	return claimed, remote, nil
}

// leakRemedy is what to look at where a message is not where it belongs.
const leakRemedy = ": it leaked over the link, or somebody publishes past the relay; hold the servers of both sites against " +
	"dvmsg topology server-config --check, and see that its publisher runs at the site that it names"

// stored returns the site that stored the message first, none if that is not known,
// or why it cannot be. Of several, whose streams have one name, it is one.
func (o origin) stored(h envelope.Header) (sites []string, remote bool, reason string) {
	source := h.Get(sourceHeader)
	switch {
	case source == "" && o.stream.Class.IsCopy():
		return nil, false, "cannot be: the message was published into a copy of another site's events" + leakRemedy
	case source != "" && len(o.stream.Sources) > 0:
		name, _, _ := strings.Cut(source, " ")
		name, _, _ = strings.Cut(name, ":")
		if sites = o.stream.SourceSites(name); len(sites) == 0 {
			return nil, false, "cannot be: the message was copied from a stream that is no declared source; declare the flow in topology.Network, or remove the source with dvmsg topology apply"
		}
		return sites, true, ""
	case o.here != "":
		sites = []string{o.here}
	}
	return sites, false, ""
}

// ahead tells of a message that nothing here reads, and that another site published,
// that the site may run a newer release than this one.
func ahead(err error, d *envelope.Delivery) error {
	if !d.Remote {
		return err
	}
	return fmt.Errorf("%w (site %.40s published it: what reads a message is deployed at every site before any site sends it)", err, d.Site)
}
