package subject

import "strings"

// Service is one of the accepted Dataverket service identities: the closed set
// of requirement S2. The zero value is invalid and names no service, so a
// forgotten field is refused instead of being taken for the first service.
//
// A Service is a plain value: copy it, compare it with ==, use it as a map key.
type Service uint8

// The accepted services. A new one is an accepted architecture decision first
// and then one line here, whose comment names that decision, with its name in
// the table below; the two lines cannot get out of step without the build
// saying so. The order is that of the decision and is not part of the wire.
const (
	Sentral       Service = iota + 1 // DATAVERKET 007, naming guidance
	Identitet                        // DATAVERKET 007, naming guidance
	Maskin                           // DATAVERKET 007, naming guidance
	Plattform                        // DATAVERKET 007, naming guidance
	Tjeneste                         // DATAVERKET 007, naming guidance
	Objekt                           // DATAVERKET 007, naming guidance
	Nett                             // DATAVERKET 007, naming guidance
	endOfServices                    // bound of the set; new services stand above this line
)

// serviceNames is constant: the wire name of every service, and the only place
// where a name is written. It is an array and not a switch so that the
// assertion below can hold it against the constants.
var serviceNames = [...]string{
	Sentral:   "sentral",
	Identitet: "identitet",
	Maskin:    "maskin",
	Plattform: "plattform",
	Tjeneste:  "tjeneste",
	Objekt:    "objekt",
	Nett:      "nett",
}

// A constant without a name does not compile: the index is then negative.
var _ = [1]struct{}{}[len(serviceNames)-int(endOfServices)]

// ParseService returns the service with the given wire name. Names are exact:
// no other case, no surrounding space. The error is an [*Error] that lists the
// accepted names.
func ParseService(name string) (Service, error) {
	if s := lookupService(name); s.Valid() {
		return s, nil
	}
	return 0, newError("service", name, serviceRemedy())
}

// lookupService is ParseService without the error, for the path that must not
// allocate. Seven comparisons cost less than a map here.
func lookupService(name string) Service {
	for i := 1; i < len(serviceNames); i++ {
		if serviceNames[i] == name {
			return Service(i)
		}
	}
	return 0
}

// Services returns all accepted services in declaration order. The slice is the
// caller's own.
func Services() []Service {
	all := make([]Service, 0, len(serviceNames)-1)
	for i := 1; i < len(serviceNames); i++ {
		all = append(all, Service(i))
	}
	return all
}

// String returns the wire name, or "invalid" for a value outside the set. The
// text "invalid" is for messages only: [ParseService] does not accept it.
func (s Service) String() string {
	if !s.Valid() {
		return "invalid"
	}
	return serviceNames[s]
}

// Valid reports whether s is one of the accepted services.
func (s Service) Valid() bool { return s > 0 && s < endOfServices }

// MarshalText returns the wire name. A value outside the set is an error, since
// nobody could read it back.
func (s Service) MarshalText() ([]byte, error) {
	if !s.Valid() {
		return nil, newError("service", "", "not set: "+serviceRemedy())
	}
	return []byte(serviceNames[s]), nil
}

// UnmarshalText is [ParseService] for encoding/json and its relatives. s is
// unchanged when it fails.
func (s *Service) UnmarshalText(text []byte) error {
	parsed, err := ParseService(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// serviceRemedy tells what a reader of the error may write instead.
func serviceRemedy() string {
	return "use one of: " + strings.Join(serviceNames[1:], ", ")
}
