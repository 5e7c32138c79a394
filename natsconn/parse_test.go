package natsconn_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/natsconn"
)

func TestDenialTextsOfTheServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text    string
		op      natsconn.Operation
		subject string
	}{
		{`nats: permissions violation: Permissions Violation for Publish to "dv.nett.evt.a.b"`, natsconn.OperationPublish, "dv.nett.evt.a.b"},
		{`permissions violation: Permissions Violation for Subscription to "dv.>"`, natsconn.OperationSubscribe, "dv.>"},
		{`Permissions Violation for Subscription to "dv.>" using queue "q"`, natsconn.OperationSubscribe, "dv.>"},
		{`permissions violation for publish to "$JS.API.INFO"`, natsconn.OperationPublish, "$JS.API.INFO"},
	} {
		op, subject, ok := natsconn.ParseDenial(c.text)
		require.True(t, ok, c.text)
		require.Equal(t, c.op, op)
		require.Equal(t, c.subject, subject)
	}
	for _, text := range []string{"", "Permissions Violation", `Publish to "`, `Publish to ""`, `republish to "a"`} {
		_, _, ok := natsconn.ParseDenial(text)
		require.False(t, ok, text)
	}
}

func FuzzParseDenial(f *testing.F) {
	f.Add(`Permissions Violation for Publish to "a.b"`)
	f.Add(`Permissions Violation for Subscription to "a.>" using queue "q"`)
	f.Add(`Publish to "`)
	f.Fuzz(func(t *testing.T, text string) {
		op, subject, ok := natsconn.ParseDenial(text)
		if !ok {
			require.Empty(t, subject)
			return
		}
		require.Contains(t, []natsconn.Operation{natsconn.OperationPublish, natsconn.OperationSubscribe}, op)
		require.NotEmpty(t, subject)
		require.Contains(t, text, `"`+subject+`"`)
	})
}

func TestRedactKeepsHostsOnly(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"nats://localhost:4222":                 "nats://localhost:4222",
		"localhost":                             "nats://localhost",
		"nats://ola:pw@h:1":                     "nats://xxxxx@h:1",
		"nats://token@h:1, tls://u:p@i":         "nats://xxxxx@h:1,tls://xxxxx@i",
		"nats://u:p@h:1/path?secret=1#fragment": "nats://xxxxx@h:1",
		"nats://u:%zz@h:1":                      "(unreadable URL)",
		"nats://u:p/w@h:1":                      "(unreadable URL)",
		"nats://u:p?w@h:1":                      "(unreadable URL)",
		"":                                      "(unreadable URL)",
	} {
		require.Equal(t, want, natsconn.Redact(url), url)
	}
}

// Whatever a URL looks like, what stands before the last @ of a server must not
// appear.
func FuzzRedact(f *testing.F) {
	f.Add("secret")
	f.Add("user:secret")
	f.Add("a@b:c/d")
	f.Add("%zz")
	f.Add("/")
	f.Add("?")
	f.Add("#")
	f.Fuzz(func(t *testing.T, secret string) {
		if strings.Contains(secret, ",") {
			return // another server begins
		}
		secret = "geheim" + secret + "geheim"
		require.NotContains(t, natsconn.Redact("nats://"+secret+"@host:4222"), "geheim")
	})
}
