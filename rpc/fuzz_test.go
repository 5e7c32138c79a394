package rpc_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/subject"
)

// Whatever headers come, what is accepted is bounded, valid, and means the same to
// whoever reads it again; what is refused is refused in one printable line.
func FuzzRequestHeader(f *testing.F) {
	f.Add("1500", "1", "c-1", "m-1", "user:ola", "tenant-1", "plattform", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "X-Other", "x")
	f.Add("10000", "2", "c", "", "service:nett", "", "", "", "Tenant-Id", "b")
	f.Add("010", "1", "c", "", "user:ola", "t", "", "", "", "")
	f.Add("99999999999999999999", "1", "c", "", "user:ola", "t", "", "", "dv-timeout-ms", "1")
	f.Add("-1", "", "\r\n", "æ", "robot:", "\x00", "nobody", "00-0-0-0", "Dv-Actor", "user:eva")
	f.Fuzz(func(t *testing.T, timeout, version, correlation, causation, actor, tenant, source, trace, name, value string) {
		h := nats.Header{}
		for name, value := range map[string]string{
			"Dv-Timeout-Ms": timeout, "X-Event-Version": version, "X-Correlation-Id": correlation, "X-Causation-Id": causation,
			"Dv-Actor": actor, "tenant-id": tenant, "Dv-Source": source, "traceparent": trace,
		} {
			if value != "" {
				h[name] = []string{value}
			}
		}
		if name != "" {
			h[name] = append(h[name], value)
		}
		d, v, s, origin, fault := rpc.ReadHeader(h)
		if fault != "" {
			require.True(t, printable(fault), "%q", fault)
			return
		}
		require.GreaterOrEqual(t, d, time.Millisecond)
		require.LessOrEqual(t, d, rpc.DefaultMaxTimeout)
		require.NoError(t, origin.Validate())
		require.NotEmpty(t, v)
		again := rpc.WriteHeader(d, v, s, origin)
		for name, values := range again {
			require.Equal(t, h[name], values, name)
			require.NotContains(t, values[0], "\n", name)
		}
		d2, v2, s2, origin2, fault := rpc.ReadHeader(again)
		require.Empty(t, fault)
		require.Equal(t, []any{d, v, s, origin}, []any{d2, v2, s2, origin2})
	})
}

func printable(text string) bool {
	return utf8.ValidString(text) && strings.IndexFunc(text, unicode.IsControl) < 0
}

// Whatever an error reply holds, it becomes an error of a known code whose text is
// one line, and which reads the same after it was written again.
func FuzzErrorReply(f *testing.F) {
	f.Add([]byte(`{"code":"not_found","message":"no server","retry_after_ms":100}`))
	f.Add([]byte(`{"code":"teapot","message":"a\nb\u0001"}`))
	f.Add([]byte(`{"code":"unavailable","message":"x","retry_after_ms":9223372036854775807}`))
	f.Add([]byte(`{"code":"unavailable","Code":"not_found"}`))
	f.Add([]byte(``))
	f.Add([]byte(`{"code":["x"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e := rpc.ReadError(data)
		require.False(t, e.Local)
		require.Equal(t, rpc.CodeOf(e), e.Code, "no code outside the set")
		require.True(t, printable(e.Error()), "%q", e.Error())
		require.LessOrEqual(t, len(e.Message), 2<<10)
		require.GreaterOrEqual(t, e.RetryAfter, time.Duration(0))
		require.LessOrEqual(t, e.RetryAfter, 24*time.Hour)
		header, body := rpc.ErrorReply(e)
		require.Len(t, header, 2)
		require.True(t, printable(header.Get("Nats-Service-Error")))
		again := rpc.ReadError(body)
		if e.Message == "" {
			e.Message = string(e.Code)
		}
		require.Equal(t, e, again)
	})
}

type node struct {
	Name  string           `json:"name"`
	Count int              `json:"count"`
	Tags  map[string][]any `json:"tags"`
	Skip  string           `json:"-"`
	Plain bool
	inner int
}

// What is accepted as a body, encoding/json reads as the same; what it may read in
// two ways is refused.
func FuzzBody(f *testing.F) {
	op := rpc.MustOperation[node, node](rpc.Spec{Service: subject.Maskin, Name: "x", Version: 1})
	f.Add([]byte(`{"name":"a","count":1,"tags":{"x":[1,null]},"Plain":true,"more":{}}`))
	f.Add([]byte(`{"name":"a","NAME":"b"}`))
	f.Add([]byte(`{"plain":true}`))
	f.Add([]byte(`{"a":1,"A":2}`))
	f.Add([]byte(`{"Skip":"x","-":"y"}`))
	f.Add([]byte("{\"name\":\"\xff\\u0000\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := rpc.Decode(op, data)
		if err != nil {
			require.True(t, printable(err.Error()), "%q", err.Error())
			return
		}
		var want node
		require.NoError(t, json.Unmarshal(data, &want))
		require.Equal(t, want, got)
		require.Zero(t, got.inner)
		var members map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(data, &members))
		for name := range members {
			for other := range members {
				require.False(t, name != other && strings.EqualFold(name, other), "%q and %q", name, other)
			}
		}
	})
}
