package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/edge"
)

func environment(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestEmptyEnvironmentIsALocalService(t *testing.T) {
	t.Parallel()
	cfg, err := readConfig(environment(nil))
	require.NoError(t, err)
	require.True(t, cfg.local())
	require.Equal(t, config{
		APIAddr: "127.0.0.1:8080", ProbeAddr: "127.0.0.1:8081", StopTimeout: 10 * time.Second,
		Callers: map[string]edge.Caller{"local": {Actor: "user:kari", TenantID: "tenant-1"}},
	}, cfg)
}

func TestEveryFaultOfTheEnvironmentIsReportedAndNoSecret(t *testing.T) {
	t.Parallel()
	_, err := readConfig(environment(map[string]string{
		"NATS_URL": "nats://maskin:secret@broker", "HTTP_ADDR": "8080", "PROBE_ADDR": "none", "STOP_TIMEOUT": "10",
		"API_TOKENS": "secret=kari@tenant-1,secret",
	}))
	for _, want := range []string{
		"NATS_URL and DATABASE_URL: one of them is set", `HTTP_ADDR: "8080" is not host:port`, `PROBE_ADDR: "none"`,
		"STOP_TIMEOUT: is not a duration", "API_TOKENS: entry 2 is not token=user@tenant",
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "secret")

	_, err = readConfig(environment(map[string]string{"NATS_URL": "nats://broker", "DATABASE_URL": "postgres://db"}))
	require.ErrorContains(t, err, "API_TOKENS: entry 1", "with real servers there is no default caller")
}
