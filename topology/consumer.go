package topology

import (
	"cmp"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/subject"
)

// Defaults of a consumer (requirement T8). The third of that row, 20 attempts,
// is counted by package consumer.
const (
	DefaultAckWait       = 120 * time.Second // of Consumer.AckWait
	DefaultMaxAckPending = 50                // of Consumer.MaxAckPending
)

// maxWaiting is how many pulls may wait at the server: its own default,
// declared because it can never be changed.
const maxWaiting = 512

// Consumer is the contract of one durable pull consumer. Durable, Stream,
// Filter and Start are required.
//
// What is the same for all of them is not a field and still part of the
// contract, created and verified: pull, explicit ack, no limit of deliveries
// (the server would make an exhausted message invisible; the library counts
// attempts and dead-letters itself), no server back-off (with delayed naks its
// delays come out wrong), no expiry by inactivity, the stream's replicas and
// storage, no rate limit, no headers-only, no priority groups.
//
// A Consumer is a value without references to a server.
type Consumer struct {
	// Durable is the name, from DurableFrom or DurableFor.
	Durable string

	// Stream is what it reads, our own or another service's.
	Stream Stream

	// Filter is what it reads of that. On a command stream no two durables may
	// overlap (requirement T7).
	Filter subject.Filter

	// AckWait is after how long without a sign of life a message is delivered
	// again. The consumer extends it while a handler runs. Default: 120 s.
	AckWait time.Duration

	// MaxAckPending bounds the messages in flight, over all replicas of the
	// service. Default: 50.
	MaxAckPending int

	// Start is where it begins when it is created.
	Start Start
}

// Service returns whose consumer it is, by the durable's prefix; zero if the
// name is invalid.
func (c Consumer) Service() subject.Service { return durableService(c.Durable) }

// ReplayDurable returns the name of the durable that reads what an operator
// replays to this consumer and to nobody else: "<durable>__replay", on the
// stream ReplayStream with the filter ReplayFilter.
func (c Consumer) ReplayDurable() string { return c.Durable + replaySuffix }

// ReplayStream returns the name of the stream of the replay durable:
// DV_<SERVICE>_DLQOPS of the consuming service.
func (c Consumer) ReplayStream() string { return StreamName(c.Service(), ClassDeadLetterOps) }

// ReplayFilter returns the one subject of the replay durable:
// dv.<service>.replay.<durable>. It is zero if the durable's name is invalid.
func (c Consumer) ReplayFilter() subject.Filter {
	s, err := subject.Replay(c.Service(), c.Durable)
	if err != nil {
		return subject.Filter{}
	}
	return subject.Exactly(s)
}

// withDefaults fills what was left zero.
func (c Consumer) withDefaults() Consumer {
	c.AckWait = cmp.Or(c.AckWait, DefaultAckWait)
	c.MaxAckPending = cmp.Or(c.MaxAckPending, DefaultMaxAckPending)
	return c
}

// Config returns the contract as the server takes it.
func (c Consumer) Config() jetstream.ConsumerConfig {
	cfg := c.common(c.Durable, c.Filter)
	c.Start.apply(&cfg)
	return cfg
}

// ReplayConfig returns the replay durable's contract. It begins with what is
// replayed after it was created, which is before there is any letter to replay.
// One that was lost and is created anew must not begin with the oldest: the
// stream keeps every replay ever made, far beyond the inbox's horizon. What was
// outstanding then is skipped; its letters stay visible as replayed, and an
// operator can replay them again.
func (c Consumer) ReplayConfig() jetstream.ConsumerConfig {
	cfg := c.common(c.ReplayDurable(), c.ReplayFilter())
	StartNew().apply(&cfg)
	return cfg
}

func (c Consumer) common(name string, filter subject.Filter) jetstream.ConsumerConfig {
	c = c.withDefaults()
	return jetstream.ConsumerConfig{
		Name:          name,
		Durable:       name,
		AckPolicy:     jetstream.AckExplicitPolicy,
		ReplayPolicy:  jetstream.ReplayInstantPolicy,
		AckWait:       c.AckWait,
		MaxAckPending: c.MaxAckPending,
		MaxDeliver:    unlimited,
		MaxWaiting:    maxWaiting,
		FilterSubject: filter.String(),
	}
}
