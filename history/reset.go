package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pass"
	"codeberg.org/dataverket/messaging/topology"
)

// DefaultHorizon is that of ResetRequest.Horizon, and what an inbox remembers.
const DefaultHorizon = envelope.DefaultHorizon

// maxReason bounds ResetRequest.Reason, in bytes.
const maxReason = 1 << 10

// Durable names a durable: its stream and its name.
type Durable struct {
	// Stream is what it reads, such as DV_MASKIN_EVT.
	Stream string `json:"stream"`
	// Name is the durable's, such as plattform__from_maskin.
	Name string `json:"durable"`
}

// ResetRequest says from where a durable gets its messages again, who wants it and
// why. By, Reason, and one of From and Since are required.
type ResetRequest struct {
	// From is the sequence of the first message: the first one at or behind it that
	// the durable's filter lets through. Default: Since says it.
	From uint64
	// Since is the time at or after which the first message was stored, by the
	// server's clock. Default: From says it.
	Since time.Time

	// By is who, as <kind>:<id>, such as "operator:ola"; see [envelope.Actor].
	By string
	// Reason is why, in at most 1 KiB, such as "restored from a backup, DV-412".
	Reason string

	// DryRun makes every check and changes nothing. Default: false.
	DryRun bool
	// Horizon is how long the inbox of the durable's handlers remembers. Default:
	// DefaultHorizon.
	Horizon time.Duration
	// BeyondHorizon allows a reset that reaches further back than Horizon. Default:
	// false, which makes it a [*HorizonError].
	BeyondHorizon bool

	// Logger receives one line for the reset. Default: slog.Default().
	Logger *slog.Logger
}

// Reset is what a reset does, or would do.
type Reset struct {
	Durable
	// From is the first message that comes again, StoredAt when it was stored.
	From     uint64    `json:"from"`
	StoredAt time.Time `json:"stored_at"`
	// Again is how many messages come again; Waiting is how many come after them
	// that the durable has not handled yet. Both are of the moment.
	Again   int `json:"again"`
	Waiting int `json:"waiting"`
	// Floor is the sequence up to which the durable had handled everything.
	Floor uint64 `json:"floor"`
	// BeyondHorizon says that the first message is older than an inbox remembers.
	BeyondHorizon bool `json:"beyond_horizon,omitempty"`
	// By and Reason are the request's.
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// validate returns every fault of d and r at once.
func (r ResetRequest) validate(d Durable) error {
	var faults []error
	fault := func(field, reason string) { faults = append(faults, &FieldError{field, reason}) }
	if d.Stream == "" || d.Name == "" {
		fault("Durable", "is incomplete: say the stream and the name")
	}
	if strings.HasSuffix(d.Name, replaySuffix) {
		fault("Durable.Name", "is a replay durable's: dead letters are replayed one by one, see package dlq")
	}
	if (r.From > 0) != r.Since.IsZero() {
		fault("ResetRequest", "needs one of From and Since: from where the messages come again")
	}
	by := envelope.Actor(r.By)
	if _, err := envelope.NewActor(by.Kind(), by.ID()); err != nil {
		fault("ResetRequest.By", "must say who, as <kind>:<id> like operator:ola: "+err.Error())
	}
	if strings.TrimSpace(r.Reason) == "" || len(r.Reason) > maxReason || !utf8.ValidString(r.Reason) {
		fault("ResetRequest.Reason", "must say why, in UTF-8 of at most 1024 bytes: it is the audit trail")
	}
	if r.Horizon < 0 {
		fault("ResetRequest.Horizon", "is negative: leave it zero for the default")
	}
	return errors.Join(faults...)
}

// replaySuffix ends the name of a replay durable.
var replaySuffix = topology.Consumer{}.ReplayDurable() // constant

// ResetDurable hands a durable the messages of its stream once more, from the one
// that r names (requirement M5). Its consumer may run meanwhile; what it has in hand
// comes again too. Who reset it and why is kept in the durable's metadata, which
// stock tools show, and in the log.
//
// The durable stays the one that was declared, so nobody's Ensure or Verify finds a
// difference; attempts are counted anew. It cannot go back before its declared
// start, a [*StartError], nor forward over what it has not handled, a [*SkipError].
// A reset that reaches further back than the inbox remembers is a [*HorizonError]
// unless r allows it, and one of which nothing would come again matches
// [ErrNothing].
//
// If the outcome stays unknown, for example because ctx ends, do it again: a reset
// to the same message is the same reset. It is safe for concurrent use; of two
// resets at once, the last one holds. A server before 2.14 has no resets.
func ResetDurable(ctx context.Context, js jetstream.JetStream, d Durable, r ResetRequest) (Reset, error) {
	if js == nil {
		return Reset{}, &FieldError{"js", "is nil: pass the JetStream of natsconn.Conn"}
	}
	if err := r.validate(d); err != nil {
		return Reset{}, err
	}
	plan, err := planReset(ctx, js, d, r)
	if err != nil || r.DryRun {
		return plan, err
	}
	if err := audit(ctx, js, plan); err != nil {
		return plan, err
	}
	bounded, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err = js.ResetConsumerToSequence(bounded, d.Stream, d.Name, plan.From)
	cmp.Or(r.Logger, slog.Default()).LogAttrs(ctx, slog.LevelWarn, "durable reset",
		slog.String("stream", d.Stream), slog.String("durable", d.Name), slog.Uint64("from", plan.From),
		slog.Time("stored_at", plan.StoredAt), slog.Int("again", plan.Again),
		slog.String("by", r.By), slog.String("reason", r.Reason), slog.Any("error", err))
	if err != nil {
		return plan, fmt.Errorf("history: reset durable %s of %s to message %d: %w", d.Name, d.Stream, plan.From, err)
	}
	return plan, nil
}

// planReset finds out what a reset does, and whether it may.
func planReset(ctx context.Context, js jetstream.JetStream, d Durable, r ResetRequest) (Reset, error) {
	plan := Reset{Durable: d, By: r.By, Reason: r.Reason}
	stream, err := open(ctx, js, d.Stream)
	if err != nil {
		return plan, err
	}
	info, err := d.info(ctx, stream)
	if err != nil {
		return plan, err
	}
	plan.Floor = info.AckFloor.Stream
	total, err := plan.find(ctx, stream, info, r)
	if err != nil {
		return plan, err
	}
	plan.Again = max(0, total-int(info.NumPending))
	plan.Waiting = total - plan.Again
	switch {
	case plan.From == 0 || plan.Again == 0:
		return plan, fmt.Errorf("history: reset durable %s: %w: it has handled nothing from there on", d.Name, ErrNothing)
	case plan.From > plan.Floor && info.NumAckPending > 0:
		return plan, &SkipError{Durable: d.Name, From: plan.From, Floor: plan.Floor}
	}
	if err := plan.allowed(info.Config); err != nil {
		return plan, err
	}
	horizon := cmp.Or(r.Horizon, DefaultHorizon)
	if plan.BeyondHorizon = info.TimeStamp.Sub(plan.StoredAt) > horizon; plan.BeyondHorizon && !r.BeyondHorizon {
		return plan, &HorizonError{Durable: d.Name, StoredAt: plan.StoredAt, Horizon: horizon}
	}
	return plan, nil
}

// info asks for the durable.
func (d Durable) info(ctx context.Context, stream jetstream.Stream) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	c, err := stream.Consumer(ctx, d.Name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, fmt.Errorf("history: %w: %s of stream %s", ErrNoDurable, d.Name, d.Stream)
	}
	if err != nil {
		return nil, fmt.Errorf("history: look up durable %s of stream %s: %w", d.Name, d.Stream, err)
	}
	info := c.CachedInfo()
	if info.Config.Durable == "" || info.Config.AckPolicy != jetstream.AckExplicitPolicy {
		return nil, fmt.Errorf("history: %w: %s of stream %s is no durable with acknowledgements", ErrNoDurable, d.Name, d.Stream)
	}
	return info, nil
}

// find finds the first message that the durable would get, and how many there are
// from it on.
func (p *Reset) find(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo, r ResetRequest) (total int, err error) {
	filters := info.Config.FilterSubjects
	if f := info.Config.FilterSubject; f != "" {
		filters = []string{f}
	}
	look := beginning(pass.Pass{
		Stream: stream, Purpose: "reset", Filters: filters, HeadersOnly: true, Page: 1, Timeout: requestTimeout,
	}, r.From, r.Since)
	err = look.Run(ctx, func(_ jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		p.From, p.StoredAt = meta.Sequence.Stream, meta.Timestamp.UTC()
		total = int(meta.NumPending) + 1
		return false, nil
	})
	if err != nil {
		err = fmt.Errorf("history: reset durable %s: %w", p.Name, err)
	}
	return total, err
}

// allowed returns an error where the server would refuse: before the declared
// start.
func (p *Reset) allowed(c jetstream.ConsumerConfig) error {
	declared := ""
	switch c.DeliverPolicy {
	case jetstream.DeliverAllPolicy:
		return nil
	case jetstream.DeliverByStartSequencePolicy:
		if p.From >= c.OptStartSeq {
			return nil
		}
		declared = topology.StartAtSequence(c.OptStartSeq).String()
	case jetstream.DeliverByStartTimePolicy:
		if c.OptStartTime == nil || !p.StoredAt.Before(*c.OptStartTime) {
			return nil
		}
		declared = topology.StartAtTime(*c.OptStartTime).String()
	default:
		declared = c.DeliverPolicy.String()
	}
	return &StartError{Durable: p.Name, Declared: declared, From: p.From}
}
