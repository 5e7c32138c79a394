package topology_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// contract is the fixture with defaults written out, as a contract file has
// them, and one durable for each kind of start.
func contract() topology.Set {
	set := plattform()
	set.Streams[1].MaxMsgs, set.Streams[1].Rate, set.Streams[1].DenyDelete = 1_000_000, 12.5, true
	set.Consumers[0].AckWait, set.Consumers[0].MaxAckPending = topology.DefaultAckWait, topology.DefaultMaxAckPending
	for durable, start := range map[string]topology.Start{
		"plattform__from_maskin__seq":  topology.StartAtSequence(42),
		"plattform__from_maskin__time": topology.StartAtTime(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 3600))),
	} {
		c := set.Consumers[1]
		c.Durable, c.Start = durable, start
		set.Consumers = append(set.Consumers, c)
	}
	if set.Consumers[2].Durable > set.Consumers[3].Durable { // maps have no order
		set.Consumers[2], set.Consumers[3] = set.Consumers[3], set.Consumers[2]
	}
	return set
}

// The contract file is read by operators and other languages: its form changes
// only by decision.
func TestContractFileIsAsBefore(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	require.NoError(t, enc.Encode(contract()))
	got := b.String()
	golden := filepath.Join("testdata", "set.golden.json")
	if os.Getenv("DVMSG_UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
	parsed, err := topology.ParseSet(want)
	require.NoError(t, err)
	require.Equal(t, contract(), parsed)
}

func TestASetSurvivesItsJSONForm(t *testing.T) {
	t.Parallel()
	for _, set := range []topology.Set{contract(), maskin(), {Service: subject.Nett}} {
		text, err := json.Marshal(set)
		require.NoError(t, err)
		parsed, err := topology.ParseSet(text)
		require.NoError(t, err)
		require.Equal(t, set, parsed)
		var decoded topology.Set
		require.NoError(t, json.Unmarshal(text, &decoded))
		require.Equal(t, set, decoded)
	}
	_, err := json.Marshal(topology.Set{})
	require.Error(t, err, "nobody could read it back")
}

func TestParseSetIsStrict(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(contract())
	require.NoError(t, err)
	good := string(text)
	for _, c := range []struct{ from, to, reason string }{
		{`{"service"`, `{"owner":"x","service"`, "unknown field"},
		{`"rate":12.5`, `"rate":12.5,"retries":1`, "unknown field"},
		{`"ack_wait":"30s"`, `"ack_wait":"30s","back_off":"1s"`, "unknown field"},
		{`{"service"`, `{"Service":"nett","service"`, "not spelled"},
		{`{"service"`, `{"ſervice":"nett","service"`, "not spelled"},
		{`"rate":12.5`, `"rate":12.5,"rate":0`, "given twice"},
		{`"rate":12.5`, `"rate":12.5,"Rate":0`, "not spelled"},
		{`"retention":"limits"`, `"retention":"workqueue"`, "streams[0].retention: is workqueue; the platform knows limits only"},
		{`"retention":"limits",`, ``, "streams[0].retention"},
		{`"discard":"new"`, `"discard":"old"`, "streams[0].discard"},
		{`"storage":"file"`, `"storage":"memory"`, "streams[0].storage"},
		{`"ack_policy":"explicit"`, `"ack_policy":"none"`, "consumers[0].ack_policy"},
		{`"max_deliver":-1`, `"max_deliver":20`, "consumers[0].max_deliver"},
		{`"max_age":"168h0m0s"`, `"max_age":"7d"`, "unknown unit"},
		{`"max_age":"168h0m0s"`, `"max_age":604800`, "cannot unmarshal number"},
		{`"max_age":"168h0m0s",`, ``, "MaxAge: 0s is below"},
		{`"replicas":1`, `"replicas":1.5`, "cannot unmarshal"},
		{`"max_bytes":10737418240`, `"max_bytes":0`, "MaxBytes"},
		{`"service":"plattform"`, `"service":"bank"`, "service"},
		{`"dv.maskin.evt.\u003e"`, `"maskin.>"`, "filter"},
		{`"stream":"DV_MASKIN_EVT"`, `"stream":"DV_NETT_EVT"`, "is not in Set.Streams"},
		{`"policy":"new"`, `"policy":"last"`, `"last" is not one of`},
		{`"policy":"new"`, `"policy":"time"`, "start.time"},
		{`"policy":"new"`, `"policy":"new","sequence":1`, "start.sequence"},
		{`"policy":"new"`, `"policy":"new","time":"2026-01-01T00:00:00Z"`, "start.time"},
		{`"policy":"sequence","sequence":42`, `"policy":"sequence"`, "sequence 0"},
		{`"start":{"policy":"new"}`, `"start":{}`, "start.policy"},
	} {
		require.Contains(t, good, c.from)
		_, err := topology.ParseSet([]byte(strings.Replace(good, c.from, c.to, 1)))
		require.ErrorContains(t, err, c.reason, "%s → %s", c.from, c.to)
	}
	for text, reason := range map[string]string{
		good + good:                 "something after the object",
		good + "x":                  "something after the object",
		good[:len(good)-1]:          "EOF",
		"":                          "EOF",
		"null":                      "Set.Service",
		"[]":                        "cannot unmarshal array",
		"7":                         "cannot unmarshal number",
		strings.Repeat("[", 100):    "nested too deep",
		strings.Repeat(" ", 2<<20):  "at most 1048576 are allowed",
		`{"service":{"service":1}}`: "topology: parse set",
	} {
		_, err := topology.ParseSet([]byte(text))
		require.ErrorContains(t, err, reason, "%.40s", text)
	}
}

// Whatever is accepted is valid, and says the same when written and read again.
func FuzzParseSet(f *testing.F) {
	for _, set := range []topology.Set{contract(), maskin(), {Service: subject.Nett}} {
		text, err := json.Marshal(set)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Add([]byte(`{"service":"maskin","streams":null,"consumers":null}`))
	f.Add([]byte(`{"service":"maskin","Service":"nett"}`))
	f.Add([]byte(`[[[[[[[[[[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := topology.ParseSet(data)
		if err != nil {
			return
		}
		require.NoError(t, set.Validate())
		once, err := json.Marshal(set)
		require.NoError(t, err)
		again, err := topology.ParseSet(once)
		require.NoError(t, err)
		twice, err := json.Marshal(again)
		require.NoError(t, err)
		require.True(t, bytes.Equal(once, twice))
	})
}
