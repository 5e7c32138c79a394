package sites

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/topology"
)

// SiteError is a connection to another site than the one that was meant.
type SiteError struct {
	Domain string // of the server that conn is connected to; "" if it has none
	Site   string // the site that was meant, "" if any
}

// Error names both and the remedy.
func (e *SiteError) Error() string {
	if e.Site == "" {
		return fmt.Sprintf("sites: the server's JetStream domain %q is of no site of the network; connect to one of its sites", e.Domain)
	}
	return fmt.Sprintf("sites: the server's JetStream domain %q is not that of site %s; connect to that site", e.Domain, e.Site)
}

// SiteOf returns the site of a network that conn is connected to, by the JetStream
// domain of the server. Where want is not "", it must be that one. The error is a
// *SiteError, or that of the server, which is asked for $JS.API.INFO.
func SiteOf(ctx context.Context, conn *natsconn.Conn, n topology.Network, want string) (string, error) {
	info, err := conn.JetStream().AccountInfo(ctx)
	if err != nil {
		return "", fmt.Errorf("sites: ask the server for its domain: %w", err)
	}
	at := slices.IndexFunc(n.Sites, func(s topology.Site) bool { return s.Domain == info.Domain })
	if at < 0 || want != "" && n.Sites[at].Name != want {
		return "", &SiteError{Domain: info.Domain, Site: want}
	}
	return n.Sites[at].Name, nil
}

// Look returns the status of every flow of a network that ends at a site, whoever
// owns it, by one look at each, in the order of the declaration. It changes nothing,
// and needs no watcher at this site; conn is connected there. Of what only time tells
// it says nothing: CaughtUp is zero unless all is here now, and a copy that gets
// nothing is behind.
//
// What is wrong with a flow is in its status. The error is of the arguments or the
// connection.
func Look(ctx context.Context, conn *natsconn.Conn, n topology.Network, site string, cfg Config) ([]Flow, error) {
	w, err := onlooker(conn, n, site, cfg)
	if err != nil {
		return nil, err
	}
	defer w.asker.close()
	for _, a := range arrivalsAt(n, site) {
		one := newWatch(w, a)
		one.once = true
		w.watched = append(w.watched, one)
	}
	var looking sync.WaitGroup
	for _, one := range w.watched {
		looking.Go(func() { one.tell(one.look(ctx)) })
	}
	looking.Wait()
	return w.Flows(), ctx.Err()
}

// Verify compares the two ends of every flow of a network that ends at a site,
// whoever owns it, once and at once, as far back as cfg.Horizon and the origin's own
// one, and returns what it found in the order of the declaration. If repair is set,
// what is missing is sent again; Verify does not wait until that has come. It needs no
// watcher at this site; conn is connected there. While messages are on their way it
// waits for them, as long as ctx lets it.
//
// A flow that could not be compared has its cause in Comparison.Err. The error is of
// the arguments, the connection or ctx.
func Verify(ctx context.Context, conn *natsconn.Conn, n topology.Network, site string, cfg Config, repair bool) ([]Comparison, error) {
	w, err := onlooker(conn, n, site, cfg)
	if err != nil {
		return nil, err
	}
	defer w.asker.close()
	var all []Comparison
	for _, a := range arrivalsAt(n, site) {
		o := newCompared(w, a, w.cfg.Horizon)
		found, err := o.reconcile(ctx, repair)
		for errors.Is(err, errOnItsWay) && ctx.Err() == nil {
			found, err = o.reconcile(ctx, repair)
		}
		if err != nil {
			found.Err = reason(err)
		}
		all = append(all, found)
	}
	return all, ctx.Err()
}

// onlooker makes a watcher that does not run, and asks; its asker is open.
func onlooker(conn *natsconn.Conn, n topology.Network, site string, cfg Config) (*Watcher, error) {
	cfg = cfg.withDefaults()
	faults := cfg.faults()
	if conn == nil {
		faults = append(faults, errNoConnection)
	}
	if err := n.Validate(); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	a, err := openAsker(conn.NATS(), site)
	if err != nil {
		return nil, err
	}
	return &Watcher{conn: conn, cfg: cfg, log: cfg.Logger, site: site, asker: a, patience: noProgress, calm: calm}, nil
}

// arrivalsAt returns the flows of a network that end at a site.
func arrivalsAt(n topology.Network, site string) (all []arrival) {
	for _, f := range n.Flows {
		if f.To == site {
			all = append(all, arrivalOf(topology.Set{Network: n}, f))
		}
	}
	return all
}
