package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestTopologyServerConfigIsWrittenAndChecked(t *testing.T) {
	t.Parallel()
	network := topology.Network{
		Sites: []topology.Site{{Name: "osl1", Domain: "osl1", Accepts: []string{"nats.osl1:7422"}}, {Name: "trd1", Domain: "trd1"}},
		Flows: []topology.Flow{{From: "osl1", To: "trd1", Cargo: topology.CargoEvents, Service: subject.Maskin}},
	}
	file := writeSet(t, network.At("osl1", maskinSet()))
	dvmsg := func(args ...string) result {
		return environment{}.dvmsg(t, append([]string{"topology", "server-config", "--file", file}, args...)...)
	}
	want, err := network.ServerConfig("osl1")
	require.NoError(t, err)
	text := dvmsg("--site", "osl1").ok(t).out
	require.Equal(t, want, text)
	require.Equal(t, want, decode[topologyServerConfigResult](t, dvmsg("--site", "osl1", "--json").ok(t)).Config)

	filled := strings.NewReplacer("$DV_LEAF_TRD1_PASSWORD", "x", "$DV_LEAF_LISTEN", "x", "$DV_SERVER_NAME", "x", "$DV_LISTEN", "x",
		"$DV_STORE_DIR", "x", "$DV_USER", "x", "$DV_PASSWORD", "x").Replace(text)
	good := writeFile(t, "good.conf", []byte(filled))
	require.Contains(t, dvmsg("--site", "osl1", "--check", good).ok(t).out, "as the network needs it")
	bad := writeFile(t, "bad.conf", []byte(strings.Replace(filled, `"$JS.FC.>"`, "", 1)))
	require.Contains(t, dvmsg("--site", "osl1", "--check", bad).failed(t, exitFound, "1 fault found").out, "flow_control: ")
	found := decode[topologyServerConfigResult](t, dvmsg("--site", "osl1", "--check", bad, "--json").failed(t, exitFound))
	require.Equal(t, "flow_control", found.Findings[0].Kind)
	require.Equal(t, "user leaf_trd1.publish.allow", found.Findings[0].Object)

	dvmsg("--site", "bgo1").failed(t, exitUsage, "has no site")
	dvmsg().failed(t, exitUsage, "--site is missing")
	dvmsg("--site", "osl1", "--check", "nowhere.conf").failed(t, exitFailure, "nowhere.conf")
}
