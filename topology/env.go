package topology

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The environment variables of FromEnv. With a suffix "_<DURABLE>" in capitals
// they are for one durable and win over the general ones.
const (
	EnvAckWait       = "DVMSG_ACK_WAIT"        // a Go duration: "90s"
	EnvMaxAckPending = "DVMSG_MAX_ACK_PENDING" // a number
)

// FromEnv returns c with AckWait and MaxAckPending taken from the environment
// where it sets them (requirement T8), asked through lookup, usually
// os.LookupEnv. All faults are reported at once. A durable that exists keeps
// its settings until an operator applies new ones; until then Verify reports
// the drift.
func (c Consumer) FromEnv(lookup func(name string) (string, bool)) (Consumer, error) {
	var faults []error
	if name, text, ok := c.variable(lookup, EnvAckWait); ok {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			faults = append(faults, fmt.Errorf("topology: read %s: %q is not a positive duration such as 90s", name, text))
		}
		c.AckWait = d
	}
	if name, text, ok := c.variable(lookup, EnvMaxAckPending); ok {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			faults = append(faults, fmt.Errorf("topology: read %s: %q is not a positive number such as 50", name, text))
		}
		c.MaxAckPending = n
	}
	return c, errors.Join(faults...)
}

// variable looks for the durable's own variable first. A variable that is set
// but empty counts as not set, as deployment templates leave it.
func (c Consumer) variable(lookup func(string) (string, bool), general string) (name, text string, ok bool) {
	for _, name := range []string{general + "_" + strings.ToUpper(c.Durable), general} {
		if text, ok := lookup(name); ok && text != "" {
			return name, text, true
		}
	}
	return "", "", false
}
