package cloudevents_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"codeberg.org/dataverket/messaging/cloudevents"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// ServerProvisionedV1 is the payload of the examples.
type ServerProvisionedV1 struct {
	Hostname string `json:"hostname"`
}

// ServerProvisioned is declared once and shared by producer and consumer.
var ServerProvisioned = envelope.MustEvent[ServerProvisionedV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
})

// A handler hands a message to an HTTP endpoint that takes CloudEvents.
func ExampleFromEnvelope() {
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Println(r.Header.Get("Content-Type"), r.Header.Get("Ce-Type"), r.Header.Get("Ce-Tenantid"), string(body))
	}))
	defer endpoint.Close()

	handler := func(ctx context.Context, m envelope.Received[ServerProvisionedV1]) error {
		if m.Envelope.Visibility != envelope.External {
			return nil // it stays inside the platform
		}
		event, report, err := cloudevents.FromEnvelope(m.Envelope, m.Header)
		if err != nil {
			return envelope.Permanent(err)
		}
		if len(report) > 0 {
			fmt.Println("not carried over:", report)
		}
		header, body, err := event.EncodeBinary()
		if err != nil {
			return envelope.Permanent(err)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint.URL, bytes.NewReader(body))
		if err != nil {
			return err
		}
		for name := range header {
			request.Header.Set(name, header.Get(name))
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		return response.Body.Close()
	}

	ctx := envelope.WithOrigin(context.Background(), envelope.NewOrigin("user:42", "tenant-42"))
	m, err := envelope.New(ctx, subject.Maskin,
		ServerProvisioned.New("server/9a1", ServerProvisionedV1{Hostname: "web-1"}, envelope.ExternallyVisible()))
	if err != nil {
		panic(err)
	}
	delivery := &envelope.Delivery{Envelope: m.Envelope, Subject: m.Subject, Header: m.Header()}
	fmt.Println(handler(ctx, envelope.Received[ServerProvisionedV1]{Delivery: delivery}))
	// Output:
	// application/json maskin.server.provisioned tenant-42 {"hostname":"web-1"}
	// <nil>
}

// An edge takes an event of the platform in, and says what it had to assume.
func ExampleToEnvelope() {
	request := httptest.NewRequest(http.MethodPost, "/", bytes.NewBufferString(`{"hostname":"web-1"}`))
	for name, value := range map[string]string{
		"ce-specversion": "1.0", "ce-id": "01936f2e-1111-7222-8333-444455556666", "ce-source": "maskin",
		"ce-type": "maskin.server.provisioned", "ce-subject": "server/9a1", "Content-Type": "application/json",
		"ce-time":       "2026-03-14T12:00:00Z",
		"ce-dataschema": "urn:dataverket:schema:maskin.server.provisioned:v1", "ce-tenantid": "tenant-42",
	} {
		request.Header.Set(name, value)
	}
	body, err := io.ReadAll(io.LimitReader(request.Body, cloudevents.MaxSize+1))
	if err != nil {
		panic(err)
	}
	event, err := cloudevents.Decode(envelope.Header(request.Header), body)
	if err != nil {
		panic(err)
	}
	e, header, report, err := cloudevents.ToEnvelope(event, time.Now())
	if err != nil {
		panic(err)
	}
	fmt.Println(e.Type, e.TenantID, e.CheckSubject(ServerProvisioned.Subject()))
	fmt.Println(header.Get(envelope.HeaderMsgID))
	fmt.Println(report)
	// Output:
	// maskin.server.provisioned tenant-42 <nil>
	// 01936f2e-1111-7222-8333-444455556666
	// correlationid assumed: the event's id
}

// Any event can be read, also one that is no message of the platform.
func ExampleDecode() {
	event, err := cloudevents.Decode(nil, []byte(`{"specversion":"1.0","id":"A234","source":"https://example.com/shop",
		"type":"com.example.order.paid","data":{"order":7}}`))
	if err != nil {
		panic(err)
	}
	kind, _ := event.Attribute("type")
	fmt.Println(kind, string(event.Data()))
	_, _, _, err = cloudevents.ToEnvelope(event, time.Now())
	fmt.Println(err)
	// Output:
	// com.example.order.paid {"order":7}
	// cloudevents: to envelope: envelope: malformed: envelope: id: must be a UUID of the form 8-4-4-4-12
	// envelope: type: must begin with a service name or task
	// envelope: source: must be a known service: sentral identitet maskin plattform tjeneste objekt nett
	// envelope: subject: is required
	// envelope: dataschema: is required
}
