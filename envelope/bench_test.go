package envelope_test

import (
	"testing"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"event", "unknown_fields"} {
		data := golden(b, "valid", "v1", name+".json")
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := envelope.Decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	e := event(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Encode(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNew is what one message costs before it is encoded.
func BenchmarkNew(b *testing.B) {
	ctx := envelope.WithOrigin(b.Context(), testOrigin)
	data := provisionedV1{ServerID: "9a1", Hostname: "web-1"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := envelope.New(ctx, subject.Maskin, provisioned.New("server/9a1", data)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDraft is what a service pays before it sends: the data as JSON.
func BenchmarkDraft(b *testing.B) {
	data := provisionedV1{ServerID: "9a1", Hostname: "web-1"}
	b.ReportAllocs()
	for b.Loop() {
		provisioned.New("server/9a1", data, envelope.Project("p"))
	}
}

// BenchmarkSeal is on the path of every enqueued message.
func BenchmarkSeal(b *testing.B) {
	ctx := envelope.WithOrigin(b.Context(), testOrigin)
	d := provisioned.New("server/9a1", provisionedV1{ServerID: "9a1", Hostname: "web-1"}, envelope.Project("p"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := envelope.Seal(ctx, subject.Maskin, d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarshalHeader(b *testing.B) {
	m := envelope.Message{Envelope: event(b, nil), Traceparent: traceparent}
	b.ReportAllocs()
	for b.Loop() {
		if envelope.MarshalHeader(m.Header()) == "" {
			b.Fatal("empty")
		}
	}
}

func BenchmarkUnmarshalHeader(b *testing.B) {
	text := envelope.MarshalHeader(envelope.Message{Envelope: event(b, nil), Traceparent: traceparent}.Header())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := envelope.UnmarshalHeader(text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheckHeader is on the path of every received message.
func BenchmarkCheckHeader(b *testing.B) {
	e := event(b, nil)
	h := envelope.Message{Envelope: e, Traceparent: traceparent}.Header()
	b.ReportAllocs()
	for b.Loop() {
		if err := e.CheckHeader(h); err != nil {
			b.Fatal(err)
		}
	}
}
