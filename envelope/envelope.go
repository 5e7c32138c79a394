package envelope

import (
	"encoding/json"
	"iter"
	"strconv"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/internal/strictjson"
	"codeberg.org/dataverket/messaging/subject"
)

// Limits of the wire contract.
const (
	// MaxSize is the largest encoded envelope in bytes, 512 KiB. It leaves
	// half of the broker's default max_payload of 1 MiB to headers and to the
	// wrapping of a dead letter. What is larger is stored elsewhere and
	// referenced with [Artifact] (requirement E2).
	MaxSize = 512 << 10
	// SpecVersion is the envelope version that writers emit. Readers accept
	// any 1.x, so that a later minor version can add fields without a date on
	// which everyone must be updated (requirement E1).
	SpecVersion = "1.0"
	// ContentTypeJSON is the content type that writers emit.
	ContentTypeJSON = "application/json"
)

// Envelope is one command or event as it travels and as it is stored: the
// fifteen fields of the Dataverket envelope, the schema of the data, and the
// visibility (requirement E1). [Decode] returns a validated one; one built by
// hand is checked by [Envelope.Validate] and again by [Envelope.Encode].
// Services do not build envelopes but draft messages with [Type.New].
//
// An empty string in an optional field means that the field is absent; on the
// wire a field is absent or filled, never empty and never null.
//
// An Envelope is safe for concurrent reading. Data is not copied by [Decode]:
// neither it nor the decoded bytes may be changed afterwards.
type Envelope struct {
	// SpecVersion is the version of the envelope itself: "1." and digits.
	SpecVersion string
	// ID identifies the message: a UUID in canonical lower-case form, version 7
	// from this library, any version when read. Together with Source it is what
	// consumers recognise a duplicate by.
	ID string
	// Type is the logical message type, such as
	// "maskin.server.provision.requested": 2 to 6 dot-separated tokens of
	// [a-z][a-z0-9_]*, at most 255 bytes, the first a service name or "task".
	Type string
	// Source is the emitting service.
	Source subject.Service
	// Subject identifies the resource inside the emitting domain, and is the
	// default ordering key: 1 to 256 bytes without control characters. It is
	// not the NATS subject.
	Subject string
	// Time is when the message was made, in UTC with microseconds; finer
	// fractions of a foreign producer are cut off.
	Time time.Time
	// DataContentType is "application/json" or a media type that ends in
	// "+json", lower case and without parameters.
	DataContentType string
	// DataSchema is "urn:dataverket:schema:<type>:v<n>" with the envelope's own
	// type and a version from 1 to 65535 (requirement E3).
	DataSchema string
	// TenantID is the tenant the message belongs to. Empty means platform
	// scope: the message belongs to no tenant (requirement X4).
	TenantID string
	// ProjectID is the project the message belongs to, if any.
	ProjectID string
	// EnvironmentID is the environment the message belongs to, if any.
	EnvironmentID string
	// DatacenterID is the site that the resource belongs to, if any. The site
	// that published the message is the header Dv-Site (requirement W1).
	DatacenterID string
	// Actor is the identity that initiated the action. Commands must have one
	// (requirement E5); events of foreign producers may lack it.
	Actor Actor
	// CorrelationID is shared by all messages of one workflow. Required.
	CorrelationID string
	// CausationID is the id of the message that led to this one; empty at the
	// edge, where no message did.
	CausationID string
	// Visibility tells whether the message may leave the platform. Internal,
	// the zero value, is not written (requirement E8).
	Visibility Visibility
	// Data is the payload: a JSON object (requirement E2).
	Data json.RawMessage

	// unknown holds the top-level fields that this version does not know, in
	// their order and with their bytes, so that forwarding loses nothing
	// (requirement E4).
	unknown []rawField
}

// rawField is a field as it stood in the input: the name without its quotes,
// still escaped, and the value.
type rawField struct{ name, value []byte }

// Visibility tells whether a message may leave the platform through an edge
// such as a webhook (requirement E8).
type Visibility string

// The visibilities.
const (
	// Internal is the zero value: the message stays inside the platform. It is
	// read as "internal" and written by leaving the field out.
	Internal Visibility = ""
	// External allows edges to send the message on.
	External Visibility = "external"
)

// wireInternal is how a foreign producer may spell [Internal].
const wireInternal = "internal"

// String returns "internal", "external", or the text as it is.
func (v Visibility) String() string {
	if v == Internal {
		return wireInternal
	}
	return string(v)
}

// SchemaVersion returns the version in DataSchema, or 0 when that is not a
// schema of the envelope's own type. A validated envelope has 1 to 65535.
func (e *Envelope) SchemaVersion() int {
	version, reason := parseSchema(e.DataSchema, e.Type)
	if reason != "" {
		return 0
	}
	return version
}

// Unknown iterates over the top-level fields that this version of the library
// does not know, in their order, names unescaped. [Envelope.Encode] writes them
// back unchanged. The values alias the decoded input; do not change them.
func (e *Envelope) Unknown() iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		for _, f := range e.unknown {
			if !yield(string(strictjson.AppendUnescaped(nil, f.name)), f.value) {
				return
			}
		}
	}
}

// Parts of a schema name.
const (
	schemaPrefix     = "urn:dataverket:schema:"
	schemaVersionTag = ":v"
	maxSchemaVersion = 1<<16 - 1
)

// schemaName is the one place where a schema name is made.
func schemaName(typeName string, version int) string {
	return schemaPrefix + typeName + schemaVersionTag + strconv.Itoa(version)
}

// parseSchema returns the version in a schema name of the given type, or the
// reason why it is none. It does not allocate when the name is good.
func parseSchema(schema, typeName string) (version int, reason string) {
	rest, ok := strings.CutPrefix(schema, schemaPrefix)
	if !ok {
		return 0, "must be urn:dataverket:schema:<type>:v<n>"
	}
	rest, ok = strings.CutPrefix(rest, typeName)
	if ok {
		rest, ok = strings.CutPrefix(rest, schemaVersionTag)
	}
	if !ok {
		return 0, "must name the envelope's own type: urn:dataverket:schema:<type>:v<n>"
	}
	// Atoi takes signs and leading zeros; two spellings of one version would be
	// two schemas to whoever compares the names.
	n, err := strconv.Atoi(rest)
	if err != nil || n < 1 || n > maxSchemaVersion || rest[0] < '1' || rest[0] > '9' {
		return 0, "must end in a version from v1 to v65535 without leading zeros"
	}
	return n, ""
}
