package sites

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"

	"codeberg.org/dataverket/messaging/internal/bounds"
)

// Defaults of a Config.
const (
	// DefaultEvery is the pause between two looks at a flow.
	DefaultEvery = 2 * time.Second
	// DefaultSilent is how long a source is not heard of before it counts as
	// silent. The server of the origin sends a sign of life every second.
	DefaultSilent = 3 * time.Second
	// DefaultAskTimeout bounds one question to the other site.
	DefaultAskTimeout = 2 * time.Second
	// DefaultCompare is the pause between two comparisons of a flow's ends.
	DefaultCompare = 30 * time.Second
	// DefaultHorizon is how far back they go.
	DefaultHorizon = 24 * time.Hour
	// DefaultResendRate is how many messages a second are sent again.
	DefaultResendRate = 500
)

const (
	minHorizon    = 10 * time.Minute
	maxHorizon    = 7 * 24 * time.Hour
	maxResendRate = 100_000
)

// Config tunes a Watcher. Every zero value is a safe default.
type Config struct {
	// Every is the pause between two looks at a flow, 10 ms to 1 min. A look is one
	// question over the link and two or three to the site's own server.
	// Default 2 s.
	Every time.Duration

	// Silent is how long a source is not heard of before it counts as silent: then
	// the copy is made to ask for it again if the origin answers. 1.5 s to 1 min.
	// Default 3 s.
	Silent time.Duration

	// AskTimeout bounds one question to the other site, 10 ms to 1 min; one for which
	// that site reads its stream gets five times as much. Keep it above the time that
	// a packet needs to go there and back. Default 2 s.
	AskTimeout time.Duration

	// Compare is the pause between two comparisons of what both ends of a flow hold,
	// 100 ms to 1 h. One costs a few questions over the link and, at both sites, a
	// reading of the headers that came since the last one. Default 30 s.
	Compare time.Duration

	// Horizon is how far back they compare, 10 min to 7 d. It costs memory for each
	// minute, not for each message. Default 24 h.
	Horizon time.Duration

	// ResendRate is how many messages a second this watcher sends again at most, for
	// all flows that begin here together, 1 to 100,000. Default 500.
	ResendRate int

	// Logger receives a line for each change of a flow's state and for each thing
	// that was done about it. Default slog.Default().
	Logger *slog.Logger

	// MeterProvider receives the metrics, see docs/METRICS.md. Default
	// otel.GetMeterProvider().
	MeterProvider metric.MeterProvider
}

func (c Config) withDefaults() Config {
	c.Every = cmp.Or(c.Every, DefaultEvery)
	c.Silent = cmp.Or(c.Silent, DefaultSilent)
	c.AskTimeout = cmp.Or(c.AskTimeout, DefaultAskTimeout)
	c.Compare = cmp.Or(c.Compare, DefaultCompare)
	c.Horizon = cmp.Or(c.Horizon, DefaultHorizon)
	c.ResendRate = cmp.Or(c.ResendRate, DefaultResendRate)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	return c
}

// faults returns all that is wrong with c, defaults filled in.
func (c Config) faults() []error {
	return bounds.Check("sites: Config.",
		bounds.Of("Every", c.Every, 10*time.Millisecond, time.Minute, "each look asks over the link"),
		bounds.Of("Silent", c.Silent, 1500*time.Millisecond, time.Minute, "the other server sends a sign of life every second"),
		bounds.Of("AskTimeout", c.AskTimeout, 10*time.Millisecond, time.Minute, "a look waits for it"),
		bounds.Of("Compare", c.Compare, 100*time.Millisecond, time.Hour, "each comparison reads at both sites"),
		bounds.Of("Horizon", c.Horizon, minHorizon, maxHorizon, "events are kept for 7 days"),
		bounds.Of("ResendRate", c.ResendRate, 1, maxResendRate, "messages a second"),
	)
}

// errNoConnection is the fault of a nil connection.
var errNoConnection = errors.New("sites: connection: is nil; pass what natsconn.Dial returned")
