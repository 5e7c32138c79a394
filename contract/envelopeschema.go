package contract

import (
	"strings"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Patterns of the envelope's fields.
const (
	idPattern        = `^[A-Za-z0-9][A-Za-z0-9._:@/+=-]*$`
	uuidPattern      = `^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`
	timePattern      = `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z$`
	mediaTypePattern = `^(application/json|[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*\+json)$`
	schemaPattern    = `^urn:dataverket:schema:[a-z][a-z0-9_.]*:v[1-9][0-9]{0,4}$`
)

// EnvelopeSchema returns the JSON Schema of the envelope, which stands in
// docs/schemas/envelope.json (requirement E7). It says what a schema can: lengths
// are bytes and not characters, dataschema names the envelope's own type, names come
// once, a command has an actor; those rules are in docs/WIRE.md. It is made anew for
// each call.
func EnvelopeSchema() *Schema {
	var services []string
	for _, s := range subject.Services() {
		services = append(services, s.String())
	}
	text := func(description, pattern string, longest float64) *Schema {
		s := &Schema{Description: description, Type: Types{typeString}, Pattern: pattern}
		if longest > 0 {
			s.MaxLength = new(longest)
		}
		return s
	}
	id := func(description string) *Schema { return text(description, idPattern, 128) }
	messageID := text("UUID in lower case; written as version 7, unique over the stream.", uuidPattern, 0)
	messageID.Format = "uuid"
	when := text("RFC 3339 in UTC, ending in Z.", timePattern, 0)
	when.Format = "date-time"
	resource := text("Id of the resource, without control characters; the default ordering key.", "", 256)
	resource.MinLength = new(1.0)
	return &Schema{
		Title: "Envelope", Description: "What travels: one command or event.", Type: Types{typeObject},
		Properties: map[string]*Schema{
			"specversion": text("Version of the envelope; written as 1.0.", `^1\.[0-9]{1,8}$`, 0),
			"id":          messageID,
			"type": text("Logical type: <service>.<entity>.<verb>, or <service>.<entity>.<action>.requested.",
				`^(task|`+strings.Join(services, "|")+`)(\.[a-z][a-z0-9_]*){1,5}$`, 255),
			"source":          {Description: "The emitting service.", Type: Types{typeString}, Enum: anyOf(services)},
			"subject":         resource,
			"time":            when,
			"datacontenttype": text("What the data is: JSON.", mediaTypePattern, 127),
			"dataschema":      text("The schema of the data: the envelope's own type and a version.", schemaPattern, 0),
			"tenant_id":       id("The tenant; absent in platform scope."),
			"project_id":      id("The project, where there is one."),
			"environment_id":  id("The environment, where there is one."),
			"datacenter_id":   id("The site that the resource belongs to."),
			"actor":           text("Who initiated it; required in commands.", `^(user|service|operator|system):[A-Za-z0-9][A-Za-z0-9._:@/+=-]*$`, 160),
			"correlation_id":  id("Shared by the whole workflow."),
			"causation_id":    id("Id of the message that led to this one."),
			"visibility": {
				Description: "Whether edges may send it out of the platform; absent means internal.",
				Type:        Types{typeString}, Enum: anyOf([]string{envelope.Internal.String(), envelope.External.String()}),
			},
			"data": {Description: "The payload, by the schema that dataschema names.", Type: Types{typeObject}},
		},
		Required: []string{"correlation_id", "data", "datacontenttype", "dataschema", "id", "source", "specversion", "subject", "time", "type"},
	}
}

// EnvelopeSchemaDocument returns [EnvelopeSchema] as a document of its own.
func EnvelopeSchemaDocument() ([]byte, error) {
	return EnvelopeSchema().document("urn:dataverket:schema:envelope:1.0")
}
