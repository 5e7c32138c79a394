package consumer

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
)

// message is one delivery, of the server or of a parked message, before anything
// is decoded.
//
// Settling it is fire and forget: no ack waits for the server. An ack that is
// lost means a repeat, which the inbox absorbs; waiting for every ack would cost
// a round trip per message. Nothing here takes a ctx, so an ack is sent during a
// shutdown too.
type message struct {
	nc        *nats.Conn
	raw       *nats.Msg
	replay    bool
	stream    string
	sequence  uint64
	delivered int       // by the server, this delivery included
	storedAt  time.Time // by the stream
	// parked is set on a message of the store, which the server knows no more.
	parked *parkedMessage
	// consumerSeq is the number of this delivery among all of its durable.
	consumerSeq uint64
}

// ackPrefix begins the reply subject of every message of a JetStream consumer
// and of nothing else: a publisher cannot set it.
const ackPrefix = "$JS.ACK."

// isDelivery tells a message from a status of the server. The reply subject
// decides, not the "Status" header that the client library looks at: that one a
// publisher can set, and its message would never be acknowledged.
func isDelivery(raw *nats.Msg) bool { return strings.HasPrefix(raw.Reply, ackPrefix) }

// newMessage reads the delivery's metadata from its reply subject.
func newMessage(nc *nats.Conn, raw *nats.Msg, replay bool) (*message, error) {
	meta, err := raw.Metadata()
	if err != nil {
		return nil, fmt.Errorf("consumer: read metadata of a delivery: %w", err)
	}
	return &message{
		nc: nc, raw: raw, replay: replay,
		stream: meta.Stream, sequence: meta.Sequence.Stream, consumerSeq: meta.Sequence.Consumer,
		delivered: int(min(meta.NumDelivered, 1<<31-1)), storedAt: meta.Timestamp,
	}, nil
}

// header returns the stored headers; nats.Header has the same shape.
func (m *message) header() envelope.Header { return envelope.Header(m.raw.Header) }

// The words of the JetStream acknowledgement protocol.
const (
	wordAck        = "+ACK"
	wordNak        = "-NAK"
	wordTerm       = "+TERM"
	wordInProgress = "+WPI"
)

func (m *message) ack() error {
	if m.parked != nil {
		return m.parked.done()
	}
	return m.reply(wordAck)
}

func (m *message) inProgress() error {
	if m.parked != nil {
		return m.parked.extend()
	}
	return m.reply(wordInProgress)
}

// term ends the message with a reason, which the server's advisory repeats.
func (m *message) term(reason string) error {
	if m.parked != nil {
		return m.parked.done()
	}
	return m.reply(wordTerm + " " + reason)
}

// nak asks for redelivery after a delay, or at once.
func (m *message) nak(delay time.Duration) error {
	if m.parked != nil {
		return m.parked.giveBack(delay)
	}
	if delay <= 0 {
		return m.reply(wordNak)
	}
	return m.reply(fmt.Sprintf(`%s {"delay": %d}`, wordNak, delay.Nanoseconds()))
}

func (m *message) reply(word string) error { return m.nc.Publish(m.raw.Reply, []byte(word)) }
