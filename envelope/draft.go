package envelope

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unique"

	"github.com/google/uuid"

	"codeberg.org/dataverket/messaging/subject"
)

// Draft is a message before it has an identity: what [Type.New] returns and
// outbox.Enqueue takes. The data is marshalled when the draft is made, so that
// later changes of a map or a pointer do not reach it. Everything that the draft says
// is checked then, too, and what is wrong is reported by [New], with everything else.
//
// A Draft is an immutable value and may be used several times; each use becomes
// a message with an id of its own, unless [Draft.Identify] gave it one. The zero
// value is refused by [New].
type Draft struct {
	typeName      string
	schema        string
	subject       subject.Subject
	resourceID    string
	orderingKey   string
	projectID     string
	environmentID string
	datacenterID  string
	site          string // of a command: where its service is
	visibility    Visibility
	frame         unique.Handle[frame]
	data          json.RawMessage
	err           error     // what is wrong with all of it
	id            uuid.UUID // nil: one of its own at each use
}

// Option sets a field of a single message that has a default. The zero value sets
// nothing.
type Option struct {
	field int
	text  string
}

// What is no field on the wire: that of [OrderingKey], and that of [ToSite].
const (
	optionKey = fieldCount + iota
	optionSite
)

// OrderingKey sets the key within which messages keep their order: 1 to 256
// bytes without control characters. Default: the resource id.
func OrderingKey(key string) Option { return Option{optionKey, key} }

// Project sets project_id. Default: absent.
func Project(id string) Option { return Option{fieldProject, id} }

// Environment sets environment_id. Default: absent.
func Environment(id string) Option { return Option{fieldEnvironment, id} }

// Datacenter sets datacenter_id, the site that the resource belongs to. Default:
// absent.
func Datacenter(id string) Option { return Option{fieldDatacenter, id} }

// ToSite sends a command to the service at the site of that name, which may be this
// one; where another one is meant, the outbox looks for the flow of commands that goes
// there. It is for commands only, and says nothing about where the resource belongs:
// that is [Datacenter]. "" is the default: the service at this site.
func ToSite(site string) Option { return Option{optionSite, site} }

// ExternallyVisible allows edges to send the message out of the platform.
// Default: what the type's declaration says, and that is that it stays inside
// (requirement E8).
func ExternallyVisible() Option { return Option{fieldVisibility, string(External)} }

// set applies an option. Options are values and not functions, so that a draft
// need not be on the heap.
func (d *Draft) set(o Option) {
	switch o.field {
	case optionKey:
		d.orderingKey = o.text
	case optionSite:
		d.site = o.text
	case fieldProject:
		d.projectID = o.text
	case fieldEnvironment:
		d.environmentID = o.text
	case fieldDatacenter:
		d.datacenterID = o.text
	case fieldVisibility:
		d.visibility = Visibility(o.text)
	}
}

// New drafts a message about the resource resourceID, 1 to 256 bytes without
// control characters. It cannot fail: what is wrong with the data or the ids is
// reported where the message is sent.
func (t Type[T]) New(resourceID string, data T, opts ...Option) Draft {
	d := Draft{
		typeName: t.name, schema: t.schema, subject: t.subject, frame: t.frame,
		resourceID: resourceID, orderingKey: resourceID, visibility: t.visibility,
	}
	for _, opt := range opts {
		d.set(opt)
	}
	raw, err := json.Marshal(data)
	d.data, d.err = raw, d.check(raw, err)
	return d
}

// TypeName returns the name on the wire of the type that the draft was made with.
func (d Draft) TypeName() string { return d.typeName }

// ResourceID returns the resource that the draft is about.
func (d Draft) ResourceID() string { return d.resourceID }

// DatacenterID returns where the resource belongs, as [Datacenter] says it.
func (d Draft) DatacenterID() string { return d.datacenterID }

// Placement returns the options that say where the message belongs: project,
// environment and datacenter. They are for a message about the same thing.
func (d Draft) Placement() []Option {
	return []Option{Project(d.projectID), Environment(d.environmentID), Datacenter(d.datacenterID)}
}

// Identify returns the draft of one message whose id is given now (a UUIDv7), and
// the id: for a sender that has to name a message in another before either is
// stored. Sent twice it is the same message twice, which an outbox refuses.
func (d Draft) Identify() (Draft, string) {
	d.id = newID()
	return d, d.id.String()
}

// messageID returns the id that the draft was given, or a new one.
func (d *Draft) messageID() uuid.UUID {
	if d.id != uuid.Nil {
		return d.id
	}
	return newID()
}

// Subject returns what the message is published on, at the site that it is for.
func (d Draft) Subject() subject.Subject { return d.subject }

// Site returns the site that a command is for, as [ToSite] says it; "" for the one
// that sends it.
func (d Draft) Site() string { return d.site }

// Message is a complete message, ready to be stored and published.
type Message struct {
	// Subject is where it is published; of a command to another site, where it
	// arrives.
	Subject subject.Subject
	// OrderingKey is what it keeps its order within.
	OrderingKey string
	// Traceparent is the W3C trace context it was made in, "" when there is
	// none.
	Traceparent string
	// Envelope is what is stored and published.
	Envelope *Envelope
}

// New turns a draft into a message from source: a new id (UUIDv7), the present
// time, and the [Origin] that ctx carries. It reports all faults at once, each as
// a [*FieldError] or [*MismatchError] named after what the caller sets: an origin
// that is missing or lacks correlation, actor, or both tenant and PlatformScope;
// an event of another service; ids that break their rules; data that is no JSON
// object or is too large. Services rarely call it: outbox.Enqueue takes drafts.
func New(ctx context.Context, source subject.Service, d Draft) (Message, error) {
	o, ok := OriginFrom(ctx)
	if err := d.refusal(source, &o, ok); err != nil {
		return Message{}, err
	}
	e := d.envelope(source, &o)
	if size := e.size(); size > MaxSize {
		return Message{}, d.fault(tooLarge(size))
	}
	return Message{d.subject, d.orderingKey, validTraceparent(o.Traceparent), e}, nil
}

// envelope returns the envelope of a new message.
func (d *Draft) envelope(source subject.Service, o *Origin) *Envelope {
	return &Envelope{
		SpecVersion: SpecVersion, ID: d.messageID().String(), Type: d.typeName, Source: source, Subject: d.resourceID,
		// A finer time would not survive the first encoding.
		Time:            wireTime(time.Now()),
		DataContentType: ContentTypeJSON, DataSchema: d.schema,
		TenantID: o.TenantID, ProjectID: d.projectID, EnvironmentID: d.environmentID, DatacenterID: d.datacenterID,
		Actor: o.Actor, CorrelationID: o.CorrelationID, CausationID: o.CausationID,
		Visibility: d.visibility, Data: d.data,
	}
}

// refusal returns everything that keeps source from sending the draft under o. The
// fields that are not looked at were written by us, or checked when the [Type] was
// declared.
func (d *Draft) refusal(source subject.Service, o *Origin, hasOrigin bool) error {
	faults := originFaults(o, hasOrigin)
	if d.typeName == "" {
		faults = append(faults, &FieldError{"draft", "is empty: make it with the New method of a Type"})
	}
	if d.err != nil {
		faults = append(faults, d.err)
	}
	if reason := checkSource(source); reason != "" {
		faults = append(faults, &FieldError{fields[fieldSource].name, reason})
	}
	faults = appendForeign(faults, source, d.subject)
	if len(faults) == 0 {
		return nil
	}
	return d.fault(faults...)
}

// fault says of what type of message the faults are.
func (d *Draft) fault(faults ...error) error {
	return fmt.Errorf("envelope: new message of type %q: %w", clip(d.typeName), errors.Join(faults...))
}

// check returns what is wrong with what the draft says; err is that of marshalling
// its data.
func (d *Draft) check(data []byte, err error) error {
	if d.typeName == "" {
		return nil // whoever sends it hears that, and it says all
	}
	var faults []error
	for _, f := range [...]struct {
		name, text string
		field      int
	}{
		{"resource id", d.resourceID, fieldSubject},
		{fields[fieldProject].name, d.projectID, fieldProject},
		{fields[fieldEnvironment].name, d.environmentID, fieldEnvironment},
		{fields[fieldDatacenter].name, d.datacenterID, fieldDatacenter},
	} {
		if reason := fields[f.field].reason(f.text); reason != "" {
			faults = append(faults, &FieldError{f.name, reason})
		}
	}
	if err != nil {
		faults = append(faults, marshalFault(err))
	} else if reason := checkData(data); reason != "" {
		faults = append(faults, &FieldError{fields[fieldData].name, reason})
	}
	if reason := checkResource(d.orderingKey); reason != "" && d.orderingKey != d.resourceID {
		faults = append(faults, &FieldError{"OrderingKey", reason})
	}
	if d.site != "" {
		faults = append(faults, d.siteFaults()...)
	}
	return errors.Join(faults...)
}

// siteFaults checks what [ToSite] says.
func (d *Draft) siteFaults() []error {
	if d.subject.Family() != subject.FamilyCommand {
		return []error{&FieldError{"ToSite", "is for commands only: events reach other sites by the flows that the platform's network declares"}}
	}
	if _, err := subject.CmdAt(d.site, d.subject.Service(), d.subject.Action()); err != nil {
		return []error{&FieldError{"ToSite", "is no name of a site: use one of the platform's network, such as trd1"}}
	}
	return nil
}

// originFaults checks an origin, also for what [New] demands beyond the wire:
// readers tolerate an event without an actor, we do not send one.
func originFaults(o *Origin, ok bool) []error {
	if !ok {
		return []error{&FieldError{"Origin", "is missing in ctx: set it at the edge with envelope.WithOrigin; " +
			"the ctx of a handler carries it, and m.Context(ctx) where it is one of a batch"}}
	}
	var faults []error
	if o.CorrelationID == "" {
		faults = append(faults, &FieldError{"Origin.CorrelationID", "is required: start with envelope.NewOrigin"})
	}
	if o.Actor == "" {
		faults = append(faults, &FieldError{"Origin.Actor", "is required: say who initiated the work"})
	}
	switch {
	case o.TenantID == "" && !o.PlatformScope:
		faults = append(faults, &FieldError{"Origin.TenantID", "is required: " +
			"set it, or set Origin.PlatformScope when the work is for no tenant"})
	case o.TenantID != "" && o.PlatformScope:
		faults = append(faults, &FieldError{"Origin.PlatformScope", "contradicts Origin.TenantID: set one of the two"})
	}
	for _, id := range [...]struct {
		name, text string
		field      int
	}{
		{"Origin.CorrelationID", o.CorrelationID, fieldCorrelation},
		{"Origin.CausationID", o.CausationID, fieldCausation},
		{"Origin.Actor", string(o.Actor), fieldActor},
		{"Origin.TenantID", o.TenantID, fieldTenant},
	} {
		if id.text == "" {
			continue // said above, where it is required
		}
		if reason := fields[id.field].check(id.text); reason != "" {
			faults = append(faults, &FieldError{id.name, reason})
		}
	}
	return faults
}
