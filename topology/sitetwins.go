package topology

import "slices"

// Twins returns, for a consumer of the events that a service publishes at this site,
// one more for each copy of them from another site: the same contract on the copy,
// under the durable's name with the site's behind it ("plattform__from_maskin__osl1").
// So it is for a consumer of the task events. There is none for other consumers, and
// none for a copy that holds nothing that the filter takes. Declare them beside c, and
// run each with the same handlers and the same inbox, whose name stays that of c's
// durable: a message that comes by both ways then takes effect once.
//
// A Start at a sequence is of one stream; a twin of such a consumer has none, which
// Validate refuses: declare it. It does not validate.
func (n Network) Twins(site string, c Consumer) []Consumer {
	var twins []Consumer
	for _, f := range n.Flows {
		s := n.StreamOf(f)
		if f.To != site || !f.copies(c.Stream) || !slices.ContainsFunc(s.holds(), c.Filter.Overlaps) {
			continue
		}
		twin := c
		twin.Stream, twin.Durable = s, c.Durable+separator+sanitise(f.From)
		if c.Start.policy == startSequence {
			twin.Start = Start{}
		}
		twins = append(twins, twin)
	}
	return twins
}

// copies reports whether the flow copies streams like s.
func (f Flow) copies(s Stream) bool {
	return f.Cargo == CargoEvents && s.Class == ClassEvents && s.Service == f.Service ||
		f.Cargo == CargoTasks && s.Class == ClassTaskEvents
}
