package topology

import (
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/subject"
)

// Source is where a stream takes messages of another site from. [Network] makes
// it.
type Source struct {
	Site   string // the site of origin, as in Dv-Site
	Domain string // its JetStream domain
	Stream string // the stream there

	// Subjects are what is taken, and the subjects it has on arrival. Messages
	// that fit none stay where they are.
	Subjects []Mapping
}

// Mapping is one transform of subjects, in NATS's words: what stands for > in
// From stands for > in To.
type Mapping struct {
	From string
	To   string
}

// config returns the source as the server takes it. The transforms are given
// also where they change nothing, because they filter.
func (s Source) config() *jetstream.StreamSource {
	cfg := &jetstream.StreamSource{Name: s.Stream, External: &jetstream.ExternalStream{APIPrefix: domainAPI(s.Domain)}}
	for _, m := range s.Subjects {
		cfg.SubjectTransforms = append(cfg.SubjectTransforms, jetstream.SubjectTransformConfig{Source: m.From, Destination: m.To})
	}
	return cfg
}

func domainAPI(domain string) string { return "$JS." + domain + ".API" }

// showSources is all of it in one line. A filter is shown too, since another one
// takes other messages.
func showSources(list []*jetstream.StreamSource) string {
	var texts []string
	for _, s := range list {
		texts = append(texts, showSource(s))
	}
	return showList(texts)
}

func showSource(s *jetstream.StreamSource) string {
	if s == nil {
		return "none"
	}
	parts := []string{s.Name}
	if s.External != nil {
		parts = append(parts, "by "+s.External.APIPrefix+s.External.DeliverPrefix)
	}
	if s.FilterSubject != "" {
		parts = append(parts, "only "+s.FilterSubject)
	}
	var maps []string
	for _, t := range s.SubjectTransforms {
		maps = append(maps, t.Source+" as "+t.Destination)
	}
	slices.Sort(maps)
	return strings.Join(append(parts, maps...), " ")
}

// sourcesField compares where a stream takes messages from. Streams that never
// have sources are decided about by hand: what feeds on them is unknown.
func sourcesField(class Class) field[streamConfig] {
	f := field[streamConfig]{name: "sources", show: func(c streamConfig) string { return showSources(c.Sources) }}
	if class != ClassCommands && !class.IsCopy() {
		f.fixed = removeByHand
		return f
	}
	f.loses = func(from, to streamConfig) bool {
		return slices.ContainsFunc(from.Sources, func(had *jetstream.StreamSource) bool {
			return !slices.ContainsFunc(to.Sources, func(has *jetstream.StreamSource) bool { return showSource(has) == showSource(had) })
		})
	}
	return f
}

// holds returns the filters of all that the stream may hold.
func (s Stream) holds() []subject.Filter {
	all := slices.Clone(s.Subjects)
	for _, src := range s.Sources {
		for _, m := range src.Subjects {
			if f, err := subject.ParseFilter(m.To); err == nil {
				all = append(all, f)
			}
		}
	}
	return all
}

// owner is who creates the stream.
func (s Stream) owner() subject.Service {
	if s.Owner.Valid() {
		return s.Owner
	}
	return s.Service
}

// SourceSites returns the sites whose messages the stream takes from streams of a
// name; none if there is no such source. There are several where several sites send
// commands to one.
func (s Stream) SourceSites(stream string) []string {
	var sites []string
	for _, src := range s.Sources {
		if src.Stream == stream && !slices.Contains(sites, src.Site) {
			sites = append(sites, src.Site)
		}
	}
	return sites
}
