package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/topology"
)

const topologyAbout = `The contract file is the JSON form of a service's topology.Set, as the service
prints it with json.Marshal; "--file -" reads it from the standard input.`

func topologyCommands() table {
	return table{
		{
			path: "topology diff", summary: "list what apply would change", needs: needsNATS,
			about: topologyAbout + `
Reads only. It covers the service's own streams and durables, and lists settings
that exceed the declaration too, since applying it would shrink them. Exit code 3
when there is a difference.`,
			examples: []string{"dvmsg topology diff --file maskin.json --nats nats://broker:4222"},
			make:     func(fs *flag.FlagSet) verb { v := &topologyDiff{}; v.file.register(fs); return v },
		},
		{
			path: "topology verify", summary: "check what a service checks when it starts", needs: needsNATS,
			about: topologyAbout + `
Reads only. It covers other services' streams in the file as well; more than is
declared is no fault. Exit code 3 when something is missing or contradicts.`,
			examples: []string{"dvmsg topology verify --file maskin.json --nats nats://broker:4222"},
			make:     func(fs *flag.FlagSet) verb { v := &topologyVerify{}; v.file.register(fs); return v },
		},
		{
			path: "topology apply", summary: "create and change streams and durables as declared", needs: needsNATS,
			about: topologyAbout + `
Everything is read first. A difference that no update can remove, or one that may
lose messages or cannot be undone without --destructive, makes it change nothing.
Nothing is ever deleted.`,
			examples: []string{
				"dvmsg topology apply --file maskin.json --dry-run",
				"dvmsg topology apply --file maskin.json --destructive --json",
			},
			make: func(fs *flag.FlagSet) verb {
				v := &topologyApply{}
				v.file.register(fs)
				fs.BoolVar(&v.destructive, "destructive", false, "allow changes that may lose messages or cannot be undone")
				registerDryRun(fs, &v.dryRun)
				return v
			},
		},
		{
			path: "topology server-config", summary: "write or check the nats-server configuration of a site",
			about: topologyAbout + `
Its network names the sites; any service's file has the whole of it. Without
--check it prints the configuration; secrets and what differs from server to
server are variables that nats-server takes from its environment. With --check it
compares a configuration with the network: domain, deny lists, rights of the
leafnode users. Exit code 3 when something is missing or contradicts.`,
			examples: []string{
				"dvmsg topology server-config --site osl1 --file maskin.json > nats-osl1.conf",
				"dvmsg topology server-config --site osl1 --file maskin.json --check /etc/nats/nats.conf",
			},
			make: func(fs *flag.FlagSet) verb {
				v := &topologyServerConfig{}
				v.file.register(fs)
				fs.StringVar(&v.site, "site", "", "the `NAME` of the site")
				fs.StringVar(&v.against, "check", "", "a configuration `FILE` of nats-server to compare")
				return v
			},
		},
	}
}

// contractFile is the flag --file and what the file holds.
type contractFile struct {
	file string
	set  topology.Set
}

func (f *contractFile) register(fs *flag.FlagSet) {
	fs.StringVar(&f.file, "file", "topology.json", "the service's contract `FILE`, - for the standard input")
}

// check reads the file, so that its faults are reported together with all
// others and before anything is contacted.
func (f *contractFile) check(c *call) {
	data, err := f.read(c.stdin)
	if err != nil {
		c.fault("--file: %v", err)
		return
	}
	if f.set, err = topology.ParseSet(data); err != nil {
		for _, e := range leaves(err) {
			c.fault("--file %s: %s", f.file, strings.TrimPrefix(e.Error(), "topology: "))
		}
	}
}

func (f *contractFile) read(stdin io.Reader) ([]byte, error) {
	if f.file == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(f.file)
}

// change is a topology.Change in JSON.
type change struct {
	Object      string `json:"object"`
	Field       string `json:"field,omitempty"`
	From        string `json:"from,omitempty"`
	To          string `json:"to,omitempty"`
	Create      bool   `json:"create"`
	Destructive bool   `json:"destructive"`
}

// changesOf returns an empty list for none: a JSON reader finds [] and not null.
func changesOf(list []topology.Change) []change {
	all := make([]change, 0, len(list))
	for _, c := range list {
		all = append(all, change(c))
	}
	return all
}

// finding is one fault of the platform: an error of package topology in JSON.
type finding struct {
	Kind   string `json:"kind"` // drift, missing, overlap, impossible, or a topology.SiteFault
	Object string `json:"object"`
	Field  string `json:"field,omitempty"`
	Want   string `json:"want,omitempty"`
	Got    string `json:"got,omitempty"`
	Text   string `json:"text"`
}

// findingOf returns err as a finding; ok is false for an error that says
// nothing about the platform, such as a lost connection.
func findingOf(err error) (f finding, ok bool) {
	text := strings.TrimPrefix(err.Error(), "topology: ")
	if e, ok := errors.AsType[*topology.DriftError](err); ok {
		return finding{"drift", e.Object, e.Field, e.Want, e.Got, text}, true
	}
	if e, ok := errors.AsType[*topology.MissingError](err); ok {
		return finding{Kind: "missing", Object: e.Object, Text: text}, true
	}
	if e, ok := errors.AsType[*topology.OverlapError](err); ok {
		return finding{Kind: "overlap", Object: "stream " + e.Stream, Text: text}, true
	}
	if e, ok := errors.AsType[*topology.SiteError](err); ok {
		return finding{Kind: string(e.Fault), Object: e.Field, Text: text}, true
	}
	if e, ok := errors.AsType[*topology.ImpossibleError](err); ok {
		return finding{"impossible", e.Object, e.Field, e.To, e.From, text}, true
	}
	return finding{}, false
}

// findingsOf sorts the parts of err into findings and the rest.
func findingsOf(err error) (found []finding, rest error) {
	found = []finding{}
	var others []error
	for _, e := range leaves(err) {
		if f, ok := findingOf(e); ok {
			found = append(found, f)
		} else {
			others = append(others, e)
		}
	}
	return found, errors.Join(others...)
}

// with connects and calls do.
func (c *call) withNATS(ctx context.Context, do func(*natsconn.Conn) error) error {
	conn, done, err := c.openNATS(ctx)
	if err != nil {
		return err
	}
	defer done()
	return do(conn)
}

func (p *page) changes(list []change) {
	rows := make([][]string, 0, len(list))
	for _, c := range list {
		field, note := c.Field, ""
		if c.Create {
			field = "create"
		}
		if c.Destructive {
			note = "destructive"
		}
		rows = append(rows, []string{c.Object, field, c.From, c.To, note})
	}
	p.table([]string{"OBJECT", "CHANGE", "FROM", "TO", "NOTE"}, rows)
}

func (p *page) findings(list []finding) {
	for _, f := range list {
		p.line("%s: %s", f.Kind, f.forOperator())
	}
}

// forOperator leaves out the remedy of a drift, which refers a service to the
// operator.
func (f finding) forOperator() string {
	if f.Kind == "drift" {
		return fmt.Sprintf("%s: %s is %s, declared %s", f.Object, f.Field, f.Got, f.Want)
	}
	return f.Text
}

// summary names how many differences there are of a service.
func summary(set topology.Set, n int) error {
	return &foundError{fmt.Sprintf("topology of %s: %s found", set.Service, count(n, "difference"))}
}
