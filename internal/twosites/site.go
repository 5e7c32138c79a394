package twosites

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/topology"
)

const (
	// user is that of the services at either site, and its password.
	user = "dv"
	// linkReconnect is how soon the link is dialled again after a cut.
	linkReconnect = 50 * time.Millisecond
)

// Site is one of two sites: a NATS server, or a cluster of three, with JetStream
// in a domain of its own. Its methods are safe for concurrent use.
type Site struct {
	name    string
	server  *natsserver.Server // nil for a cluster
	cluster *natsserver.Cluster
}

// startSite runs the servers of one site. leafPorts are where those of the site
// that accepts do so; their number is that of the servers of either site.
func startSite(ctx context.Context, dir string, n topology.Network, name string, leafPorts []int,
	write func(topology.Network, string) (string, error)) (*Site, error) {
	text, err := write(n, name)
	if err != nil {
		return nil, err
	}
	configure := func(node int, o *natsd.Options) error {
		variables := variables(n, name, leafPorts[node], o)
		host, port := o.Host, o.Port // stay the same over a restart
		o.StoreDir = ""              // the text names it, and it may be named once only
		err := o.ProcessConfigString(variables + text)
		o.Host, o.Port = host, port
		o.LeafNode.ReconnectInterval = linkReconnect
		if o.Cluster.Name != "" {
			o.Cluster.Name = name // two clusters of one name would take each other for one
		}
		return err
	}
	// Later starts have no way to say what is wrong with the text.
	if err := configure(0, &natsd.Options{StoreDir: dir}); err != nil {
		return nil, fmt.Errorf("twosites: configuration of site %s: %w", name, err)
	}
	site := &Site{name: name}
	dir = filepath.Join(dir, name)
	if len(leafPorts) == 1 {
		site.server, err = natsserver.Start(ctx, dir, natsserver.Options{
			TCP: true, Name: name, Configure: func(o *natsd.Options) { _ = configure(0, o) },
		})
	} else {
		site.cluster, err = natsserver.StartCluster(ctx, dir, natsserver.ClusterOptions{
			Account:   topology.Account,
			Configure: func(node int, o *natsd.Options) { o.ServerName = name + "_" + o.ServerName; _ = configure(node, o) },
		})
	}
	if err != nil {
		return nil, err
	}
	return site, nil
}

// variables are what the environment of a server would say.
func variables(n topology.Network, name string, leafPort int, o *natsd.Options) string {
	var b strings.Builder
	set := func(name, value string) { fmt.Fprintf(&b, "%s: %q\n", name, value) }
	set("DV_SERVER_NAME", o.ServerName)
	set("DV_LISTEN", loopback+":-1")
	set("DV_STORE_DIR", o.StoreDir)
	set("DV_USER", user)
	set("DV_PASSWORD", user)
	for _, other := range n.Sites {
		link := "DV_LEAF_" + strings.ToUpper(other.Name)
		switch {
		case other.Name == name && len(other.Accepts) > 0:
			set("DV_LEAF_LISTEN", net.JoinHostPort(loopback, strconv.Itoa(leafPort)))
		case other.Name != name && len(other.Accepts) == 0:
			set(link+"_PASSWORD", user)
		case other.Name != name:
			for i, address := range other.Accepts {
				variable := link + "_URL"
				if i > 0 {
					variable += fmt.Sprintf("_%d", i+1)
				}
				set(variable, "nats-leaf://leaf_"+name+":"+user+"@"+address)
			}
		}
	}
	return b.String()
}

// Name is the site's name and domain.
func (s *Site) Name() string { return s.name }

// Nodes are the site's servers; each may be stopped and restarted by itself.
func (s *Site) Nodes() []*natsserver.Server {
	if s.cluster != nil {
		return s.cluster.Nodes()
	}
	return []*natsserver.Server{s.server}
}

// Cluster is the site's cluster, nil where it is a single server.
func (s *Site) Cluster() *natsserver.Cluster { return s.cluster }

// URL is the site's address with its user and password, for a client outside this
// process as well.
func (s *Site) URL() string {
	return strings.ReplaceAll(s.Address(), "nats://", "nats://"+user+":"+user+"@")
}

// Address is URL without them; see [Site.User].
func (s *Site) Address() string {
	if s.cluster != nil {
		return s.cluster.URL()
	}
	return s.server.URL()
}

// User lets a client in that dials [Site.Address].
func (s *Site) User() nats.Option { return nats.UserInfo(user, user) }

// Stop shuts the site's servers down in an orderly way. Streams and addresses
// stay for Restart.
func (s *Site) Stop() {
	if s.cluster != nil {
		s.cluster.Stop()
	}
	if s.server != nil {
		s.server.Stop()
	}
}

// Restart stops the site's servers where they run and starts them again with
// their streams and addresses.
func (s *Site) Restart(ctx context.Context) error {
	s.Stop()
	for _, node := range s.Nodes() {
		if err := node.Restart(ctx); err != nil {
			return err
		}
	}
	if s.cluster == nil {
		return nil
	}
	return s.cluster.Ready(ctx)
}
