package envelope_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// ServerProvisionedV1 is the payload of the examples.
type ServerProvisionedV1 struct {
	ServerID string `json:"server_id"`
	Hostname string `json:"hostname"`
}

// ServerProvisioned is declared once and shared by producer and consumer.
var ServerProvisioned = envelope.MustEvent[ServerProvisionedV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
})

// An edge sets the origin once; everything that is sent in its ctx carries it.
// outbox.Enqueue calls New for every draft.
func ExampleNew() {
	actor, err := envelope.NewActor(envelope.ActorUser, "42")
	if err != nil {
		panic(err)
	}
	ctx := envelope.WithOrigin(context.Background(), envelope.NewOrigin(actor, "tenant-42"))

	draft := ServerProvisioned.New("server/9a1", ServerProvisionedV1{ServerID: "9a1", Hostname: "web-1"},
		envelope.Datacenter("osl1"))
	m, err := envelope.New(ctx, subject.Maskin, draft)
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Subject)
	fmt.Println(m.OrderingKey, m.Envelope.TenantID, m.Envelope.Actor, m.Envelope.DatacenterID)
	fmt.Println(string(m.Envelope.Data))
	// Output:
	// dv.maskin.evt.server.provisioned
	// server/9a1 tenant-42 user:42 osl1
	// {"server_id":"9a1","hostname":"web-1"}
}

// All faults come at once, named after what the caller sets.
func ExampleNew_faults() {
	ctx := envelope.WithOrigin(context.Background(), envelope.Origin{CorrelationID: "c-1"})
	_, err := envelope.New(ctx, subject.Maskin, ServerProvisioned.New("", ServerProvisionedV1{}))
	fmt.Println(err)
	// Output:
	// envelope: new message of type "maskin.server.provisioned": envelope: Origin.Actor: is required: say who initiated the work
	// envelope: Origin.TenantID: is required: set it, or set Origin.PlatformScope when the work is for no tenant
	// envelope: resource id: is required
}

func ExampleDecode() {
	e, err := envelope.Decode([]byte(`{
		"specversion": "1.0",
		"id": "01936f2e-1111-7222-8333-444455556666",
		"type": "maskin.server.provisioned",
		"source": "maskin",
		"subject": "server/9a1",
		"time": "2026-03-14T12:00:00Z",
		"datacontenttype": "application/json",
		"dataschema": "urn:dataverket:schema:maskin.server.provisioned:v1",
		"tenant_id": "tenant-42",
		"actor": "user:42",
		"correlation_id": "c-1",
		"data": {"server_id": "9a1", "hostname": "web-1"}
	}`))
	if err != nil {
		panic(err)
	}
	data, err := ServerProvisioned.Decode(e)
	if err != nil {
		panic(err)
	}
	fmt.Println(e.Type, e.SchemaVersion(), e.TenantID, data.Hostname)
	// Output: maskin.server.provisioned 1 tenant-42 web-1
}

// Two readers could disagree about this tenant, so nobody reads it.
func ExampleDecode_strict() {
	_, err := envelope.Decode([]byte(`{"tenant_id":"mine","TENANT_ID":"theirs"}`))
	fmt.Println(errors.Is(err, envelope.ErrMalformed))
	fmt.Println(err)
	// Output:
	// true
	// envelope: malformed: byte 21: name equals a known name but for case
}

func ExampleMustEvent() {
	provisioned := envelope.MustEvent[ServerProvisionedV1](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
	})
	fmt.Println(provisioned.Name())
	fmt.Println(provisioned.Subject())
	fmt.Println(provisioned.Schema())
	// Output:
	// maskin.server.provisioned
	// dv.maskin.evt.server.provisioned
	// urn:dataverket:schema:maskin.server.provisioned:v1
}

func ExampleMustCommand() {
	type ProvisionServerV1 struct {
		Plan string `json:"plan"`
	}
	provision := envelope.MustCommand[ProvisionServerV1](envelope.CommandSpec{
		Service: subject.Maskin, Entity: "server", Action: "provision", Version: 1,
	})
	fmt.Println(provision.Name())
	fmt.Println(provision.Subject())
	// Output:
	// maskin.server.provision.requested
	// dv.maskin.cmd.provision
}

// Work of the platform itself belongs to no tenant, and says so.
func ExampleWithOrigin() {
	origin := envelope.NewOrigin("system:reconciler", "")
	origin.PlatformScope = true
	ctx := envelope.WithOrigin(context.Background(), origin)

	got, ok := envelope.OriginFrom(ctx)
	fmt.Println(ok, got.Actor, got.PlatformScope)
	// Output: true system:reconciler true
}

func ExampleOriginFromHeader() {
	origin := envelope.OriginFromHeader(envelope.Header{
		"Correlation-Id": {"c-1"}, // the older name, in any case
		"Tenant-Id":      {"tenant-42"},
	})
	fmt.Println(origin.CorrelationID, origin.TenantID)
	// Output: c-1 tenant-42
}

func ExampleTraceID() {
	id, ok := envelope.TraceID("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	fmt.Println(id, ok)
	// Output: 4bf92f3577b34da6a3ce929d0e0e4736 true
}

func ExampleArtifact() {
	type ImageBuiltV1 struct {
		ImageID string            `json:"image_id"`
		Image   envelope.Artifact `json:"image"`
	}
	built := ImageBuiltV1{ImageID: "i-1", Image: envelope.Artifact{
		URI: "https://objekt.example/images/i-1", MediaType: "application/vnd.oci.image.layer.v1.tar", Size: 3 << 30,
	}}
	text, err := json.Marshal(built)
	fmt.Println(string(text), err, built.Image.Validate())
	// Output: {"image_id":"i-1","image":{"uri":"https://objekt.example/images/i-1","media_type":"application/vnd.oci.image.layer.v1.tar","size":3221225472}} <nil> <nil>
}

// The handler knows that no retry will help.
// A handler that asks another system for something gives it a key with which a
// repeat is recognised.
func ExampleDelivery_IdempotencyKey() {
	d := &envelope.Delivery{Envelope: &envelope.Envelope{Source: subject.Maskin, ID: "01936f2e-1111-7222-8333-444455556666"}}
	record := func(attempt int) { // a handler's request
		fmt.Println(attempt, "Idempotency-Key:", d.IdempotencyKey("plattform.dns-record"))
	}
	record(1)
	record(2)
	fmt.Println("another effect:", d.IdempotencyKey("plattform.welcome-mail"))
	// Output:
	// 1 Idempotency-Key: 47e0fd3a-ff06-52ff-80e9-dda111bf5ab8
	// 2 Idempotency-Key: 47e0fd3a-ff06-52ff-80e9-dda111bf5ab8
	// another effect: 04084caa-4384-517b-b61d-4036ab52ba5f
}

func ExamplePermanent() {
	err := envelope.Permanent(errors.New("server 9a1 has no hostname"))
	fmt.Println(envelope.IsPermanent(fmt.Errorf("provision: %w", err)))
	// Output: true
}

// The handler knows when to try again.
func ExampleRetryAfter() {
	err := envelope.RetryAfter(30*time.Second, errors.New("quota is used up"))
	verdict, ok := errors.AsType[*envelope.RetryAfterError](err)
	fmt.Println(ok, verdict.After, err)
	// Output: true 30s retry after 30s: quota is used up
}

func ExampleEnvelope_CheckHeader() {
	m, err := envelope.New(envelope.WithOrigin(context.Background(), envelope.NewOrigin("user:42", "tenant-42")),
		subject.Maskin, ServerProvisioned.New("server/9a1", ServerProvisionedV1{}))
	if err != nil {
		panic(err)
	}
	header := m.Header()
	fmt.Println(m.Envelope.CheckHeader(header))
	header[envelope.HeaderTenantID] = []string{"tenant-43"}
	fmt.Println(m.Envelope.CheckHeader(header))
	// Output:
	// <nil>
	// envelope: tenant-id: says something else than the envelope
}

func ExampleMarshalHeader() {
	fmt.Printf("%q\n", envelope.MarshalHeader(envelope.Header{"tenant-id": {"tenant-42"}, "Dv-Site": {"osl1"}}))
	// Output: "Dv-Site: osl1\r\ntenant-id: tenant-42\r\n"
}

// ServerProvisionedV2 names the host without its domain.
type ServerProvisionedV2 struct {
	ServerID string `json:"server_id"`
	Host     string `json:"host"`
	Domain   string `json:"domain"`
}

// A handler of version 2 also receives what was sent as version 1.
func ExampleUpcast() {
	second := envelope.MustEvent(envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 2},
		envelope.Upcast(ServerProvisioned, func(old ServerProvisionedV1) (ServerProvisionedV2, error) {
			host, domain, _ := strings.Cut(old.Hostname, ".")
			if domain == "" {
				return ServerProvisionedV2{}, errors.New("the hostname has no domain") // a dead letter
			}
			return ServerProvisionedV2{old.ServerID, host, domain}, nil
		}))

	ctx := envelope.WithOrigin(context.Background(), envelope.NewOrigin("user:42", "tenant-42"))
	m, err := envelope.New(ctx, subject.Maskin, ServerProvisioned.New("server/9a1", ServerProvisionedV1{"9a1", "web-1.osl.example"}))
	if err != nil {
		panic(err)
	}
	data, err := second.Decode(m.Envelope)
	fmt.Printf("%+v %v\n", data, err)
	// Output: {ServerID:9a1 Host:web-1 Domain:osl.example} <nil>
}

// What keeps a message from being typed data, and what to do about each.
func ExampleDecodeError() {
	ctx := envelope.WithOrigin(context.Background(), envelope.NewOrigin("user:42", "tenant-42"))
	decode := func(draft envelope.Draft) {
		m, err := envelope.New(ctx, subject.Maskin, draft)
		if err != nil {
			panic(err)
		}
		_, err = ServerProvisioned.Decode(m.Envelope)
		fault, _ := errors.AsType[*envelope.DecodeError](err)
		fmt.Println(fault.Fault)
		fmt.Println(fault)
	}
	event := func(verb string, version int) envelope.Type[map[string]any] {
		return envelope.MustEvent[map[string]any](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: verb, Version: version})
	}
	decode(event("moved", 1).New("server/9a1", map[string]any{}))
	decode(event("provisioned", 2).New("server/9a1", map[string]any{}))
	decode(event("provisioned", 1).New("server/9a1", map[string]any{"hostname": 7}))
	// Output:
	// type
	// envelope: decode maskin.server.moved v1: it is no maskin.server.provisioned v1: decode it with the Type of its own name
	// version
	// envelope: decode maskin.server.provisioned v2: version 1 is known here: update to the release that declares the newer one, then replay
	// data
	// envelope: decode maskin.server.provisioned v1: the data does not fit: field "hostname" cannot take a number as string (byte 13); its producer breaks the contract of this version: mend it, and replay with corrected data
}
