package outbox

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"codeberg.org/dataverket/messaging/internal/bounds"
	"codeberg.org/dataverket/messaging/internal/instance"
	"codeberg.org/dataverket/messaging/topology"
)

func (c RelayConfig) withDefaults(pollOnly bool) RelayConfig {
	c.Holder = cmp.Or(c.Holder, instance.Name())
	c.LeaseTTL = cmp.Or(c.LeaseTTL, 6*time.Second)
	if pollOnly {
		c.PollInterval = cmp.Or(c.PollInterval, 100*time.Millisecond)
	}
	// Just below the second after which pgxpool tests an idle connection with
	// a statement of its own.
	c.PollInterval = cmp.Or(c.PollInterval, 950*time.Millisecond)
	c.PageRows = cmp.Or(c.PageRows, 2000)
	c.PageBytes = cmp.Or(c.PageBytes, 4<<20)
	c.MaxPending = cmp.Or(c.MaxPending, 1000)
	c.MaxParked = cmp.Or(c.MaxParked, 100)
	c.AckTimeout = cmp.Or(c.AckTimeout, 5*time.Second)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 5*time.Second)
	c.ProbeInterval = cmp.Or(c.ProbeInterval, 30*time.Second)
	c.Retention = cmp.Or(c.Retention, 24*time.Hour)
	c.MaxAge = cmp.Or(c.MaxAge, time.Minute)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// atSite fills Site and Domain from the declared network, and returns what
// contradicts it: a relay that says another site than the one whose stream
// acknowledges would make every message a dead letter.
func (c RelayConfig) atSite(set topology.Set) (RelayConfig, []error) {
	site, ok := set.Network.Site(set.Site)
	if !ok {
		return c, nil // one site, or a set that outbox.New has refused
	}
	c.Site = cmp.Or(c.Site, site.Name)
	c.Domain = cmp.Or(c.Domain, site.Domain)
	var faults []error
	if c.Site != site.Name {
		faults = append(faults, fmt.Errorf("outbox: RelayConfig.Site: is %.40q, and the outbox's Set is of site %s; leave it, or make the Set with Network.At", c.Site, site.Name))
	}
	if c.Domain != site.Domain {
		faults = append(faults, fmt.Errorf("outbox: RelayConfig.Domain: is %.64q, and site %s has the domain %s; leave it, or correct the Network", c.Domain, site.Name, site.Domain))
	}
	return c, faults
}

// faults checks every field against its bounds.
func (c RelayConfig) faults() []error {
	faults := bounds.Check("outbox: RelayConfig.",
		bounds.Of("LeaseTTL", c.LeaseTTL, time.Second, time.Minute, "shorter ones lose the lease in a pause, longer ones delay fail-over"),
		bounds.Of("PollInterval", c.PollInterval, time.Millisecond, time.Minute, ""),
		bounds.Of("PageRows", c.PageRows, 1, 100_000, "rows"),
		bounds.Of("PageBytes", c.PageBytes, 1<<10, 1<<30, "bytes"),
		bounds.Of("MaxPending", c.MaxPending, 1, 100_000, "messages"),
		bounds.Of("MaxParked", c.MaxParked, 1, 100_000, "keys"),
		bounds.Of("AckTimeout", c.AckTimeout, 100*time.Millisecond, time.Minute,
			"well below the duplicate window, so that a resend is recognised"),
		bounds.Of("DrainTimeout", c.DrainTimeout, 100*time.Millisecond, 10*time.Minute, ""),
		bounds.Of("ProbeInterval", c.ProbeInterval, 10*time.Millisecond, 10*time.Minute, "until then a loss may go unnoticed"),
	)
	if c.Retention >= 0 && (c.Retention < time.Minute || c.Retention > 90*24*time.Hour) {
		faults = append(faults, fmt.Errorf("outbox: RelayConfig.Retention: %v is out of range; use 1m to 2160h (90 days), or a negative one to keep rows for ever", c.Retention))
	}
	if c.MaxAge >= 0 && (c.MaxAge < time.Second || c.MaxAge > 24*time.Hour) {
		faults = append(faults, fmt.Errorf("outbox: RelayConfig.MaxAge: %v is out of range; use 1s to 24h, or a negative one for no alarm", c.MaxAge))
	}
	if len(c.Holder) > 200 {
		faults = append(faults, fmt.Errorf("outbox: RelayConfig.Holder: %d bytes are too many; use at most 200", len(c.Holder)))
	}
	return faults
}
