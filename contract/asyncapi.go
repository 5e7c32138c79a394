package contract

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"codeberg.org/dataverket/messaging/envelope"
)

// AsyncAPIOptions are what a document says about the service beside its messages.
// The zero value is good.
type AsyncAPIOptions struct {
	// Title of the document. Default: "<service> messages".
	Title string
	// Version of the document, such as the service's release. Default: 1.0.0.
	Version string
	// Description of the service, in Markdown. Default: none.
	Description string
}

// AsyncAPI returns the AsyncAPI 3.1.0 document of the service (requirement M6): a
// channel for each subject, a send or receive operation for what the service does
// there, and a message for each version, whose payload is the envelope with the
// schema of its data. Retired versions are left out. The same list gives the same
// bytes.
//
// A list whose names break the rules has no document; [List.Lint] tells them all.
func (l List) AsyncAPI(about AsyncAPIOptions) ([]byte, error) {
	if found := l.Lint(); len(found) > 0 {
		faults := make([]error, len(found))
		for i, f := range found {
			faults[i] = fmt.Errorf("contract: AsyncAPI: %s", f)
		}
		return nil, errors.Join(faults...)
	}
	d := asyncDocument{
		AsyncAPI: "3.1.0", ID: "urn:dataverket:service:" + l.Service,
		Info: asyncInfo{
			Title:   cmp.Or(about.Title, l.Service+" messages"),
			Version: cmp.Or(about.Version, "1.0.0"), Description: about.Description,
		},
		DefaultContentType: envelope.ContentTypeJSON,
		Channels:           map[string]*asyncChannel{}, Operations: map[string]*asyncOperation{},
		Components: asyncComponents{Messages: map[string]asyncMessage{}, Schemas: map[string]any{envelopeKey: EnvelopeSchema()}},
	}
	for _, c := range l.Contracts {
		if !c.Retired {
			d.add(c)
		}
	}
	return encode(d)
}

// The parts of a document, as far as we write them. Maps are written in the order of
// their keys.
type (
	asyncDocument struct {
		AsyncAPI           string                     `json:"asyncapi"`
		ID                 string                     `json:"id"`
		Info               asyncInfo                  `json:"info"`
		DefaultContentType string                     `json:"defaultContentType"`
		Channels           map[string]*asyncChannel   `json:"channels"`
		Operations         map[string]*asyncOperation `json:"operations"`
		Components         asyncComponents            `json:"components"`
	}
	asyncInfo struct {
		Title       string `json:"title"`
		Version     string `json:"version"`
		Description string `json:"description,omitempty"`
	}
	asyncChannel struct {
		Address  string              `json:"address"`
		Messages map[string]asyncRef `json:"messages"`
		// The specification has no place for a stream.
		Stream string `json:"x-dv-stream"`
	}
	asyncOperation struct {
		Action  string   `json:"action"`
		Channel asyncRef `json:"channel"`
		// They refer to the channel's messages; the specification refuses others.
		Messages []asyncRef `json:"messages"`
	}
	asyncRef struct {
		Ref string `json:"$ref"`
	}
	asyncComponents struct {
		Messages map[string]asyncMessage `json:"messages"`
		Schemas  map[string]any          `json:"schemas"`
	}
	asyncMessage struct {
		Name          string       `json:"name"`
		Title         string       `json:"title"`
		ContentType   string       `json:"contentType"`
		CorrelationID asyncPlace   `json:"correlationId"`
		Headers       *Schema      `json:"headers"`
		Payload       asyncPayload `json:"payload"`
		Version       int          `json:"x-dv-version"`
		Visibility    string       `json:"x-dv-visibility"`
		// Nats-Msg-Id belongs to the protocol, and so is no application header.
		MessageID asyncPlace `json:"x-dv-nats-msg-id"`
	}
	asyncPlace struct {
		Location string `json:"location"`
	}
	asyncPayload struct {
		SchemaFormat string `json:"schemaFormat"`
		Schema       any    `json:"schema"`
	}
)

// Keys and references of a document.
const (
	envelopeKey     = "envelope"
	schemaComponent = "#/components/schemas/"
	// schemaFormat is the one that the specification names for JSON Schema.
	schemaFormat = "application/schema+json;version=draft-07"
)

// add adds what one version of a message needs.
func (d *asyncDocument) add(c Contract) {
	key := fmt.Sprintf("%s.v%d", c.Type, c.Version)
	d.Components.Schemas[key] = c.Schema.rooted(schemaComponent + key)
	d.Components.Messages[key] = c.message(key)
	channel := d.Channels[c.Subject]
	if channel == nil {
		channel = &asyncChannel{Address: c.Subject, Messages: map[string]asyncRef{}, Stream: streamOf(c)}
		d.Channels[c.Subject] = channel
	}
	channel.Messages[key] = asyncRef{"#/components/messages/" + key}
	if c.Direction != Received {
		d.operate("send", c.Subject, key)
	}
	if c.Direction != Sent {
		d.operate("receive", c.Subject, key)
	}
}

// operate adds a message to an operation on a subject.
func (d *asyncDocument) operate(action, on, key string) {
	o := d.Operations[action+"."+on]
	if o == nil {
		o = &asyncOperation{Action: action, Channel: asyncRef{"#/channels/" + on}}
		d.Operations[action+"."+on] = o
	}
	o.Messages = append(o.Messages, asyncRef{"#/channels/" + on + "/messages/" + key})
}

// streamOf names the stream that holds a message, as package topology does.
func streamOf(c Contract) string {
	tokens := strings.Split(c.Subject, ".") // dv, service, family
	return "DV_" + strings.ToUpper(tokens[1]) + "_" + strings.ToUpper(tokens[2])
}

// message describes one version of a message.
func (c Contract) message(key string) asyncMessage {
	constant := func(v any) any { return map[string]any{"const": v} }
	return asyncMessage{
		Name: c.Type, Title: c.String(), ContentType: envelope.ContentTypeJSON,
		CorrelationID: asyncPlace{"$message.payload#/correlation_id"},
		Headers:       headerSchema(c.Version),
		Payload: asyncPayload{schemaFormat, map[string]any{"allOf": []any{
			asyncRef{schemaComponent + envelopeKey},
			map[string]any{"properties": map[string]any{
				"type": constant(c.Type), "dataschema": constant(c.DataSchema()), "data": asyncRef{schemaComponent + key},
			}},
		}}},
		Version: c.Version, Visibility: c.Visibility, MessageID: asyncPlace{"$message.payload#/id"},
	}
}

// headerSchema is that of the application headers: a projection of the envelope.
func headerSchema(version int) *Schema {
	text := func(description string) *Schema { return &Schema{Description: description, Type: Types{typeString}} }
	number := text("The version of the data's schema.")
	number.Enum = anyOf([]string{fmt.Sprint(version)})
	return &Schema{Type: Types{typeObject}, Properties: map[string]*Schema{
		envelope.HeaderEventVersion:  number,
		envelope.HeaderCorrelationID: text("As correlation_id."),
		envelope.HeaderCausationID:   text("As causation_id."),
		envelope.HeaderTenantID:      text("As tenant_id; absent in platform scope."),
		envelope.HeaderType:          text("As type."),
		envelope.HeaderSource:        text("As source."),
		envelope.HeaderTraceparent:   text("W3C trace context."),
	}}
}

// rooted returns the schema with its references leading below another root: there
// is one document, and "#" would be its beginning.
func (s *Schema) rooted(at string) *Schema {
	if s == nil {
		return nil
	}
	n := *s
	if rest, ok := strings.CutPrefix(s.Ref, "#"); ok {
		n.Ref = at + rest
	}
	n.Items, n.AdditionalProperties = s.Items.rooted(at), s.AdditionalProperties.rooted(at)
	n.Properties, n.Definitions = rootedAll(s.Properties, at), rootedAll(s.Definitions, at)
	n.AnyOf = nil
	for _, alternative := range s.AnyOf {
		n.AnyOf = append(n.AnyOf, alternative.rooted(at))
	}
	return &n
}

func rootedAll(all map[string]*Schema, at string) map[string]*Schema {
	if all == nil {
		return nil
	}
	out := make(map[string]*Schema, len(all))
	for name, s := range all {
		out[name] = s.rooted(at)
	}
	return out
}
