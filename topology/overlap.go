package topology

import (
	"context"
	"slices"

	"codeberg.org/dataverket/messaging/subject"
)

// reader is a durable on a command stream, declared or found.
type reader struct {
	name     string
	filters  []string
	declared bool
}

// commandOverlaps looks for durables on our own command streams that share
// commands (requirement T7). Validate sees the declared ones; here those on the
// server are added: of another service, of an older release of ours, made by
// hand. Ephemeral consumers are not counted, for they are tools that read.
func (a api) commandOverlaps(ctx context.Context, set Set, s Stream) []error {
	found, err := a.consumers(ctx, s.Name)
	if err != nil {
		return []error{err}
	}
	return overlaps(s.Name, readers(set, s.Name, found))
}

// readers merges declaration and server. Of a durable that is in both, the
// server's filters count here; drift reports the difference.
func readers(set Set, stream string, found []consumerConfig) []reader {
	var list []reader
	for _, c := range found {
		if c.Durable != "" {
			list = append(list, reader{name: c.Durable, filters: filtersOf(c)})
		}
	}
	for _, c := range set.Consumers {
		if c.Stream.Name != stream {
			continue
		}
		at := slices.IndexFunc(list, func(r reader) bool { return r.name == c.Durable })
		if at < 0 {
			list = append(list, reader{name: c.Durable, filters: []string{c.Filter.String()}})
			at = len(list) - 1
		}
		list[at].declared = true
	}
	return list
}

// overlaps names each overlapping pair once, the declared one first.
func overlaps(stream string, list []reader) []error {
	var errs []error
	for i, a := range list {
		for _, b := range list[:i] {
			if !anyOverlap(a.filters, b.filters) {
				continue
			}
			ours, other := a, b
			if b.declared && !a.declared {
				ours, other = b, a
			}
			errs = append(errs, &OverlapError{Stream: stream, Durable: ours.name, Other: other.name})
		}
	}
	return errs
}

func anyOverlap(as, bs []string) bool {
	for _, a := range as {
		for _, b := range bs {
			if filtersOverlap(a, b) {
				return true
			}
		}
	}
	return false
}

// filtersOverlap takes what is not one of our filters, such as > or *.maskin.>,
// for overlapping: wrongly refused is safer than done twice.
func filtersOverlap(a, b string) bool {
	f, err := subject.ParseFilter(a)
	g, gerr := subject.ParseFilter(b)
	return err != nil || gerr != nil || f.Overlaps(g)
}
