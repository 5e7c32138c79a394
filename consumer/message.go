package consumer

import (
	"fmt"
	"strconv"
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
	beat        heartbeat // not begun before a worker has the message
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
	m := &message{nc: nc, raw: raw, replay: replay}
	if !m.readReply(raw.Reply) {
		return nil, fmt.Errorf("consumer: read metadata of a delivery: %.200q is not the reply subject of one", raw.Reply)
	}
	return m, nil
}

// readReply reads, behind the prefix,
//
//	[<domain>.<account>.]<stream>.<durable>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>[.<any>]
//
// The client library reads it too, but into memory of its own.
func (m *message) readReply(reply string) (ok bool) {
	rest, _ := strings.CutPrefix(reply, ackPrefix)
	switch tokens := strings.Count(rest, ".") + 1; {
	case tokens >= 9:
		_, rest, _ = strings.Cut(rest, ".")
		_, rest, _ = strings.Cut(rest, ".")
	case tokens != 7:
		return false
	}
	m.stream, rest, _ = strings.Cut(rest, ".")
	_, rest, _ = strings.Cut(rest, ".")
	var numbers [4]uint64
	for i := range numbers {
		var number string
		number, rest, _ = strings.Cut(rest, ".")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return false
		}
		numbers[i] = n
	}
	m.delivered, m.storedAt = int(min(numbers[0], 1<<31-1)), time.Unix(0, int64(numbers[3]))
	m.sequence, m.consumerSeq = numbers[1], numbers[2]
	return true
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
