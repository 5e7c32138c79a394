package main

import (
	"cmp"
	"flag"
	"strings"
	"unicode/utf8"

	"codeberg.org/dataverket/messaging/envelope"
)

// decision holds the flags --by and --reason of what only a person decides.
type decision struct{ by, reason string }

func (d *decision) register(fs *flag.FlagSet) {
	fs.StringVar(&d.by, "by", "", "`ACTOR` who decides, such as operator:ola; default: "+envOperator)
	fs.StringVar(&d.reason, "reason", "", "`WHY`, at most 1024 bytes; refer to a ticket")
}

// maxReason bounds a reason, in bytes.
const maxReason = 1 << 10

// check fills in the environment and adds every fault. The user of the machine
// is no default for --by: behind a shared account nobody would have done it.
func (d *decision) check(c *call) {
	d.by = cmp.Or(d.by, c.env(envOperator))
	actor := envelope.Actor(d.by)
	if d.by == "" {
		c.fault("--by is missing: say who decides, as --by operator:NAME or in %s", envOperator)
	} else if _, err := envelope.NewActor(actor.Kind(), actor.ID()); err != nil {
		c.fault("--by (%s): %q is no actor; write operator:NAME", envOperator, d.by)
	}
	switch {
	case strings.TrimSpace(d.reason) == "":
		c.fault("--reason is missing: say why, it is the audit trail")
	case len(d.reason) > maxReason || !utf8.ValidString(d.reason):
		c.fault("--reason must be UTF-8 of at most %d bytes; refer to a ticket", maxReason)
	}
}
