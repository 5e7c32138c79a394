package contract_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/subject"
)

// fakeTB remembers what a test would have said.
type fakeTB struct{ logged, failed string }

func (*fakeTB) Helper() {}
func (f *fakeTB) Logf(format string, args ...any) {
	f.logged += fmt.Sprintf(format, args...)
}
func (f *fakeTB) Fatalf(format string, args ...any) {
	f.failed += fmt.Sprintf(format, args...)
}

func catalogue(t *testing.T, produced ...contract.Message) contract.Catalogue {
	t.Helper()
	c, err := contract.New(subject.Maskin, contract.Produces(produced...))
	require.NoError(t, err)
	return c
}

// The life of a lock, in the one line that a service writes. It sets the
// environment, so it is not parallel; nothing else reads that variable.
func TestCheckHoldsALockThroughItsLife(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contracts.lock.json")
	check := func(update string, produced ...contract.Message) fakeTB {
		t.Setenv(contract.UpdateLock, update)
		var tb fakeTB
		contract.Check(&tb, catalogue(t, produced...), path)
		return tb
	}
	content := func() string {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(data)
	}
	v1, v2 := event[seenV1]("server", "seen", 1), event[seenV2]("server", "seen", 2)

	// There is none yet.
	require.Contains(t, check("", v1).failed, "contracts.lock.json does not exist yet.\nIf that is meant, write it with\n  DVMSG_UPDATE_LOCK=1 go test")
	require.NoFileExists(t, path)
	created := check("1", v1)
	require.Empty(t, created.failed)
	require.Contains(t, created.logged, "written; review its diff and commit it\n  compatible: maskin.server.seen v1 (message-added)")
	first := content()
	require.Equal(t, fakeTB{}, check("", v1))
	require.Equal(t, fakeTB{}, check("1", v1), "nothing is written where nothing changed")

	// A silent change of meaning fails, with and without the permission to update.
	type silent struct {
		Name int `json:"name"`
	}
	for _, update := range []string{"", "1"} {
		require.Contains(t, check(update, event[silent]("server", "seen", 1)).failed,
			"breaking: maskin.server.seen v1: name (type-changed): from string to integer")
		require.Equal(t, first, content())
	}

	// What is compatible demands that the lock is updated.
	type wider struct {
		Name string `json:"name"`
		Rack string `json:"rack,omitempty"`
	}
	grown := event[wider]("server", "seen", 1)
	require.Contains(t, check("", grown).failed, "is behind the code:\n  compatible: maskin.server.seen v1: rack (optional-property-added)")
	require.Equal(t, first, content())
	require.Empty(t, check("1", grown).failed)
	require.Equal(t, fakeTB{}, check("", grown))

	// So does a new version, and the end of an old one.
	require.Contains(t, check("", grown, v2).failed, "version-added")
	require.Empty(t, check("1", grown, v2).failed)
	require.Contains(t, check("", v2).failed, "warning: maskin.server.seen v1 (retired)")
	require.Empty(t, check("1", v2).failed)
	require.Contains(t, content(), `"retired": true`)
	require.Equal(t, fakeTB{}, check("", v2))
	require.Contains(t, check("1", v2, v1).failed, "", "what was locked as wider")
}

func TestCheckRefusesAFileThatIsNoLockOfTheService(t *testing.T) {
	t.Parallel()
	check := func(content string) string {
		path := filepath.Join(t.TempDir(), "x.json")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		var tb fakeTB
		contract.Check(&tb, catalogue(t), path)
		return tb.failed
	}
	require.Contains(t, check(`<<<<<<< ours`), "x.json: contract: parse list: ")
	require.Contains(t, check(`{"format":1,"service":"maskin","contracts":[]}`), `is no lock, but an export`)
	require.Contains(t, check(`{"format":1,"lock":true,"service":"nett","contracts":[]}`), `the lock is of service "nett"`)
	require.Empty(t, check(`{"format":1,"lock":true,"service":"maskin","contracts":[]}`))
	var tb fakeTB
	contract.Check(&tb, catalogue(t), t.TempDir())
	require.Contains(t, tb.failed, "is a directory")
}

// The source of a service whose author forgot a message.
const forgetful = `package maskinevents

import (
	dv "codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

var (
	Listed = dv.MustEvent[A](dv.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "seen", Version: 1})
	// Retired is in the lock alone.
	Retired = dv.MustEvent[A](dv.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "gone", Version: 1})
	Forgotten = dv.MustEvent[A](dv.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "seen", Version: 2}, dv.Upcast(Listed, up))
	Asked = dv.MustCommand[A](dv.CommandSpec{Service: subject.Maskin, Entity: "server", Action: "see", Version: 7})
	Foreign = dv.MustEvent[A](dv.EventSpec{Service: subject.Nett, Entity: "server", Verb: "seen", Version: 1})
	Computed = dv.MustEvent[A](spec("server", 3))
	Other = other.MustEvent[A](dv.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "other", Version: 1})
)
`

// A catalogue knows what it is given; what nobody listed would not be locked, and
// nobody would notice.
func TestCheckNoticesAMessageThatIsDeclaredAndNotListed(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a.go": forgetful, "broken.go": "package", "other_test.go": forgetful} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	seen, gone := event[seenV1]("server", "seen", 1), event[seenV1]("server", "gone", 1)
	lock, _, err := contract.Accept(contract.NewLock("maskin"), list(t, seen, gone))
	require.NoError(t, err)
	lock, _, err = contract.Accept(lock, list(t, seen))
	require.NoError(t, err)
	data, err := lock.Encode()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "contracts.lock.json"), data, 0o600))

	t.Chdir(dir)
	var tb fakeTB
	contract.Check(&tb, catalogue(t, seen), "contracts.lock.json")
	require.Contains(t, tb.failed, "neither in the catalogue nor in contracts.lock.json: "+
		"Forgotten (maskin.server.seen v2), Asked (maskin.server.see.requested v7)\nList it in Produces or Handles, or give what carries it forward an envelope.Upcast.")
	require.NotContains(t, tb.failed, "Retired")
}
