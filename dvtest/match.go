package dvtest

import (
	"fmt"
	"reflect"
	"strings"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Match narrows which messages [RequireEnqueued] and [RequireNotEnqueued] mean,
// or where they look: [ForResource], [WithKey], [ForTenant], [InCorrelation],
// [CausedBy], [ToSite], [Where] and [InSchema]. Several are combined with "and".
type Match interface {
	narrow(*search)
}

// condition is one Match: what it asks for, and how a message misses it.
type condition struct {
	wants string
	miss  func(*enqueuedRow) string // "" when the message fits
}

func (c condition) narrow(s *search) { s.conditions = append(s.conditions, c) }

func (p Place) narrow(s *search) { s.place = p }

// equal asks for one value of the envelope or the row.
func equal(name, want string, have func(*enqueuedRow) string) Match {
	return condition{
		wants: fmt.Sprintf("%s %q", name, want),
		miss: func(r *enqueuedRow) string {
			if got := have(r); got != want {
				return fmt.Sprintf("%s is %q, want %q", name, got, want)
			}
			return ""
		},
	}
}

// ForResource matches messages about one resource: the first argument of
// envelope.Type.New, and the envelope's subject.
func ForResource(id string) Match {
	return equal("resource", id, func(r *enqueuedRow) string { return r.envelope.Subject })
}

// WithKey matches messages with this ordering key, which is the resource id
// unless envelope.OrderingKey said otherwise.
func WithKey(key string) Match {
	return equal("ordering key", key, func(r *enqueuedRow) string { return r.key })
}

// ForTenant matches messages of one tenant; "" matches those of none, in platform
// scope.
func ForTenant(id string) Match {
	return equal("tenant", id, func(r *enqueuedRow) string { return r.envelope.TenantID })
}

// InCorrelation matches messages of one workflow.
func InCorrelation(id string) Match {
	return equal("correlation", id, func(r *enqueuedRow) string { return r.envelope.CorrelationID })
}

// ToSite matches commands to the service at another site; "" matches what is for this
// one.
func ToSite(site string) Match {
	return equal("site", site, func(r *enqueuedRow) string {
		on, err := subject.Parse(r.subject)
		if err != nil {
			return ""
		}
		return on.Site()
	})
}

// CausedBy matches messages that were enqueued while the message with this
// envelope id was handled; "" matches those that entered at the edge.
func CausedBy(messageID string) Match {
	return equal("causation", messageID, func(r *enqueuedRow) string { return r.envelope.CausationID })
}

// Where matches messages whose data the function accepts. The data is never
// printed, so what says in a failure which condition was missed: "the hostname is
// db1". T is the type that the message carries; another one fails the test.
func Where[T any](what string, accept func(T) bool) Match {
	return dataCondition{
		data: reflect.TypeFor[T](),
		condition: condition{
			wants: "data where " + what,
			miss: func(r *enqueuedRow) string {
				// Whatever is not there has been reported as another miss.
				if data, ok := r.data.(T); ok && !accept(data) {
					return "its data does not fit: " + what
				}
				return ""
			},
		},
	}
}

// dataCondition is a condition that knows the Go type of the data.
type dataCondition struct {
	condition
	data reflect.Type
}

func (c dataCondition) narrow(s *search) {
	if c.data != s.data {
		s.faults = append(s.faults, fmt.Sprintf("Where takes a %s, but %s carries %s", c.data, s.wanted(), s.data))
	}
	c.condition.narrow(s)
}

// search is what an assertion looks for in the outbox.
type search struct {
	place      Place
	name       string
	version    int
	data       reflect.Type
	decode     func(*envelope.Envelope) (any, error)
	conditions []condition
	faults     []string // of the call itself
}

func newSearch[T any](t envelope.Type[T], match []Match) *search {
	s := &search{
		name: t.Name(), version: t.Version(), data: reflect.TypeFor[T](),
		decode: func(e *envelope.Envelope) (any, error) { return t.Decode(e) },
	}
	if s.name == "" {
		s.faults = append(s.faults, "the type is the zero envelope.Type; make it with envelope.MustEvent or MustCommand")
	}
	for _, m := range match {
		m.narrow(s)
	}
	return s
}

// wanted names the type, for messages.
func (s *search) wanted() string { return fmt.Sprintf("%s v%d", s.name, s.version) }

// String says everything that is looked for.
func (s *search) String() string {
	text := []string{s.wanted()}
	for _, c := range s.conditions {
		text = append(text, c.wants)
	}
	return strings.Join(text, ", ")
}

// misses returns how a row differs from what is looked for, nothing if it is that.
// ok is false where the two have nothing in common: a row of another type.
func (s *search) misses(r *enqueuedRow) (differs []string, ok bool) {
	if r.envelope == nil || r.envelope.Type != s.name {
		return nil, false
	}
	if v := r.envelope.SchemaVersion(); v != s.version {
		differs = append(differs, fmt.Sprintf("version is v%d, want v%d", v, s.version))
	} else if data, err := s.decode(r.envelope); err != nil {
		differs = append(differs, err.Error())
	} else {
		r.data = data
	}
	for _, c := range s.conditions {
		if miss := c.miss(r); miss != "" {
			differs = append(differs, miss)
		}
	}
	return differs, true
}
