package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"codeberg.org/dataverket/messaging/contract"
)

// lockName is how a service calls its lock.
const lockName = "contracts.lock.json"

const contractsAbout = `A FILE is a service's lock, ` + lockName + `, or the list that its catalogue
exports with json.Marshal; - is the standard input. Nothing is contacted.`

func contractsCommands() table {
	return table{
		{
			path: "contracts list", summary: "list the messages of a service and their versions", params: []string{"[FILE]"},
			about:    contractsAbout,
			examples: []string{"dvmsg contracts list maskin/" + lockName},
			make:     func(*flag.FlagSet) verb { return &contractsList{} },
		},
		{
			path: "contracts lint", summary: "find bad names, and files that contradict each other", params: []string{"[FILE...]"},
			about: contractsAbout + `
Subjects and types are held against the rules of docs/WIRE.md. With the files of
several services it also finds a version that two of them describe differently.
Exit code 3 when something is found.`,
			examples: []string{"dvmsg contracts lint */" + lockName},
			make:     func(*flag.FlagSet) verb { return &contractsLint{} },
		},
		{
			path: "contracts diff", summary: "list every difference between two files, with its verdict", params: []string{"OLD", "NEW"},
			about: contractsAbout + `
Exit code 3 when there is a difference, compatible ones included.`,
			examples: []string{
				"dvmsg contracts diff released.json " + lockName,
				"git show main:" + lockName + " | dvmsg contracts diff - " + lockName,
			},
			make: func(*flag.FlagSet) verb { return &contractsDiff{} },
		},
		{
			path: "contracts breaking", summary: "find changes that break what runs or is stored", params: []string{"OLD", "NEW"},
			about: contractsAbout + `
Made for CI: OLD is the main branch's lock, NEW the one of the change. Exit code 3
when a version got another meaning; warnings are printed and pass.`,
			examples: []string{
				"dvmsg contracts breaking released.json " + lockName,
				"git show main:" + lockName + " | dvmsg contracts breaking - " + lockName,
			},
			make: func(*flag.FlagSet) verb { return &contractsDiff{onlyBreaking: true} },
		},
		{
			path: "contracts lock", summary: "accept a list into a lock, unless it breaks it", params: []string{"NEW"},
			about: contractsAbout + `
For services that are not written in Go; a Go service updates its lock by its test
(contract.Check). Compatible changes, warnings and new versions are written, what
NEW lacks is kept as retired, and a breaking change writes nothing.`,
			examples: []string{
				"dvmsg contracts lock exported.json --lock " + lockName + " --dry-run",
				"dvmsg contracts lock exported.json --lock " + lockName,
			},
			make: func(fs *flag.FlagSet) verb {
				v := &contractsLock{}
				fs.StringVar(&v.path, "lock", lockName, "the lock `FILE`; it is created if it is not there")
				registerDryRun(fs, &v.dryRun)
				return v
			},
		},
		{
			path: "contracts asyncapi", summary: "print the AsyncAPI 3.1.0 document of a service", params: []string{"[FILE]"},
			about:    contractsAbout,
			examples: []string{"dvmsg contracts asyncapi " + lockName + " --release 2.4.0 > asyncapi.json"},
			make: func(fs *flag.FlagSet) verb {
				v := &contractsAsyncAPI{}
				fs.StringVar(&v.about.Title, "title", "", "`TITLE` of the document; default: the service's messages")
				fs.StringVar(&v.about.Version, "release", "", "`VERSION` of the document; default: 1.0.0")
				return v
			},
		},
		{
			path: "contracts schema", summary: "print the JSON Schema of a message's data", params: []string{"TYPE", "[FILE]"},
			about:    contractsAbout,
			examples: []string{"dvmsg contracts schema maskin.server.provisioned " + lockName + " --version 2"},
			make: func(fs *flag.FlagSet) verb {
				v := &contractsSchema{}
				fs.IntVar(&v.version, "version", 0, "`VERSION` of the schema; default: the newest that is not retired")
				return v
			},
		},
	}
}

// maxContracts bounds what is read of a file; the parser refuses less.
const maxContracts = 16 << 20

// readContracts reads the file that an argument names, the service's own lock where
// it is missing. Faults are those of the command's usage.
func (c *call) readContracts(what, path string) contract.List {
	if path == "" {
		path = lockName
	}
	data, err := c.readLocal(path)
	var l contract.List
	if err == nil {
		l, err = contract.Parse(data)
	}
	for _, e := range leaves(err) {
		c.fault("%s %s: %s", what, path, strings.TrimPrefix(e.Error(), "contract: "))
	}
	return l
}

func (c *call) readLocal(path string) ([]byte, error) {
	in := c.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, maxContracts))
}

// readPair reads two files, of which one may be the standard input.
func (c *call) readPair() (old, next contract.List) {
	if len(c.args) < 2 {
		return old, next // reported already
	}
	if c.arg(0) == "-" && c.arg(1) == "-" {
		c.fault("OLD and NEW: only one can be the standard input")
		return old, next
	}
	old, next = c.readContracts("OLD", c.arg(0)), c.readContracts("NEW", c.arg(1))
	if len(c.faults) == 0 && old.Service != next.Service {
		c.fault("OLD is of service %q, NEW of %q: compare files of one service", old.Service, next.Service)
	}
	return old, next
}

// contractChanges prints changes for people.
func (p *page) contractChanges(all []contract.Change) {
	for _, change := range all {
		p.line("%s", change)
	}
}

// countVerdicts counts changes by their verdict, for a summary.
func countVerdicts(all []contract.Change) string {
	n := map[contract.Verdict]int{}
	for _, change := range all {
		n[change.Verdict]++
	}
	return fmt.Sprintf("%d breaking, %s, %d compatible", n[contract.Breaking], count(n[contract.Warning], "warning"), n[contract.Compatible])
}
