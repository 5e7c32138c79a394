package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/edge"
	"codeberg.org/dataverket/messaging/envelope"
)

// config is the service's environment, read once at its start.
type config struct {
	NATSURL     string // NATS_URL; with DATABASE_URL, or neither
	DatabaseURL string // DATABASE_URL

	APIAddr   string // HTTP_ADDR; default 127.0.0.1:8080
	ProbeAddr string // PROBE_ADDR, for the platform alone; default 127.0.0.1:8081

	// Callers is who may call the API, by token. API_TOKENS is a list of
	// token=user@tenant with commas between them.
	Callers map[string]edge.Caller

	// StopTimeout is what requests may take when the process stops, and after them the
	// handlers of messages. STOP_TIMEOUT; default 10s. Handlers that ignore their ctx
	// get 5 s more, the relay takes 5 s at most and the connections 10 s, so with the
	// default the platform has to wait 45 s before it kills.
	StopTimeout time.Duration
}

// local reports whether the service brings its own servers.
func (c config) local() bool { return c.NATSURL == "" && c.DatabaseURL == "" }

// readConfig reads the environment and reports every fault of it at once. No fault
// shows a URL or a token.
func readConfig(getenv func(string) string) (config, error) {
	or := func(name, standard string) string {
		if value := getenv(name); value != "" {
			return value
		}
		return standard
	}
	c := config{
		NATSURL: getenv("NATS_URL"), DatabaseURL: getenv("DATABASE_URL"),
		APIAddr: or("HTTP_ADDR", "127.0.0.1:8080"), ProbeAddr: or("PROBE_ADDR", "127.0.0.1:8081"),
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if (c.NATSURL == "") != (c.DatabaseURL == "") {
		fault("NATS_URL and DATABASE_URL: one of them is set: set both, or neither for servers that vanish with the process")
	}
	for _, addr := range [][2]string{{"HTTP_ADDR", c.APIAddr}, {"PROBE_ADDR", c.ProbeAddr}} {
		if _, _, err := net.SplitHostPort(addr[1]); err != nil {
			fault("%s: %q is not host:port", addr[0], addr[1])
		}
	}
	var err error
	if c.StopTimeout, err = time.ParseDuration(or("STOP_TIMEOUT", "10s")); err != nil || c.StopTimeout < time.Second {
		fault("STOP_TIMEOUT: is not a duration of at least 1s, such as 10s")
	}
	tokens := getenv("API_TOKENS")
	if tokens == "" && c.local() {
		tokens = "local=kari@tenant-1"
	}
	if c.Callers, err = readCallers(tokens); err != nil {
		fault("API_TOKENS: %w", err)
	}
	return c, errors.Join(faults...)
}

// readCallers reads token=user@tenant,… A real service asks identitet instead.
func readCallers(text string) (map[string]edge.Caller, error) {
	callers := map[string]edge.Caller{}
	for i, entry := range strings.Split(text, ",") {
		token, who, _ := strings.Cut(strings.TrimSpace(entry), "=")
		user, tenant, _ := strings.Cut(who, "@")
		actor, err := envelope.NewActor(envelope.ActorUser, user)
		if err != nil || token == "" || tenant == "" {
			return nil, fmt.Errorf("entry %d is not token=user@tenant", i+1)
		}
		callers[token] = edge.Caller{Actor: actor, TenantID: tenant}
	}
	return callers, nil
}
