package outbox

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// One row per answer a broker gives: what is stored, and what the relay does
// about the rest.
func TestEveryAnswerHasItsClass(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, data string
		header     nats.Header
		want       error
	}{
		{name: "stored", data: `{"stream":"S","seq":4}`},
		{name: "stored before", data: `{"stream":"S","seq":4,"duplicate":true}`},
		{name: "no stream on the subject", header: nats.Header{"Status": {"503"}}, want: errRefused},
		{name: "empty answer of a responder", want: errMisconfigured},
		{name: "answer of a responder", data: `hello`, want: errMisconfigured},
		{name: "another stream took it", data: `{"stream":"T","seq":4}`, want: errMisconfigured},
		{name: "another domain took it", data: `{"stream":"S","seq":4,"domain":"dc2"}`, want: errMisconfigured},
		{name: "no sequence", data: `{"stream":"S"}`, want: errMisconfigured},
		{name: "stream full", data: `{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}`, want: errRefused},
		{name: "no resources", data: `{"error":{"code":503,"err_code":10023}}`, want: errRefused},
		{name: "too many requests", data: `{"error":{"code":429,"err_code":10167}}`, want: errRefused},
		{name: "same id in process", data: `{"error":{"code":409,"err_code":10158}}`, want: errUnknown},
		{name: "temporarily unavailable", data: `{"error":{"code":503,"err_code":10008}}`, want: errUnknown},
		{name: "wrong stream expected", data: `{"error":{"code":400,"err_code":10060}}`, want: errMisconfigured},
		{name: "too large", data: `{"error":{"code":400,"err_code":10054}}`, want: errImpossible},
		{name: "headers too large", data: `{"error":{"code":400,"err_code":10097}}`, want: errImpossible},
		{name: "unheard of, their fault", data: `{"error":{"code":500,"err_code":99999}}`, want: errRefused},
		{name: "unheard of, our fault", data: `{"error":{"code":400,"err_code":99999}}`, want: errMisconfigured},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			domain := ""
			if c.name == "another domain took it" {
				domain = "dc1"
			}
			ack, err := readAck(&nats.Msg{Data: []byte(c.data), Header: c.header}, "S", domain)
			if c.want == nil {
				require.NoError(t, err)
				require.EqualValues(t, 4, ack.Sequence)
				require.Equal(t, c.name == "stored before", ack.Duplicate)
				return
			}
			require.ErrorIs(t, err, c.want)
			require.Zero(t, ack.Sequence)
		})
	}
}

func FuzzReadAck(f *testing.F) {
	f.Add([]byte(`{"stream":"S","seq":4}`))
	f.Add([]byte(`{"error":{"code":503,"err_code":10077}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if ack, err := readAck(&nats.Msg{Data: data}, "S", ""); err == nil {
			require.NotZero(t, ack.Sequence, "a message counts as stored without a place in the stream")
		}
	})
}

func FuzzHeaderColumn(f *testing.F) {
	f.Add("Nats-Msg-Id: 1\r\nX-Correlation-Id: a: b\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		h := nats.Header{}
		if headerInto(h, text) == nil && text == "" {
			require.Empty(t, h)
		}
	})
}
