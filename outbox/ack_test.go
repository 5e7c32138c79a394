package outbox

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// One row per answer a broker gives: what is stored, and what the relay does
// about the rest.
func TestEveryAnswerHasItsClass(t *testing.T) {
	t.Parallel()
	for _, usual := range []bool{false, true} {
		t.Run(fmt.Sprintf("usual form known %t", usual), func(t *testing.T) {
			t.Parallel()
			testAnswers(t, usual)
		})
	}
}

func testAnswers(t *testing.T, usual bool) {
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
		{name: "another last sequence demanded", data: `{"error":{"code":400,"err_code":10071}}`, want: errImpossible},
		{name: "unheard of, their fault", data: `{"error":{"code":500,"err_code":99999}}`, want: errRefused},
		{name: "unheard of, our fault", data: `{"error":{"code":400,"err_code":99999}}`, want: errMisconfigured},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			domain := ""
			if c.name == "another domain took it" {
				domain = "dc1"
			}
			r := ackReader{stream: "S", domain: domain}
			if usual {
				r.usual = usualAck("S", domain)
			}
			ack, err := r.ack(&nats.Msg{Data: []byte(c.data), Header: c.header})
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

// The quick reading of the usual form must never see more than JSON does.
func FuzzReadAck(f *testing.F) {
	f.Add([]byte(`{"stream":"S","seq":4}`))
	f.Add([]byte(`{"stream":"S","domain":"hub","seq":4}`))
	f.Add([]byte(`{"stream":"S","seq":4,"duplicate":true}`))
	f.Add([]byte(`{"stream":"S","seq":04}`))
	f.Add([]byte(`{"error":{"code":503,"err_code":10077}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &nats.Msg{Data: data}
		slow, slowErr := (&ackReader{stream: "S"}).ack(m)
		for _, domain := range []string{"", "hub"} {
			quick, err := (&ackReader{stream: "S", usual: usualAck("S", domain)}).ack(m)
			require.Equal(t, slowErr, err)
			require.Equal(t, slow.Sequence, quick.Sequence)
			require.Equal(t, slow.Duplicate, quick.Duplicate)
		}
		if slowErr == nil {
			require.NotZero(t, slow.Sequence, "a message counts as stored without a place in the stream")
		}
	})
}

// Whatever row was sent before, the header of a row is its own.
func FuzzHeaderColumn(f *testing.F) {
	f.Add("Nats-Msg-Id: 1\r\nX-Correlation-Id: a: b\r\n", "Nats-Msg-Id: 2\r\nX-Correlation-Id: c\r\n")
	f.Add("a: 1\r\nb: 2\r\n", "a: 1\r\na: 2\r\n")
	f.Add("Dv-Site: x\r\nb: 2\r\n", "Dv-Site: y\r\n")
	f.Fuzz(func(t *testing.T, before, text string) {
		fresh, used := newOutgoing("S", "oslo"), newOutgoing("S", "oslo")
		if used.resetHeader(before) != nil || fresh.resetHeader(text) != nil {
			return
		}
		if !used.replaceHeader(text) {
			require.NoError(t, used.resetHeader(text))
		}
		require.Equal(t, fresh.msg.Header, used.msg.Header)
	})
}
