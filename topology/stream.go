package topology

import (
	"cmp"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/subject"
)

// Defaults of a stream (requirement T4).
const (
	DefaultEventAge   = 7 * 24 * time.Hour  // of events, and of task events
	DefaultCommandAge = 14 * 24 * time.Hour // of commands
	DefaultMaxBytes   = 10 << 30            // 10 GiB
	DefaultReplicas   = 1                   // 3 in production, by Limits

	// Duplicates is the duplicate window of every stream. It is declared
	// although the server has the same default, because the server turns
	// deduplication off where it is left out on a stream with sources
	// (measured). A longer one costs 105 bytes for each message in it.
	Duplicates = 2 * time.Minute

	// MaxMsgSize is the largest message of a stream: an envelope of 512 KiB
	// and 64 KiB of headers, the most that the server takes.
	MaxMsgSize = 576 << 10

	// MaxLetterSize is the largest message of the two dead-letter streams. A
	// letter is the original with headers of its own; if only the original's
	// size were allowed, one of full size could neither be handled nor put
	// away, and would stop its consumer.
	MaxLetterSize = MaxMsgSize + 64<<10
)

// Stream is the contract of one stream: every setting that the platform relies
// on. Make one with Commands, Events, TaskEvents, DeadLetters or DeadLetterOps
// and change fields where needed; Validate tells what may be changed how far.
//
// What is the same for all streams is not a field and still part of the
// contract, created and verified: limits retention (nothing is removed but by
// age; WorkQueue and Interest forget ids and acknowledge without storing),
// refusal of new messages when full (nothing unread is pushed out), file
// storage, synchronous persistence, reads by the leader only, and none of
// mirror, transforms, republishing, roll-up, per-message TTL,
// schedules, counters and batches.
//
// A Stream is a value without references to a server. Copies share Subjects
// and Sources; do not change their elements.
type Stream struct {
	Name     string           // generated, see StreamName
	Service  subject.Service  // the owner: only its Ensure creates the stream, if there is no Owner
	Class    Class            // what it holds
	Subjects []subject.Filter // what it takes

	MaxAge     time.Duration // messages older are removed; 0: never, for dead letters only
	MaxBytes   int64         // when reached, new messages are refused and producers wait
	MaxMsgs    int64         // the same; 0: no limit
	MaxMsgSize int32         // bytes of one message, headers included
	Replicas   int           // copies, 1 to 5
	Duplicates time.Duration // window in which the server drops an id that it has seen

	// DenyDelete makes the server refuse to delete single messages, for ever:
	// it cannot be turned off again. It is for events and commands in
	// production, never for dead letters, which are deleted when resolved.
	// Default: false. A stream on the server where it is on fits a declaration
	// where it is off.
	DenyDelete bool

	// Site is the other site of a stream that a [Network] made: where a copy
	// comes from, or where outgoing commands go. Default: "", of this site alone.
	Site string

	// Owner creates the stream in the place of Service, as a site where Service
	// does not run needs. Only on streams of a Network. Default: Service.
	Owner subject.Service

	// Sources are what the stream takes from other sites, two for each flow that
	// ends in it: what was published, and what was resent. [Network] makes them.
	// Default: none.
	Sources []Source

	// Rate is the expected mean number of messages a second, for Set.Warnings:
	// 10 GiB hold 7 days of only 25 messages of 700 bytes a second. The server
	// does not know it. Default: 0, not declared.
	Rate float64
}

// Limits are the settings of a stream that differ between environments. Zero
// fields are the defaults.
type Limits struct {
	Replicas int           // default 1; 3 in production, on a cluster
	MaxBytes int64         // default 10 GiB
	MaxMsgs  int64         // default 0: no limit
	MaxAge   time.Duration // default 7 days for events, 14 days for commands; must be 0 for dead letters
	Rate     float64       // expected messages a second; default 0: not declared
}

// Commands declares the commands to service s: DV_<SERVICE>_CMD.
func Commands(s subject.Service, l Limits) Stream {
	return newStream(s, ClassCommands, DefaultCommandAge, MaxMsgSize, l)
}

// Events declares the events of service s: DV_<SERVICE>_EVT.
func Events(s subject.Service, l Limits) Stream {
	return newStream(s, ClassEvents, DefaultEventAge, MaxMsgSize, l)
}

// TaskEvents declares the task events of the whole platform, DV_TASK_EVT.
// Every service publishes to it; only owner creates it.
func TaskEvents(owner subject.Service, l Limits) Stream {
	return newStream(owner, ClassTaskEvents, DefaultEventAge, MaxMsgSize, l)
}

// DeadLetters declares the dead letters of service s: DV_<SERVICE>_DLQ.
func DeadLetters(s subject.Service, l Limits) Stream {
	return newStream(s, ClassDeadLetters, 0, MaxLetterSize, l)
}

// DeadLetterOps declares what operators do about the dead letters of service
// s: DV_<SERVICE>_DLQOPS, with marks and replays.
func DeadLetterOps(s subject.Service, l Limits) Stream {
	return newStream(s, ClassDeadLetterOps, 0, MaxLetterSize, l)
}

func newStream(s subject.Service, c Class, age time.Duration, msgSize int32, l Limits) Stream {
	return Stream{
		Name:       StreamName(s, c),
		Service:    s,
		Class:      c,
		Subjects:   c.space(s),
		MaxAge:     cmp.Or(l.MaxAge, age),
		MaxBytes:   cmp.Or(l.MaxBytes, DefaultMaxBytes),
		MaxMsgs:    l.MaxMsgs,
		MaxMsgSize: msgSize,
		Replicas:   cmp.Or(l.Replicas, DefaultReplicas),
		Duplicates: Duplicates,
		Rate:       l.Rate,
	}
}

// unlimited is how the server writes that there is no limit.
const unlimited = -1

// Config returns the contract as the server takes it.
func (s Stream) Config() jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
		Name:              s.Name,
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardNew,
		Storage:           jetstream.FileStorage,
		MaxAge:            s.MaxAge,
		MaxBytes:          s.MaxBytes,
		MaxMsgs:           cmp.Or(s.MaxMsgs, unlimited),
		MaxMsgSize:        s.MaxMsgSize,
		MaxMsgsPerSubject: unlimited,
		MaxConsumers:      unlimited,
		Replicas:          s.Replicas,
		Duplicates:        s.Duplicates,
		DenyDelete:        s.DenyDelete,
		// The client sends direct reads to any replica, also to one that lags:
		// the outbox would take that for a loss and publish everything again.
		AllowDirect: false,
		// Asynchronous persistence loses acknowledged messages in a crash.
		PersistMode: jetstream.DefaultPersistMode,
	}
	for _, f := range s.Subjects {
		cfg.Subjects = append(cfg.Subjects, f.String())
	}
	for _, source := range s.Sources {
		cfg.Sources = append(cfg.Sources, source.config())
	}
	return cfg
}
