package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"
)

// MaxDelay bounds how late a part that was lost is reported: Config.Interval and
// Config.Timeout together are no longer (requirement M2).
const MaxDelay = 5 * time.Second

const (
	defaultInterval = time.Second
	defaultTimeout  = 2 * time.Second
	// livePatience is what Live waits for: less than any prober's timeout, since a
	// liveness probe that gets no answer ends the process.
	livePatience = 200 * time.Millisecond
	maxParts     = 64
)

// Config tunes a Health. The zero value is good for most.
type Config struct {
	// Interval is how old a part's answer may be. At most MaxDelay less Timeout.
	// Default 1 s.
	Interval time.Duration
	// Timeout is how long a part may take to answer. At most MaxDelay less
	// Interval. Default 2 s.
	Timeout time.Duration
	// Logger gets a line when a part is no longer ready, and when it is again.
	// Default slog.Default().
	Logger *slog.Logger
}

// Part is something without which the process cannot do its work, made with [Of],
// [Ping] or [Func], or something that is only told of, made with [Info].
type Part struct {
	name  string
	check func(context.Context) error // nil is refused by New
	tell  func() string               // in the place of check, of Info
}

// Of is a part that knows its state, such as *outbox.Relay, *consumer.Consumer and
// *natsconn.Conn. Names are [a-z][a-z0-9_-]*, at most 64 bytes.
func Of(name string, part interface{ Ready() error }) Part {
	if part == nil {
		return Part{name: name}
	}
	return Part{name: name, check: func(context.Context) error { return part.Ready() }}
}

// Ping is a part that is asked, such as *pgxpool.Pool and *natsconn.Conn. The
// context ends after Config.Timeout.
func Ping(name string, part interface{ Ping(context.Context) error }) Part {
	if part == nil {
		return Part{name: name}
	}
	return Part{name: name, check: part.Ping}
}

// Func is a part with a check of its own. The context ends after Config.Timeout.
// nil is ready; the text of an error is shown to whoever probes.
func Func(name string, check func(context.Context) error) Part {
	return Part{name: name, check: check}
}

// Info is a part that is told of and never makes the process unready, such as
// *sites.Watcher: its Detail stands in the body of every answer, also where it says
// that something is wrong. It is for what readiness must not follow, since other
// processes are no better off: a link to another site, a dead letter, a backlog. An
// alert is for those. A Detail that hangs or panics is told as that. The rules for
// reasons hold for it, too.
func Info(name string, part interface{ Detail() string }) Part {
	if part == nil {
		return Part{name: name}
	}
	return Part{name: name, tell: part.Detail}
}

// partName is what may be a name in a metric label and in a shell.
var partName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)

// Health answers probes. Make it with New; it is safe for concurrent use.
type Health struct{ parts []*part }

// New returns the health of a process with these parts, 1 to 64 of them. It asks
// nothing, starts nothing, and reports every fault at once.
func New(cfg Config, parts ...Part) (*Health, error) {
	cfg.Interval = cmp.Or(cfg.Interval, defaultInterval)
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	faults := cfg.faults()
	if n := len(parts); n < 1 || n > maxParts {
		faults = append(faults, fmt.Errorf("health: parts: %d given; name 1 to %d that the process cannot do without", n, maxParts))
	}
	h, names := &Health{}, map[string]bool{}
	for i, p := range parts {
		switch {
		case !partName.MatchString(p.name):
			faults = append(faults, fmt.Errorf("health: parts[%d]: %.80q is no name; use [a-z][a-z0-9_-]*, at most 64 bytes", i, p.name))
		case names[p.name]:
			faults = append(faults, fmt.Errorf("health: parts[%d]: %s is there twice; each needs a name of its own", i, p.name))
		case p.check == nil && p.tell == nil:
			faults = append(faults, fmt.Errorf("health: parts[%d] (%s): there is nothing to ask; pass what was constructed, not nil", i, p.name))
		}
		names[p.name] = true
		h.parts = append(h.parts, &part{Part: p, cfg: cfg})
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return h, nil
}

// faults returns what is wrong with c, defaults filled in.
func (c Config) faults() (faults []error) {
	if c.Interval < 0 || c.Timeout < 0 || c.Interval+c.Timeout > MaxDelay {
		faults = append(faults, fmt.Errorf("health: Config.Interval and Config.Timeout: %v and %v; use positive ones that add up to %v at most, "+
			"since what is lost has to be reported by then", c.Interval, c.Timeout, MaxDelay))
	}
	return faults
}
