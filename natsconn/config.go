package natsconn

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/subject"
)

// Defaults of Config.
const (
	DefaultURL            = nats.DefaultURL  // of Config.URL: nats://127.0.0.1:4222
	DefaultConnectTimeout = 2 * time.Second  // of Config.ConnectTimeout
	DefaultRequestTimeout = 5 * time.Second  // of Config.RequestTimeout
	DefaultDrainTimeout   = 10 * time.Second // of Config.DrainTimeout
)

// Config says which server to use and how long things may take. The zero value
// connects to a server on this machine and waits for it. It is copied by Dial;
// changing it afterwards has no effect.
type Config struct {
	// URL is one server or several of a cluster, separated by commas; schemes
	// nats, tls, ws and wss. It may hold a user, a password or a token, which
	// are never logged. Default: nats://127.0.0.1:4222.
	URL string

	// Service is who we are. It gives the client name and the inbox prefix
	// their defaults. Default: none.
	Service subject.Service

	// Name is shown by the server's monitoring and in its logs. Default:
	// "<service or dataverket>/<module version>/<host name>".
	Name string

	// InboxPrefix begins the subjects on which answers arrive, so that
	// permissions can keep services out of each other's answers. Default:
	// "_INBOX_<service>" if Service is set, else "_INBOX".
	InboxPrefix string

	// CredentialsFile is a NATS credentials file (user JWT and seed). It is
	// read again at each reconnect, so a rotated file takes effect without a
	// restart. Other ways to authenticate go into Options. Default: none.
	CredentialsFile string

	// FailFast makes Dial return an error when the first attempt on each
	// server fails, for tests, command line tools and development. It has no
	// influence after that: an established connection always reconnects.
	// Default: false, Dial waits until its context ends.
	FailFast bool

	// ConnectTimeout bounds one attempt on one server. Default: 2 s.
	ConnectTimeout time.Duration

	// RequestTimeout bounds each call made through Do, and each JetStream API
	// call whose context has no deadline. Default: 5 s.
	RequestTimeout time.Duration

	// DrainTimeout bounds Drain, together with Drain's context. Keep it within
	// the time that the platform gives a process to stop. Default: 10 s.
	DrainTimeout time.Duration

	// Breaker makes Do fail at once while the broker does not answer. Default:
	// off.
	Breaker Breaker

	// Logger receives one line for each change of state. Default:
	// slog.Default() at the time of Dial.
	Logger *slog.Logger

	// Options are handed to the client in addition: TLS (nats.Secure,
	// nats.RootCAs), keys (nats.Nkey), an in-process server in tests. They may
	// change the pace of pings and reconnects, and nothing else that this
	// package sets. Default: none.
	Options []nats.Option
}

// inboxPrefix accepts one or more tokens without wildcards; the client adds the
// last dot itself.
var inboxPrefix = regexp.MustCompile(`^[A-Za-z0-9_$-]+(\.[A-Za-z0-9_$-]+)*$`)

// clientName refuses what could break a line of the server's log.
var clientName = regexp.MustCompile(`^[\x21-\x7e]{1,128}$`)

// validate returns every fault of c at once, each with its field and remedy.
func (c Config) validate() error {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, fmt.Errorf("natsconn: Config.%s: %s", field, fmt.Sprintf(format, args...)))
	}
	if reason := checkURLs(cmp.Or(c.URL, DefaultURL)); reason != "" {
		fault("URL", "%s; write nats://host:4222, several separated by commas", reason)
	}
	if c.Service != 0 && !c.Service.Valid() {
		fault("Service", "%d is not a known service; use a constant of package subject", uint8(c.Service))
	}
	if c.Name != "" && !clientName.MatchString(c.Name) {
		fault("Name", "must be 1 to 128 printable ASCII characters without spaces")
	}
	if c.InboxPrefix != "" && !inboxPrefix.MatchString(c.InboxPrefix) {
		fault("InboxPrefix", "must be subject tokens without wildcards or a dot at either end, such as _INBOX_maskin")
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"ConnectTimeout", c.ConnectTimeout},
		{"RequestTimeout", c.RequestTimeout},
		{"DrainTimeout", c.DrainTimeout},
		{"Breaker.CoolDown", c.Breaker.CoolDown},
	} {
		if d.value < 0 {
			fault(d.field, "%s is negative; leave it zero for the default", d.value)
		}
	}
	if c.Breaker.Failures < 0 {
		fault("Breaker.Failures", "%d is negative; zero turns the breaker off", c.Breaker.Failures)
	}
	return errors.Join(faults...)
}

// withDefaults fills what was left zero. Name is filled by Dial, which may ask
// the operating system.
func (c Config) withDefaults() Config {
	c.URL = cmp.Or(c.URL, DefaultURL)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, DefaultConnectTimeout)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, DefaultRequestTimeout)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, DefaultDrainTimeout)
	c.Breaker.CoolDown = cmp.Or(c.Breaker.CoolDown, DefaultCoolDown)
	if c.InboxPrefix == "" && c.Service.Valid() {
		c.InboxPrefix = "_INBOX_" + c.Service.String()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}
