package sites

import (
	"slices"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// arrival is a flow that ends in a stream that our service owns here.
type arrival struct {
	topology.Flow
	stream topology.Stream // where it ends
	source topology.Source // where it comes from
	again  string          // where what is sent again comes from
}

// departure is a flow that begins in a stream that our service owns here.
type departure struct {
	topology.Flow
	stream  string   // where it begins
	filters []string // of the flow's messages in it
	again   string   // the stream of what is sent again
	index   *index   // what the flow has in stream
}

// arrivals returns the flows of set's network that end at its site in a stream of
// its service.
func arrivals(set topology.Set) (all []arrival) {
	for _, f := range set.Network.Flows {
		if f.To == set.Site && endOwner(f) == set.Service {
			all = append(all, arrivalOf(set, f))
		}
	}
	return all
}

// arrivalOf finds both ends of a flow. The stream is the one of set, if it is
// there, since that has its limits.
func arrivalOf(set topology.Set, f topology.Flow) arrival {
	a := arrival{Flow: f, stream: set.Network.StreamOf(f), again: set.Network.ResentOf(f).Name}
	if f.Cargo == topology.CargoCommands {
		a.stream = set.Network.Commands(f.To, f.Service, f.Limits)
	}
	if at := slices.IndexFunc(set.Streams, func(s topology.Stream) bool { return s.Name == a.stream.Name }); at >= 0 {
		a.stream = set.Streams[at]
	}
	for _, src := range a.stream.Sources {
		if src.Site == f.From && src.Stream == set.Network.OriginOf(f) {
			a.source = src
		}
	}
	return a
}

// departures returns the flows that begin at set's site in a stream of its
// service.
func departures(set topology.Set) (all []departure) {
	for _, f := range set.Network.Flows {
		if f.From != set.Site || startOwner(f) != set.Service {
			continue
		}
		end := arrivalOf(topology.Set{Network: set.Network}, f)
		d := departure{Flow: f, stream: end.source.Stream, again: end.again}
		for _, m := range end.source.Subjects {
			d.filters = append(d.filters, m.From)
		}
		all = append(all, d)
	}
	return all
}

// endOwner owns the stream that f ends in: the copy, or the own commands.
func endOwner(f topology.Flow) subject.Service {
	if f.Cargo != topology.CargoCommands && f.Owner.Valid() {
		return f.Owner
	}
	return f.Service
}

// startOwner owns the stream that f begins in: the own events, or the commands
// that wait.
func startOwner(f topology.Flow) subject.Service {
	if f.Cargo == topology.CargoCommands && f.Owner.Valid() {
		return f.Owner
	}
	return f.Service
}
