package contract

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// format is the version of the files that this package writes.
const format = 1

// Kind is whether a message says that something happened or asks for work.
type Kind string

// The kinds.
const (
	// Event is a fact of the service that its subject names.
	Event Kind = "event"
	// Command is addressed to the service that its subject names.
	Command Kind = "command"
)

// Direction is what a service does with a message.
type Direction string

// The directions.
const (
	// Sent: the service publishes it, see [Produces].
	Sent Direction = "produces"
	// Received: the service handles it, see [Handles].
	Received Direction = "handles"
	// Both: it does both.
	Both Direction = "both"
)

// Contract is one version of one message.
type Contract struct {
	// Type is the name on the wire, and Version that of the data's schema.
	Type    string `json:"type"`
	Version int    `json:"version"`
	// Kind says whether it is an event or a command.
	Kind Kind `json:"kind"`
	// Direction says what the service does with it.
	Direction Direction `json:"direction"`
	// Subject is where it is published.
	Subject string `json:"subject"`
	// Visibility is "internal" or "external".
	Visibility string `json:"visibility"`
	// Retired is set on what the service no longer lists: versions that are only
	// carried forward, and in a lock also what is no longer declared. The schema is
	// kept, so that the version never gets another meaning.
	Retired bool `json:"retired,omitempty"`
	// Schema is that of the data.
	Schema *Schema `json:"schema"`
}

// String returns the name and the version.
func (c Contract) String() string { return fmt.Sprintf("%s v%d", c.Type, c.Version) }

// DataSchema returns the dataschema of the message's envelopes.
func (c Contract) DataSchema() string {
	return fmt.Sprintf("urn:dataverket:schema:%s:v%d", c.Type, c.Version)
}

// SchemaDocument returns the JSON Schema of the data as a document of its own.
func (c Contract) SchemaDocument() ([]byte, error) { return c.Schema.document(c.DataSchema()) }

// List is the messages of a service, by type and version: what a [Catalogue]
// exports, and what a lock file holds. In a lock nothing is ever removed.
//
// It is plain data, as a file has it: names may break the rules, which [List.Lint]
// tells. Reading one from several goroutines is safe.
type List struct {
	// Format is 1.
	Format int `json:"format"`
	// Lock says that this is a lock, which remembers, and not an export.
	Lock bool `json:"lock,omitempty"`
	// Service is whose messages these are.
	Service string `json:"service"`
	// Contracts are sorted by type and version.
	Contracts []Contract `json:"contracts"`
}

// Parse reads a list or a lock strictly: every name known, every schema of the
// subset of [Schema], each version of a type once. It does not judge names, see
// [List.Lint]. All faults of contracts are reported at once.
func Parse(data []byte) (List, error) {
	l, err := decodeStrict[List](data)
	if err != nil {
		return List{}, fmt.Errorf("contract: parse list: %w", err)
	}
	if l.Format != format {
		return List{}, fmt.Errorf("contract: parse list: format %d, this version of the library reads %d", l.Format, format)
	}
	seen := map[string]bool{}
	var faults []error
	for i, c := range l.Contracts {
		if seen[c.String()] {
			faults = append(faults, fmt.Errorf("contract: parse list: contracts[%d]: %s stands there twice", i, clip(c.String())))
		}
		seen[c.String()] = true
		if err := c.Schema.check(); err != nil {
			faults = append(faults, fmt.Errorf("contract: parse list: contracts[%d] (%s): schema: %w", i, clip(c.String()), err))
		}
	}
	if len(faults) > 0 {
		return List{}, errors.Join(faults...)
	}
	l.sort()
	return *l, nil
}

// Encode writes the file's content: always the same bytes for the same list.
func (l List) Encode() ([]byte, error) {
	l.Contracts = append([]Contract{}, l.Contracts...)
	l.sort()
	return encode(l)
}

func (l List) sort() {
	slices.SortFunc(l.Contracts, func(a, b Contract) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Version, b.Version))
	})
}

// find returns the contract of a version.
func (l List) find(c Contract) (Contract, bool) {
	i := slices.IndexFunc(l.Contracts, func(o Contract) bool { return o.Type == c.Type && o.Version == c.Version })
	if i < 0 {
		return Contract{}, false
	}
	return l.Contracts[i], true
}

// contractOf makes the contract of a declared message.
func contractOf(d envelope.Declaration, dir Direction) (Contract, error) {
	s, err := schemaOf(d.Data)
	if err != nil {
		return Contract{}, err
	}
	kind := Event
	if d.Subject.Family() == subject.FamilyCommand {
		kind = Command
	}
	return Contract{
		Type: d.Name, Version: d.Version, Kind: kind, Direction: dir, Subject: d.Subject.String(),
		Visibility: d.Visibility.String(), Schema: s,
	}, nil
}

// clip bounds foreign text in an error.
func clip(text string) string { return fmt.Sprintf("%.200q", text) }
