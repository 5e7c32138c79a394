package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

type (
	seenV1 struct {
		Name string `json:"name"`
	}
	seenV1Wider struct {
		Name string `json:"name"`
		Rack string `json:"rack,omitempty"`
	}
	seenV2 struct {
		Host string `json:"host"`
	}
)

// seen is an event of maskin, in a version and with some data.
func seen[T any](version int) contract.Message {
	return envelope.MustEvent[T](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "seen", Version: version})
}

// exported writes the list of a catalogue, as a service does.
func exported(t *testing.T, messages ...contract.Message) string {
	t.Helper()
	data, err := json.Marshal(contract.MustNew(subject.Maskin, contract.Produces(messages...)))
	require.NoError(t, err)
	return writeFile(t, "exported.json", data)
}

// verdicts is what a comparison said, without words.
func verdicts(changes []contract.Change) (all []string) {
	for _, c := range changes {
		all = append(all, string(c.Verdict)+" "+string(c.Rule))
	}
	return all
}

func TestContractsAreLockedAndNothingBreakingGetsIn(t *testing.T) {
	t.Parallel()
	lock := filepath.Join(t.TempDir(), "contracts.lock.json")
	dvmsg := func(list string, args ...string) result {
		return environment{}.dvmsg(t, append([]string{"contracts", "lock", list, "--lock", lock}, args...)...)
	}
	content := func() string {
		data, err := os.ReadFile(lock)
		require.NoError(t, err)
		return string(data)
	}
	v1 := exported(t, seen[seenV1](1))

	require.Contains(t, dvmsg(v1, "--dry-run").ok(t).out, "would be written: 0 breaking, 0 warnings, 1 compatible")
	require.NoFileExists(t, lock)
	require.Contains(t, dvmsg(v1).ok(t).out, "written: 0 breaking, 0 warnings, 1 compatible; review its diff and commit it")
	require.Contains(t, dvmsg(v1).ok(t).out, "says the same already")
	first := content()

	for _, dry := range []string{"--dry-run=true", "--dry-run=false"} {
		r := dvmsg(exported(t, seen[seenV2](1)), dry).failed(t, exitFailure, "the meaning of a locked version changed",
			"breaking: maskin.server.seen v1: name (required-property-removed)", "Version: 2, with envelope.Upcast from version 1")
		require.Empty(t, r.out)
		require.Equal(t, first, content())
	}

	got := decode[contractsLockResult](t, dvmsg(exported(t, seen[seenV1Wider](1), seen[seenV2](2)), "--json").ok(t))
	require.Equal(t, []string{"compatible optional-property-added", "compatible version-added"}, verdicts(got.Changes))
	require.Contains(t, dvmsg(exported(t, seen[seenV2](2))).ok(t).out, "warning: maskin.server.seen v1 (retired)")
	l := decode[contractsListResult](t, environment{}.dvmsg(t, "contracts", "list", lock, "--json").ok(t))
	require.True(t, l.Lock)
	require.True(t, l.Contracts[0].Retired)
	require.False(t, l.Contracts[1].Retired)
	require.Equal(t, "urn:dataverket:schema:maskin.server.seen:v2", l.Contracts[1].DataSchema)

	require.Contains(t, dvmsg(v1, "--lock", v1).failed(t, exitUsage).err, "is an exported list and no lock")
}

func TestContractsBreakingPassesWhatIsCompatible(t *testing.T) {
	t.Parallel()
	v1, wider, broken := exported(t, seen[seenV1](1)), exported(t, seen[seenV1Wider](1)), exported(t, seen[seenV2](1))
	both := exported(t, seen[seenV1](1), seen[seenV2](2))
	run := func(verb, old, next string, more ...string) result {
		return environment{}.dvmsg(t, append([]string{"contracts", verb, old, next}, more...)...)
	}
	require.Contains(t, run("diff", v1, v1).ok(t).out, "contracts of maskin: no difference")
	require.Contains(t, run("diff", v1, wider).failed(t, exitFound, "contracts of maskin: 0 breaking, 0 warnings, 1 compatible").out,
		"compatible: maskin.server.seen v1: rack (optional-property-added)")
	require.Contains(t, run("breaking", v1, wider).ok(t).out, "optional-property-added")
	require.Contains(t, run("breaking", v1, both).ok(t).out, "version-added")
	require.Contains(t, run("breaking", wider, v1).ok(t).out, "warning: maskin.server.seen v1: rack (optional-property-removed)")
	run("breaking", v1, broken).failed(t, exitFound, "contracts of maskin: 2 breaking, 0 warnings, 0 compatible")
	got := decode[contractsDiffResult](t, run("breaking", v1, broken, "--json").failed(t, exitFound))
	require.True(t, got.Breaking)
	require.Equal(t, []string{"breaking required-property-removed", "breaking required-property-added"}, verdicts(got.Changes))
	require.Empty(t, decode[contractsDiffResult](t, run("diff", v1, v1, "--json").ok(t)).Changes)

	data, err := os.ReadFile(v1)
	require.NoError(t, err)
	environment{}.piped(t, string(data), "contracts", "breaking", "-", broken).failed(t, exitFound)
	other := writeFile(t, "nett.json", []byte(`{"format":1,"service":"nett","contracts":[]}`))
	run("diff", v1, other).failed(t, exitUsage, `OLD is of service "maskin", NEW of "nett"`)
}

func TestContractsLintFindsABadName(t *testing.T) {
	t.Parallel()
	good := exported(t, seen[seenV1](1))
	require.Contains(t, environment{}.dvmsg(t, "contracts", "lint", good, good).ok(t).out, "2 messages in 2 files: every name follows the rules")
	bad := writeFile(t, "bad.json", []byte(`{"format":1,"service":"maskin","contracts":[{"type":"maskin.Server.seen","version":1,
		"kind":"event","direction":"produces","subject":"dv.maskin.evt.Server.seen","visibility":"internal","schema":{"type":"object"}}]}`))
	r := environment{}.dvmsg(t, "contracts", "lint", good, bad).failed(t, exitFound, "1 finding")
	require.Contains(t, r.out, `bad.json: maskin.Server.seen v1: type: entity`)
	got := decode[contractsLintResult](t, environment{}.dvmsg(t, "contracts", "lint", bad, "--json").failed(t, exitFound))
	require.Equal(t, "type", got.Findings[0].Field)
	environment{}.dvmsg(t, "contracts", "lock", bad, "--lock", filepath.Join(t.TempDir(), "x")).failed(t, exitFailure, "type: entity")
	environment{}.dvmsg(t, "contracts", "asyncapi", bad).failed(t, exitFailure, "type: entity")
	environment{}.piped(t, `{"format":1,"contracts":[{},{}]}`, "contracts", "lint", "-").failed(t, exitUsage, "3 faults", "FILE -: parse list: contracts[0]")
}

// Each service locks what it sees; nobody else sees that two of them mean different
// things by one version.
func TestContractsLintFindsAVersionThatTwoServicesDescribeDifferently(t *testing.T) {
	t.Parallel()
	heard := func(m contract.Message) string {
		data, err := json.Marshal(contract.MustNew(subject.Nett, contract.Handles(m)))
		require.NoError(t, err)
		return writeFile(t, "nett.json", data)
	}
	owner := exported(t, seen[seenV1](1))
	lint := func(files ...string) result {
		return environment{}.dvmsg(t, append([]string{"contracts", "lint"}, files...)...)
	}
	for _, alike := range []string{heard(seen[seenV1](1)), heard(seen[seenV1Wider](1)), heard(seen[seenV2](2))} {
		lint(alike, owner).ok(t)
	}
	other := heard(seen[seenV2](1))
	for _, files := range [][]string{{owner, other}, {other, owner}} {
		require.Contains(t, lint(files...).failed(t, exitFound, "2 findings").out,
			other+": maskin.server.seen v1: schema: is another than in "+owner+": name (required-property-removed): ")
	}
}

func TestContractsListSchemaAndAsyncAPIArePrinted(t *testing.T) {
	t.Parallel()
	file := exported(t, seen[seenV1](1), seen[seenV2](2))
	requireGolden(t, "contracts-list.golden", environment{}.dvmsg(t, "contracts", "list", file).ok(t).out)
	requireGolden(t, "contracts-list.json", environment{}.dvmsg(t, "contracts", "list", file, "--json").ok(t).out)
	requireGolden(t, "contracts-schema.json", environment{}.dvmsg(t, "contracts", "schema", "maskin.server.seen", file).ok(t).out)
	schema := func(args ...string) result {
		return environment{}.dvmsg(t, append([]string{"contracts", "schema"}, args...)...)
	}
	require.Contains(t, schema("maskin.server.seen", file, "--version", "1").ok(t).out, `"name"`)
	require.Equal(t, schema("maskin.server.seen", file).out, schema("maskin.server.seen", file, "--json").ok(t).out)
	schema("maskin.server.gone", file).failed(t, exitFailure, `no message of type "maskin.server.gone"`)
	schema("maskin.server.seen", file, "--version", "3").failed(t, exitFailure, `no version 3 of "maskin.server.seen", but v1 v2`)

	r := environment{}.dvmsg(t, "contracts", "asyncapi", file, "--title", "Machines", "--release", "2.4.0").ok(t)
	document := decode[map[string]any](t, r)
	require.Equal(t, map[string]any{"title": "Machines", "version": "2.4.0"}, document["info"])
	require.Equal(t, r, environment{}.dvmsg(t, "contracts", "asyncapi", file, "--title", "Machines", "--release", "2.4.0", "--json"))
	require.Contains(t, environment{}.piped(t, `{"format":1,"service":"maskin","contracts":[]}`, "contracts", "list", "-").ok(t).out, "service maskin: no messages")
}
