package dlq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pass"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// Defaults of Config.
const (
	DefaultTimeout    = 5 * time.Second // of Config.Timeout
	DefaultClaimLease = time.Minute     // of Config.ClaimLease

	// DefaultHorizon is that of Config.Horizon, and what an inbox remembers.
	DefaultHorizon = envelope.DefaultHorizon
)

// Config says how patient a Queue is. The zero value is right for production.
// It is copied by [Open]; changing it afterwards has no effect.
type Config struct {
	// Timeout bounds each single request to the server. A listing makes many, so
	// its whole duration is bounded by its context only. Default: 5 s.
	Timeout time.Duration

	// ClaimLease is how long a claim keeps others away from a letter. A claim
	// that is older, by the server's clock, was left by somebody who died between
	// claim and publish, and the next Replay takes it over. A shorter lease does
	// no harm: who lost a claim cannot publish under it any more. Default: 1 min.
	ClaimLease time.Duration

	// Horizon is how long the service's inboxes remember an effect. A letter whose
	// failure or first replay is older is replayed only with Request.Again. Default:
	// DefaultHorizon.
	Horizon time.Duration

	// Logger receives one line for each stored letter and each replay, without
	// data. Default: slog.Default() at the time of Open.
	Logger *slog.Logger
}

// Queue reads and writes the dead letters of one service. It is safe for
// concurrent use by any number of goroutines and of processes.
type Queue struct {
	service     subject.Service
	config      Config
	js          jetstream.JetStream
	letters     jetstream.Stream
	ops         jetstream.Stream
	lettersName string
	opsName     string
	index       *index
	hold        int // letters that a listing holds
}

// Open returns the dead letters of service after it has found both of its
// streams, by the names that topology gives them: DV_<SERVICE>_DLQ with the
// letters and DV_<SERVICE>_DLQOPS with marks and replays. It creates nothing:
// run topology.Ensure first. A missing stream is an error that matches
// [ErrNoStream] and names it; all faults come at once. Open starts no goroutine
// and needs no closing.
func Open(ctx context.Context, js jetstream.JetStream, service subject.Service, cfg Config) (*Queue, error) {
	if err := cfg.validate(js, service); err != nil {
		return nil, err
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	cfg.ClaimLease = cmp.Or(cfg.ClaimLease, DefaultClaimLease)
	cfg.Horizon = cmp.Or(cfg.Horizon, DefaultHorizon)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	q := &Queue{
		service: service, config: cfg, js: js,
		lettersName: topology.DeadLetters(service, topology.Limits{}).Name,
		opsName:     topology.DeadLetterOps(service, topology.Limits{}).Name,
		index:       newIndex(), hold: maxHeld,
	}
	var lettersErr, opsErr error
	q.letters, lettersErr = q.find(ctx, q.lettersName, "DeadLetters")
	q.ops, opsErr = q.find(ctx, q.opsName, "DeadLetterOps")
	if err := errors.Join(lettersErr, opsErr); err != nil {
		return nil, err
	}
	return q, nil
}

// validate returns every fault of the arguments of Open at once.
func (c Config) validate(js jetstream.JetStream, service subject.Service) error {
	var faults []error
	if js == nil {
		faults = append(faults, &FieldError{"Open: js", "is nil: pass the JetStream of natsconn.Conn"})
	}
	if !service.Valid() {
		faults = append(faults, &FieldError{"Open: service", "is none: use a constant of package subject"})
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"Config.Timeout", c.Timeout}, {"Config.ClaimLease", c.ClaimLease}, {"Config.Horizon", c.Horizon}} {
		if d.value < 0 {
			faults = append(faults, &FieldError{d.field, "is negative: leave it zero for the default"})
		}
	}
	return errors.Join(faults...)
}

// find looks a stream up by its declared name, which needs fewer rights than
// asking which stream holds a subject.
func (q *Queue) find(ctx context.Context, name, declare string) (jetstream.Stream, error) {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	stream, err := q.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("dlq: open %s: %w: %s: declare it with topology.%s and run topology.Ensure",
			q.service, ErrNoStream, name, declare)
	}
	if err != nil {
		return nil, fmt.Errorf("dlq: open %s: look up %s: %w", q.service, name, err)
	}
	return stream, checkStream(stream.CachedInfo())
}

// checkStream refuses a stream that answers reads from any replica, since the
// last mark of a letter must be the last one, or two operators get the same
// letter; and one that removes messages by itself: letters that nobody has
// resolved must not vanish (requirement Q4), nor a letter's marks before it.
func checkStream(info *jetstream.StreamInfo) error {
	var faults []error
	fault := func(text string) {
		faults = append(faults, fmt.Errorf("dlq: stream %s %s (topology.Apply)", info.Config.Name, text))
	}
	c := info.Config
	if c.AllowDirect {
		fault("allows direct reads, which may be stale: set AllowDirect to false")
	}
	if c.MaxAge > 0 {
		fault("removes what is older than " + c.MaxAge.String() + ", also what nobody has resolved: set MaxAge to 0")
	}
	if c.Discard != jetstream.DiscardNew || c.MaxMsgsPerSubject > 0 {
		fault("removes old messages for new ones: set Discard to new and MaxMsgsPerSubject to -1")
	}
	return errors.Join(faults...)
}

// info returns the current state of a stream, from its leader.
func (q *Queue) info(ctx context.Context, stream jetstream.Stream) (*jetstream.StreamInfo, error) {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	info, err := stream.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("dlq: ask for stream %s: %w", stream.CachedInfo().Config.Name, err)
	}
	return info, checkStream(info)
}

// bounded returns ctx with the time that one request may take.
func (q *Queue) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, q.config.Timeout)
}

// run makes one pass over a stream of the queue.
func (q *Queue) run(ctx context.Context, p pass.Pass, see pass.Visit) error {
	p.Purpose, p.Timeout = "dlq", q.config.Timeout
	if err := p.Run(ctx, see); err != nil {
		return fmt.Errorf("dlq: %w", err)
	}
	return nil
}

// publish stores one message in the named stream and waits for the answer. An
// answer of another stream is an error: the message is then somewhere, but not
// where anybody looks for it.
func (q *Queue) publish(ctx context.Context, m *nats.Msg, stream string, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	ack, err := q.js.PublishMsg(ctx, m, append(opts, jetstream.WithExpectStream(stream))...)
	if err != nil {
		return nil, err
	}
	if ack.Stream != stream {
		return nil, fmt.Errorf("acknowledged by stream %q instead of %q", ack.Stream, stream)
	}
	return ack, nil
}
