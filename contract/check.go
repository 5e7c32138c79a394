package contract

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// UpdateLock is the environment variable that lets [Check] write the lock file:
//
//	DVMSG_UPDATE_LOCK=1 go test ./maskinevents
//
// Any value but the empty one will do. It must not be set where the check is to
// hold, such as in CI.
const UpdateLock = "DVMSG_UPDATE_LOCK"

// TB is the part of testing.TB that [Check] needs: production packages that import
// this one link no test framework.
type TB interface {
	// Helper marks the caller as a helper.
	Helper()
	// Logf writes to the test's log.
	Logf(format string, args ...any)
	// Fatalf fails and ends the test.
	Fatalf(format string, args ...any)
}

// Check fails the test unless the lock file at path says what the catalogue says.
// It is the one line of a service's test that keeps the meaning of a version from
// changing silently (requirement E3):
//
//	func TestContractsAreLocked(t *testing.T) {
//		contract.Check(t, maskinevents.Catalogue, "contracts.lock.json")
//	}
//
// The failure names each property, the rule and what to do. It also fails if the
// source of the test's package declares a message, by envelope.MustEvent or
// MustCommand over literals, that neither catalogue nor lock knows: what is not
// listed is not locked. With [UpdateLock] set
// it writes what is compatible, and new versions, into the file, which is created
// if it is not there; a breaking change is refused all the same. Commit the file:
// its diff is what a reviewer looks at. path is relative to the package's folder.
func Check(t TB, c Catalogue, path string) {
	t.Helper()
	update := os.Getenv(UpdateLock) != ""
	lock, err := readLock(path, c.list.Service)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		t.Fatalf("contract: %s: %v", path, err)
		return
	}
	accepted, changes, err := Accept(lock, c.list)
	forgotten := unlisted(declaredIn(".", c.list.Service), c.list, lock)
	switch {
	case err != nil:
		t.Fatalf("contract: %s: %v", path, err)
	case len(forgotten) > 0:
		t.Fatalf("contract: declared in this package, and neither in the catalogue nor in %s: %s\n"+
			"List it in Produces or Handles, or give what carries it forward an envelope.Upcast.",
			path, strings.Join(forgotten, ", "))
	case len(changes) == 0 && !missing:
	case !update:
		t.Fatalf("contract: %s %s", path, explain(changes, missing))
	default:
		if err := write(path, accepted); err != nil {
			t.Fatalf("contract: %s: %v", path, err)
			return
		}
		t.Logf("contract: %s: written; review its diff and commit it%s", path, lines(changes))
	}
}

// readLock reads a lock file; one that is missing is an empty lock.
func readLock(path, service string) (List, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return NewLock(service), err
	}
	l, err := Parse(data)
	if err == nil && !l.Lock {
		err = errors.New(`is no lock, but an export ("lock" is missing): write it with ` + UpdateLock + "=1, or dvmsg contracts lock")
	}
	return l, err
}

// write replaces a lock file.
func write(path string, l List) error {
	data, err := l.Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644) // a source file
}

// explain says what the lock lacks and how to write it.
func explain(changes []Change, missing bool) string {
	text := "is behind the code:" + lines(changes)
	if missing {
		text = "does not exist yet."
	}
	return text + fmt.Sprintf("\nIf that is meant, write it with\n  %s=1 go test -run <this test> <this package>\nand commit it.", UpdateLock)
}

func lines(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		b.WriteString("\n  " + c.String())
	}
	return b.String()
}
