package strictjson_test

import (
	"encoding/json"
	"strings"
	"testing"

	"codeberg.org/dataverket/messaging/internal/strictjson"
)

// text is constant: an object of about 4 KiB.
var text = []byte(`[` + strings.Repeat(`{"id":"01936f2e-1111-7222-8333-444455556666","size":1024,"labels":{"env":"prod"}},`, 48) + `null]`)

func BenchmarkCheck(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := strictjson.Check(text, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncodingJSONValid is the yardstick.
func BenchmarkEncodingJSONValid(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if !json.Valid(text) {
			b.Fatal("invalid")
		}
	}
}
