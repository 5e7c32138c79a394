package topology

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"codeberg.org/dataverket/messaging/subject"
)

// faults collects field errors.
type faults []error

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)})
}

// Validate returns all faults of the declaration at once, joined, each a
// *FieldError (overlapping durables: an *OverlapError), or nil. It needs no
// server.
//
// Names must be the generated ones. Streams may not overlap. Consumers must be
// ours by their prefix, be declared once, read a listed stream through a filter
// that the stream covers, declare their start, and not overlap on a command
// stream, where only the addressed service may read at all. A service with
// consumers lists its own two dead-letter streams.
func (set Set) Validate() error {
	var f faults
	if !set.Service.Valid() {
		f.add("Set.Service", "is not a known service; use a constant of package subject")
	}
	set.validateStreams(&f)
	set.validateConsumers(&f)
	set.validateNetwork(&f)
	return errors.Join(f...)
}

func (set Set) validateStreams(f *faults) {
	for i, s := range set.Streams {
		field := streamField(i, s)
		s.validate(f, field)
		for _, other := range set.Streams[:i] {
			if s.Name == other.Name {
				f.add(field, "is listed twice; remove one")
			} else if a, b, ok := overlap(s.Subjects, other.Subjects); ok {
				f.add(field+".Subjects", "%s overlaps with %s of %s; the server refuses that, narrow one", a, b, other.Name)
			}
		}
	}
}

func streamField(i int, s Stream) string {
	if s.Name == "" {
		return fmt.Sprintf("Set.Streams[%d]", i)
	}
	return "Set.Streams[" + s.Name + "]"
}

// validate checks one stream by itself.
func (s Stream) validate(f *faults, field string) {
	if !s.Service.Valid() {
		f.add(field+".Service", "is not a known service; use a constant of package subject")
	}
	if !s.Class.Valid() {
		f.add(field+".Class", "%q is not a class; make the stream with Commands, Events, TaskEvents, DeadLetters, DeadLetterOps or Network.StreamOf", s.Class)
	}
	want := StreamName(s.Service, s.Class)
	if s.Class.perSite() {
		want = SiteStreamName(s.Service, s.Class, s.Site)
	}
	if s.Class.perSite() != (s.Site != "") || s.Owner != 0 && (!s.Class.perSite() || !s.Owner.Valid()) {
		f.add(field+".Site", "Site and Owner go with the streams of flows; make those with Network.StreamOf, and leave both elsewhere")
	}
	if want != "" && s.Name != want {
		f.add(field+".Name", "must be %s; leave it as the constructor made it", want)
	}
	for _, b := range streamBounds(s) {
		if fault := b.fault(); fault != "" {
			f.add(field+"."+b.field, "%s", fault)
		}
	}
	if s.Class.dead() && s.DenyDelete {
		f.add(field+".DenyDelete", "resolved dead letters must be deletable; leave it false")
	}
	if s.Rate < 0 || math.IsNaN(s.Rate) || math.IsInf(s.Rate, 0) {
		f.add(field+".Rate", "must be a number of messages a second; 0 is not declared")
	}
	s.validateSubjects(f, field+".Subjects")
}

func (s Stream) validateSubjects(f *faults, field string) {
	space := s.Class.space(s.Service)
	switch {
	case s.Class.IsCopy():
		return // it has none, see validateSources
	case s.Class == ClassOutgoing:
		space = outgoingSpace(s.Service, s.Site)
	case s.Class.resent():
		space = resentSpace(s.Service, s.Class, s.Site)
	}
	if len(s.Subjects) == 0 {
		f.add(field, "is empty; leave it as the constructor made it")
	}
	for i, filter := range s.Subjects {
		if !coveredBy(space, filter) {
			f.add(field, "%q is not one of the subjects of class %s of %s, which are %s", filter, s.Class, s.Service, texts(space))
		}
		if a, b, ok := overlap(s.Subjects[:i], s.Subjects[i:i+1]); ok {
			f.add(field, "%s overlaps with %s; the server refuses that, narrow one", a, b)
		}
	}
}

func (set Set) validateConsumers(f *faults) {
	for i, c := range set.Consumers {
		field := consumerField(i, c)
		c.validate(f, field)
		if s := c.Service(); s.Valid() && s != set.Service {
			f.add(field+".Durable", "belongs to %s and the Set to %s; declare it where it runs", s, set.Service)
		}
		set.validateStreamOf(f, field, c)
		for _, other := range set.Consumers[:i] {
			set.validatePair(f, field, other, c)
		}
	}
	if len(set.Consumers) > 0 && set.Service.Valid() {
		set.validateDead(f)
	}
}

func consumerField(i int, c Consumer) string {
	if c.Durable == "" {
		return fmt.Sprintf("Set.Consumers[%d]", i)
	}
	return "Set.Consumers[" + c.Durable + "]"
}

// validate checks one consumer by itself.
func (c Consumer) validate(f *faults, field string) {
	if fault := durableFault(c.Durable); fault != "" {
		f.add(field+".Durable", "%s", fault)
	} else if from := durableContext(c.Durable); from.Valid() && from != c.Stream.Service {
		f.add(field+".Durable", "says that it reads from %s, but its stream is of %s; name it with DurableFrom(…, %s) or DurableFor", from, c.Stream.Service, c.Stream.Service)
	}
	if held := c.Stream.holds(); !coveredBy(held, c.Filter) && !c.takesAllOf(held) {
		f.add(field+".Filter", "%q is not within the stream's subjects %s; use a filter that the stream holds", c.Filter, texts(held))
	}
	if fault := c.Start.fault(); fault != "" {
		f.add(field+".Start", "%s", fault)
	}
	for _, b := range consumerBounds(c.withDefaults()) {
		if fault := b.fault(); fault != "" {
			f.add(field+"."+b.field, "%s", fault)
		}
	}
}

// takesAllOf reports whether the filter takes from a copy of another site's events
// what is held, and more: a copy of chosen entities is read as the local stream is.
func (c Consumer) takesAllOf(held []subject.Filter) bool {
	return c.Stream.Class == ClassEventCopy && subject.EventsOf(c.Stream.Service).Covers(c.Filter) &&
		slices.ContainsFunc(held, c.Filter.Covers)
}

// validateStreamOf holds the consumer's stream against the Set.
func (set Set) validateStreamOf(f *faults, field string, c Consumer) {
	at := slices.IndexFunc(set.Streams, func(s Stream) bool { return s.Name == c.Stream.Name })
	switch {
	case at < 0:
		f.add(field+".Stream", "%s is not in Set.Streams; add it, also if another service owns it", c.Stream.Name)
	case !reflect.DeepEqual(set.Streams[at], c.Stream):
		f.add(field+".Stream", "%s is declared otherwise in Set.Streams; use the same value in both places", c.Stream.Name)
	}
	if c.Stream.Class == ClassOutgoing || c.Stream.Class.resent() {
		f.add(field+".Stream", "%s waits for site %s, which fetches it; handle it there", c.Stream.Name, c.Stream.Site)
	}
	if c.Stream.Class == ClassCommands && c.Stream.Service != set.Service {
		f.add(field+".Stream", "%s holds commands to %s; only that service may handle them", c.Stream.Name, c.Stream.Service)
	}
}

func (set Set) validatePair(f *faults, field string, a, b Consumer) {
	switch {
	case a.Durable == b.Durable:
		f.add(field, "is listed twice; remove one, or name them by purpose or part")
	case a.Stream.Name == b.Stream.Name && a.Stream.Class == ClassCommands && a.Filter.Overlaps(b.Filter):
		*f = append(*f, &OverlapError{Stream: a.Stream.Name, Durable: a.Durable, Other: b.Durable})
	}
}

// validateDead demands the streams that a consumer puts failures into; without
// them the first poison message stops it.
func (set Set) validateDead(f *faults) {
	for _, class := range []Class{ClassDeadLetters, ClassDeadLetterOps} {
		name := StreamName(set.Service, class)
		if !slices.ContainsFunc(set.Streams, func(s Stream) bool { return s.Name == name }) {
			f.add("Set.Streams", "%s is missing, and %s has consumers; add %s", name, set.Service,
				map[Class]string{ClassDeadLetters: "DeadLetters", ClassDeadLetterOps: "DeadLetterOps"}[class])
		}
	}
}

// coveredBy reports whether one of filters matches all that f matches.
func coveredBy(filters []subject.Filter, f subject.Filter) bool {
	return slices.ContainsFunc(filters, func(g subject.Filter) bool { return g.Covers(f) })
}

// overlap returns the first pair that matches a common subject.
func overlap(as, bs []subject.Filter) (a, b subject.Filter, ok bool) {
	for _, a := range as {
		for _, b := range bs {
			if a.Overlaps(b) {
				return a, b, true
			}
		}
	}
	return a, b, false
}

func texts(filters []subject.Filter) string {
	all := make([]string, 0, len(filters))
	for _, f := range filters {
		all = append(all, f.String())
	}
	return strings.Join(all, ", ")
}
