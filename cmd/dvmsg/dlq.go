package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

// owner is the flag --service: whose dead letters.
type owner struct {
	name string
	// horizon is how long their inboxes remember; 0 is the default.
	horizon time.Duration
}

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
// dead-letter stream is passed over unless it is the one that was asked for. One
// that has half of them, or streams that lose letters, keeps nobody from the others;
// its fault is told beside them, since its letters are hidden.
func (o *owner) open(ctx context.Context, conn *natsconn.Conn) (shelves []shelf, hidden, err error) {
	services, err := o.services()
	if err != nil {
		return nil, nil, err
	}
	for _, s := range services {
		queue, err := dlq.Open(ctx, conn.JetStream(), s, dlq.Config{Horizon: o.horizon, Logger: slog.New(slog.DiscardHandler)})
		switch {
		case err == nil:
			shelves = append(shelves, shelf{s, queue})
		case o.name != "" || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
			return nil, nil, err
		case !hasNone(err):
			hidden = errors.Join(hidden, err)
		}
	}
	switch {
	case len(shelves) == 0 && hidden != nil:
		return nil, nil, hidden
	case len(shelves) == 0:
		return nil, nil, errors.New("no service has dead-letter streams on this server; is it the right one? See: dvmsg topology apply -h")
	}
	return shelves, hidden, nil
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

// withShelves connects, opens the dead letters and calls do. What was hidden from do
// fails the command in the end.
func (c *call) withShelves(ctx context.Context, o *owner, do func([]shelf) error) error {
	return c.withNATS(ctx, func(conn *natsconn.Conn) error {
		shelves, hidden, err := o.open(ctx, conn)
		if err != nil {
			return err
		}
		c.hidden = hidden
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

// checkID reads the argument ID; a missing one is reported elsewhere.
func checkID(c *call) letterID { return parseID(c, c.arg(0)) }

// parseID adds a fault where text cannot be an id.
func parseID(c *call, text string) letterID {
	digits := strings.TrimPrefix(text, idPrefix)
	ok := len(digits) >= leastDigits && len(digits) <= allDigits && strings.Trim(digits, "0123456789abcdef") == ""
	if text != "" && !ok {
		c.fault("ID: %q is no letter id; it is l and up to %d hex digits, at least %d, as dlq list prints it", text, allDigits, leastDigits)
	}
	return letterID(idPrefix + digits)
}

// find returns the letter with that id, with everything that is known about it,
// and the shelf it stands on.
func (id letterID) find(ctx context.Context, shelves []shelf) (shelf, dlq.Letter, error) {
	if len(id) == len(idPrefix)+allDigits {
		for _, s := range shelves {
			l, err := s.Show(ctx, string(id))
			if !errors.Is(err, dlq.ErrNotFound) {
				return s, l, err
			}
		}
		return shelf{}, dlq.Letter{}, id.notFound(shelves)
	}
	found, err := resolve(ctx, shelves, []letterID{id})
	if err != nil {
		return shelf{}, dlq.Letter{}, err
	}
	l, err := found[0].on.Show(ctx, found[0].ids[0])
	return found[0].on, l, err
}

func (id letterID) notFound(shelves []shelf) error {
	var names []string
	for _, s := range shelves {
		names = append(names, s.service.String())
	}
	return fmt.Errorf("no letter %s among the dead letters of %s; closed ones are removed after a while. See: dvmsg dlq list --state any",
		id, strings.Join(names, ", "))
}
