package consumer_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/subject"
)

// Whatever is stored in a stream must lead to a handler or to a letter that can
// be addressed, and never to a panic: such a message would come again for ever.
func FuzzEveryMessageLeadsSomewhere(f *testing.F) {
	const good = `{"specversion":"1.0","id":"0190a0b0-0000-7000-8000-00000000000a","type":"maskin.server.provisioned","source":"maskin","subject":"srv-1","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","dataschema":"urn:dataverket:schema:maskin.server.provisioned:v1","tenant_id":"t","correlation_id":"c","data":{"hostname":"h"}}`
	const on = "dv.maskin.evt.server.provisioned"
	f.Add(on, "tenant-id", "t", "", good, false)
	f.Add(on, "tenant-id", "t", "u", good, false)
	f.Add(on, "Status", "409", "", "", false)
	f.Add("x.y", "X-A", "1", "2", good, false)
	f.Add(on, "Dv-Original-Subject", on, "", good, true)
	f.Add(on, "Dv-Original-Subject", "dv.plattform.replay.x", "", good, true)
	f.Add(on, "Dv-Letter-Id", "l1", "l2", `{"id":`, true)

	c, err := consumer.New(dvtest.NATS(f).JetStream(), &graves{}, validConfig(), handle(ignore))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, on, name, first, second, data string, replay bool) {
		header := nats.Header{name: {first, second}}
		if second == "" {
			header[name] = header[name][:1]
		}
		if replay && name != "Dv-Letter-Id" {
			header.Set("Dv-Letter-Id", letterID)
		}
		class := c.Open(on, header, []byte(data), replay)
		require.Contains(t, []string{"", "decode", "security", "rejected"}, class)
		if class == "rejected" {
			require.True(t, replay, "only a replay can be refused without a letter")
		}
		if replay && class != "rejected" {
			_, err := subject.DLQ(subject.Plattform, header.Get("Dv-Original-Subject"))
			require.NoError(t, err, "a failed replay can be buried")
		}
		if class == "" {
			require.True(t, strings.Contains(data, "maskin.server.provisioned"), "only our type reaches the handler")
		}
	})
}
