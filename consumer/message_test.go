package consumer_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
)

// A delivery is read as the client library reads it.
func TestReplySubjectIsReadAsTheClientLibraryReadsIt(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"$JS.ACK.events.durable.1.1234.5678.1700000000000000001.99",
		"$JS.ACK.hub.ACCOUNTHASH.events.durable.7.18446744073709551615.3.1700000000000000001.99",
		"$JS.ACK._.ACCOUNTHASH.events.durable.7.12.3.1700000000000000001.99.random",
		"$JS.ACK._.ACCOUNTHASH.events.durable.7.12.3.1700000000000000001.99.random.later",
	} {
		want, err := (&nats.Msg{Reply: reply, Sub: &nats.Subscription{}}).Metadata()
		require.NoError(t, err)
		got, err := consumer.Read(reply)
		require.NoError(t, err)
		want.Consumer, want.Domain, want.NumPending = "", "", 0 // nobody asks
		require.Equal(t, want, got)
	}
	for _, reply := range []string{
		"", "$JS.ACK.", "$JS.ACK.events.durable.1.2.3.4",
		"$JS.ACK.events.durable.1.2.3.4.5.6",
		"$JS.ACK.events.durable.1.2.three.4.5",
		"$JS.ACK._.ACCOUNTHASH.events.durable.1.2.-3.4.5",
	} {
		_, err := consumer.Read(reply)
		require.Error(t, err, reply)
	}
}
