package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

func dlqCommands() table {
	return table{
		{
			path: "dlq list", summary: "list dead letters that wait for a decision", needs: needsNATS,
			about: `Oldest first, by the time of the last failure, without data. Without --state it
lists what is not closed: open, claimed, replayed and unknown letters; --state any
lists all. Ids are cut where the beginning is unambiguous; show and replay accept
them so.`,
			examples: []string{
				"dvmsg dlq list --service plattform --since 2h",
				"dvmsg dlq list --correlation 0197a0b2-... --state any --json",
			},
			make: newDLQList,
		},
		{
			path: "dlq show", params: []string{"ID"}, summary: "show all about one letter, with its history", needs: needsNATS,
			about: `ID is a letter's id or the beginning of one, at least 4 digits. The payload is
printed only with --data: it is what the platform's users wrote. In JSON it is
base64, byte by byte as it was published.`,
			examples: []string{
				"dvmsg dlq show l3f9a2c17b",
				"dvmsg dlq show l3f9a2c17b --data --json | jq -r .data | base64 -d",
			},
			make: newDLQShow,
		},
		{
			path: "dlq replay", params: []string{"ID"}, summary: "hand one letter's message to its durable once more", needs: needsNATS,
			about: `Only the durable that gave up receives it, with the envelope unchanged; its inbox
keeps the effect from being applied twice. Who and why are stored with the letter
for good. Of two operators one replays, the other is told who did. A letter whose
replay is outstanding needs --again, one that is closed is not replayed.`,
			examples: []string{
				`dvmsg dlq replay l3f9a2c17b --by operator:ola --reason "hostname fixed, DV-412"`,
				`dvmsg dlq replay l3f9a2c17b --by operator:ola --reason "hostname fixed, DV-412" --dry-run`,
			},
			make: newDLQReplay,
		},
	}
}

// owner is the flag --service: whose dead letters.
type owner struct{ name string }

func (o *owner) register(fs *flag.FlagSet) {
	fs.StringVar(&o.name, "service", "", "the consuming `SERVICE` whose letters they are; default: all services")
}

func (o *owner) check(c *call) {
	if _, err := o.services(); err != nil {
		c.fault("--service: %s", strings.TrimPrefix(err.Error(), "subject: "))
	}
}

func (o *owner) services() ([]subject.Service, error) {
	if o.name == "" {
		return subject.Services(), nil
	}
	s, err := subject.ParseService(o.name)
	return []subject.Service{s}, err
}

// shelf is the dead letters of one service.
type shelf struct {
	service subject.Service
	*dlq.Queue
}

// open returns the dead letters that the flag asks for. A service without any
// dead-letter stream is passed over unless it is the one that was asked for; one
// that has half of them is an error, since its letters would be hidden.
func (o *owner) open(ctx context.Context, conn *natsconn.Conn) ([]shelf, error) {
	services, err := o.services()
	if err != nil {
		return nil, err
	}
	var shelves []shelf
	for _, s := range services {
		queue, err := dlq.Open(ctx, conn.JetStream(), s, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
		switch {
		case err == nil:
			shelves = append(shelves, shelf{s, queue})
		case o.name != "" || !hasNone(err):
			return nil, err
		}
	}
	if len(shelves) == 0 {
		return nil, errors.New("no service has dead-letter streams on this server; is it the right one? See: dvmsg topology apply -h")
	}
	return shelves, nil
}

// hasNone reports whether err says that both streams are missing.
func hasNone(err error) bool {
	parts := leaves(err)
	for _, e := range parts {
		if !errors.Is(e, dlq.ErrNoStream) {
			return false
		}
	}
	return len(parts) == 2
}

// withShelves connects, opens the dead letters and calls do.
func (c *call) withShelves(ctx context.Context, o *owner, do func([]shelf) error) error {
	return c.withNATS(ctx, func(conn *natsconn.Conn) error {
		shelves, err := o.open(ctx, conn)
		if err != nil {
			return err
		}
		return do(shelves)
	})
}

// Bounds of what is accepted as a letter's id, in hex digits.
const (
	idPrefix    = "l"
	leastDigits = 4
	allDigits   = 40
)

// letterID is the argument ID: an id or its beginning, with or without the l.
type letterID string

// checkID adds a fault where the argument cannot be an id; a missing one is
// reported elsewhere.
func checkID(c *call) letterID {
	text := c.arg(0)
	digits := strings.TrimPrefix(text, idPrefix)
	ok := len(digits) >= leastDigits && len(digits) <= allDigits && strings.Trim(digits, "0123456789abcdef") == ""
	if text != "" && !ok {
		c.fault("ID: %q is no letter id; it is l and up to %d hex digits, at least %d, as dlq list prints it", text, allDigits, leastDigits)
	}
	return letterID(idPrefix + digits)
}

func (id letterID) complete() bool { return len(id) == len(idPrefix)+allDigits }

// find returns the letter with that id, with everything that is known about it,
// and the shelf it stands on.
func (id letterID) find(ctx context.Context, shelves []shelf) (shelf, dlq.Letter, error) {
	if !id.complete() {
		on, full, err := id.resolve(ctx, shelves)
		if err != nil {
			return shelf{}, dlq.Letter{}, err
		}
		id, shelves = full, []shelf{on}
	}
	for _, s := range shelves {
		l, err := s.Show(ctx, string(id))
		if !errors.Is(err, dlq.ErrNotFound) {
			return s, l, err
		}
	}
	return shelf{}, dlq.Letter{}, id.notFound(shelves)
}

func (id letterID) notFound(shelves []shelf) error {
	var names []string
	for _, s := range shelves {
		names = append(names, s.service.String())
	}
	return fmt.Errorf("no letter %s among the dead letters of %s; closed ones are removed after a while. See: dvmsg dlq list --state any",
		id, strings.Join(names, ", "))
}

// resolve returns the one letter whose id begins so.
func (id letterID) resolve(ctx context.Context, shelves []shelf) (shelf, letterID, error) {
	const named = 5 // candidates in the message
	var (
		on    shelf
		found []string
	)
	for _, s := range shelves {
		for l, err := range s.List(ctx, dlq.Filter{State: dlq.StateAny}) {
			if _, malformed := errors.AsType[*dlq.MalformedError](err); malformed {
				continue // no id that could be meant
			}
			if err != nil {
				return shelf{}, "", err
			}
			if strings.HasPrefix(l.ID, string(id)) && len(found) < named {
				on, found = s, append(found, l.ID)
			}
		}
	}
	switch len(found) {
	case 0:
		return shelf{}, "", id.notFound(shelves)
	case 1:
		return on, letterID(found[0]), nil
	}
	return shelf{}, "", fmt.Errorf("%s is the beginning of several letters; give more digits: %s", id, strings.Join(found, ", "))
}
