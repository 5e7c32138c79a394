package rpc

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/internal/bounds"
	"codeberg.org/dataverket/messaging/subject"
)

// Defaults and bounds of calls.
const (
	// DefaultMaxTimeout is the ceiling of a call's deadline, on both sides. What
	// takes longer is a command with a task: it survives a restart, reports its
	// progress, and holds nobody's connection.
	DefaultMaxTimeout = 10 * time.Second
	// DefaultMaxBody is how large a request and a reply may be, in bytes.
	DefaultMaxBody = 256 << 10

	defaultConcurrency  = 64
	defaultDrainTimeout = 10 * time.Second
	defaultVersion      = "0.0.0"

	maxTimeout     = time.Minute
	maxConcurrency = 10_000
	minBody        = 1 << 10
	// payloadReserve stays free below the broker's max_payload, which counts the
	// headers too. It is what envelopes leave free.
	payloadReserve = 32 << 10
	// maxBody is what the broker's default max_payload of 1 MiB leaves.
	maxBody = 1<<20 - payloadReserve
)

// ClientConfig tunes a Client. Every zero value is a safe default.
type ClientConfig struct {
	// Service is who calls; servers see it in their logs. Default: none.
	Service subject.Service

	// MaxTimeout is the ceiling of a call's deadline: a ctx that ends later is
	// refused with ErrDeadlineTooFar. 1 ms to 1 min; a server refuses what is
	// above its own. Default 10 s.
	MaxTimeout time.Duration

	// MaxRequest bounds a request in bytes, 1 KiB to 992 KiB, and always 32 KiB
	// below the broker's max_payload. Default 256 KiB.
	MaxRequest int
}

func (c ClientConfig) withDefaults() ClientConfig {
	c.MaxTimeout = cmp.Or(c.MaxTimeout, DefaultMaxTimeout)
	c.MaxRequest = cmp.Or(c.MaxRequest, DefaultMaxBody)
	return c
}

func (c ClientConfig) faults() []error {
	faults := bounds.Check("rpc: ClientConfig.",
		bounds.Of("MaxTimeout", c.MaxTimeout, time.Millisecond, maxTimeout, "longer work is a command with a task"),
		bounds.Of("MaxRequest", c.MaxRequest, minBody, maxBody, "the broker's max_payload less 32 KiB"),
	)
	if c.Service != 0 && !c.Service.Valid() {
		faults = append(faults, errors.New("rpc: ClientConfig.Service: is not a known service; use a constant of package subject"))
	}
	return faults
}

// ServerConfig tunes a Server. Only Service is required; every other zero value is
// a safe default.
type ServerConfig struct {
	// Service is who answers. Required, and that of all routes. Servers of one
	// service share its calls.
	Service subject.Service

	// Version is the service's own, as discovery shows it: semantic, without v.
	// Default "0.0.0".
	Version string

	// Description is shown by discovery. Default: none.
	Description string

	// Concurrency is how many handlers run at once, over all operations, 1 to
	// 10,000. A request beyond it is refused at once with CodeUnavailable rather
	// than queued: whoever waits has a deadline, and another replica may be free.
	// Default 64.
	Concurrency int

	// MaxTimeout is the ceiling of a request's deadline: one that asks for more is
	// refused with CodeInvalidArgument. 1 ms to 1 min. Default 10 s.
	MaxTimeout time.Duration

	// MaxRequest and MaxReply bound the bodies in bytes, 1 KiB to 992 KiB, and
	// always 32 KiB below the broker's max_payload. Beyond them the caller gets
	// CodeResourceExhausted. Default 256 KiB each.
	MaxRequest, MaxReply int

	// DrainTimeout is how long Run waits after its ctx ended for handlers to
	// finish before it cancels theirs; they then have 5 s more. 1 ms to 10 min.
	// Default 10 s.
	DrainTimeout time.Duration

	// Logger receives internal errors, panics and changes of state, never a body.
	// Default slog.Default().
	Logger *slog.Logger
}

func (c ServerConfig) withDefaults() ServerConfig {
	c.Version = cmp.Or(c.Version, defaultVersion)
	c.Concurrency = cmp.Or(c.Concurrency, defaultConcurrency)
	c.MaxTimeout = cmp.Or(c.MaxTimeout, DefaultMaxTimeout)
	c.MaxRequest = cmp.Or(c.MaxRequest, DefaultMaxBody)
	c.MaxReply = cmp.Or(c.MaxReply, DefaultMaxBody)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, defaultDrainTimeout)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// semantic is a version as discovery demands it.
var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

func (c ServerConfig) faults() []error {
	faults := bounds.Check("rpc: ServerConfig.",
		bounds.Of("Concurrency", c.Concurrency, 1, maxConcurrency, "each holds a request in memory"),
		bounds.Of("MaxTimeout", c.MaxTimeout, time.Millisecond, maxTimeout, "longer work is a command with a task"),
		bounds.Of("MaxRequest", c.MaxRequest, minBody, maxBody, "the broker's max_payload less 32 KiB"),
		bounds.Of("MaxReply", c.MaxReply, minBody, maxBody, "the broker's max_payload less 32 KiB"),
		bounds.Of("DrainTimeout", c.DrainTimeout, time.Millisecond, 10*time.Minute,
			"stay below what the orchestrator waits before it kills the process"),
	)
	if !c.Service.Valid() {
		faults = append(faults, errors.New("rpc: ServerConfig.Service: is not set; use a constant of package subject"))
	}
	if !semantic.MatchString(c.Version) {
		faults = append(faults, fmt.Errorf("rpc: ServerConfig.Version: %.40q is not a semantic version; write it as 1.4.0", c.Version))
	}
	return faults
}

// room returns how large a body may be on nc: the configured size, and less where
// the broker's max_payload asks for it.
func room(nc *nats.Conn, configured int) int {
	if most := nc.MaxPayload(); most > 0 { // 0 before the first connection
		return max(min(configured, int(most)-payloadReserve), 0)
	}
	return configured
}
