package natsconn

import (
	"cmp"
	"os"
	"runtime/debug"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The pace of the connection. Options may change it, for tests mostly.
const (
	reconnectWait      = 500 * time.Millisecond
	reconnectJitter    = 250 * time.Millisecond
	reconnectJitterTLS = time.Second
	pingInterval       = 10 * time.Second
	maxPings           = 2
)

// The bounds of asynchronous publishing.
const (
	// maxPending messages without an answer are enough to keep a stream of
	// three replicas busy (79k to 113k messages a second measured) and bound
	// the memory; the client's default is 4000.
	maxPending = 256

	// publishTimeout ends the wait for an answer that never comes. The client's
	// default is none: an answer lost without a disconnect then hangs its
	// future, and PublishAsyncComplete, for ever (measured).
	publishTimeout = 5 * time.Second
)

// paceOptions come before Config.Options, so that a test may be faster.
func paceOptions(cfg Config) []nats.Option {
	return []nats.Option{
		// The default waits 2 s; half a second is soon enough to notice and,
		// with the jitter, spreads a fleet that lost the same server.
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectJitter, reconnectJitterTLS),
		// A dead peer (cable pulled, no FIN) is noticed after 20 to 30 s; the
		// default interval of 2 min needs more than 4 min.
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(maxPings),
		nats.Timeout(cfg.ConnectTimeout),
		// A write to a peer that does not read any more blocks its caller; the
		// default lets it for a minute.
		nats.FlusherTimeout(publishTimeout),
	}
}

// fixedOptions come after Config.Options: the promises of this package rest on
// them.
func fixedOptions(cfg Config, st *state) []nats.Option {
	opts := []nats.Option{
		// Visible in the server's monitoring and logs.
		nats.Name(cmp.Or(cfg.Name, defaultName(cfg))),
		// The default of 60 attempts closes the connection for good after an
		// outage of some minutes; nothing short of a restart opens it again.
		nats.MaxReconnects(-1),
		// Start while the broker is down. The first success is then reported to
		// the connect handler, not to the reconnect handler.
		nats.RetryOnFailedConnect(!cfg.FailFast),
		// Two identical authentication errors otherwise close the connection
		// for good, which turns a rotation of credentials into an outage.
		nats.IgnoreAuthErrorAbort(),
		// Never buffer while disconnected: a publish fails at once with
		// nats.ErrReconnectBufExceeded and is surely not sent, instead of being
		// sent, or not, at some later time.
		nats.ReconnectBufSize(-1),
		// A denied subscription returns its error to the caller.
		nats.PermissionErrOnSubscribe(true),
		// Drain ends by our own budget, which must come first to be reported.
		nats.DrainTimeout(cfg.DrainTimeout + time.Second),
		// Handlers and not the status channel: that one drops events when it is
		// full, and a dropped event is a wrong state.
		nats.ConnectHandler(st.onConnect),
		nats.ReconnectHandler(st.onReconnect),
		nats.DisconnectErrHandler(st.onDisconnect),
		nats.ReconnectErrHandler(st.onAttemptFailed),
		nats.ClosedHandler(st.onClosed),
		// A denied publish is reported here and nowhere else.
		nats.ErrorHandler(st.onError),
	}
	if cfg.InboxPrefix != "" {
		// Permissions can then give each service its own answers only.
		opts = append(opts, nats.CustomInboxPrefix(cfg.InboxPrefix))
	}
	if cfg.CredentialsFile != "" {
		opts = append(opts, nats.UserCredentials(cfg.CredentialsFile))
	}
	return opts
}

func natsOptions(cfg Config, st *state) []nats.Option {
	opts := append(paceOptions(cfg), cfg.Options...)
	return append(opts, fixedOptions(cfg, st)...)
}

func newJetStream(nc *nats.Conn, cfg Config) (jetstream.JetStream, error) {
	return jetstream.New(nc,
		jetstream.WithPublishAsyncMaxPending(maxPending),
		jetstream.WithPublishAsyncTimeout(publishTimeout),
		// A denied or unanswered API call lasts until its context ends; this
		// bounds the ones whose context has no deadline.
		jetstream.WithDefaultTimeout(cfg.RequestTimeout),
	)
}

// defaultName is "<service>/<module version>/<host>", without the parts that
// the machine does not tell.
func defaultName(cfg Config) string {
	name := "dataverket"
	if cfg.Service.Valid() {
		name = cfg.Service.String()
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		name += "/" + info.Main.Version
	}
	if host, err := os.Hostname(); err == nil {
		name += "/" + host
	}
	return name
}
