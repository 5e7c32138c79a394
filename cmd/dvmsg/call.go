package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// verb is what a command does. Its fields are its flags.
type verb interface {
	// check adds what is wrong with flags and arguments to c.faults. It reads
	// local files at most; nothing is contacted before it has passed.
	check(c *call)
	// run does the work.
	run(ctx context.Context, c *call) error
}

// defaultTimeout bounds a command. Long enough for a listing of a hundred
// thousand letters, short enough for somebody who waits.
const defaultTimeout = 30 * time.Second

// call is one run of a command.
type call struct {
	*app
	command command
	flags   *flag.FlagSet
	verb    verb
	args    []string // positional
	faults  []string // of flags and arguments; all are reported at once
	hidden  error    // what the command could not look at, beside what it did

	// Flags of all commands.
	json    bool
	timeout time.Duration
	connection
}

func newCall(a *app, cmd command) *call {
	c := &call{app: a, command: cmd, flags: flag.NewFlagSet(cmd.path, flag.ContinueOnError)}
	c.flags.SetOutput(io.Discard)
	c.verb = cmd.make(c.flags)
	if cmd.needs&needsDatabase != 0 {
		c.flags.StringVar(&c.database, "database", "", "`URL` of the service's PostgreSQL; default: "+envDatabase)
	}
	if cmd.needs&needsNATS != 0 {
		c.flags.StringVar(&c.nats, "nats", "", "`URL` of the NATS servers, several separated by commas; default: "+envNATS)
		c.flags.StringVar(&c.creds, "creds", "", "NATS credentials `FILE`; default: "+envCreds)
	}
	c.flags.DurationVar(&c.timeout, "timeout", cmp.Or(cmd.patience, defaultTimeout), "give up after this `DURATION`; 0: never")
	c.flags.BoolVar(&c.json, "json", false, "print one JSON document")
	return c
}

// parse reads flags and arguments in any order. It reports whether help was
// asked for.
func (c *call) parse(args []string) (help bool) {
	for {
		err := c.flags.Parse(args)
		rest := c.flags.Args()
		switch {
		case errors.Is(err, flag.ErrHelp):
			return true
		case err != nil:
			c.fault("%s", c.flagFault(err))
			if len(rest) == len(args) {
				rest = rest[1:] // the package stays in front of what it cannot read
			}
			args = rest
			continue
		case len(rest) == 0:
			return false
		case len(rest) < len(args) && args[len(args)-len(rest)-1] == "--":
			c.args = append(c.args, rest...)
			return false
		}
		c.args, args = append(c.args, rest[0]), rest[1:]
	}
}

// flagFault words a fault of the package as the rest of our messages.
func (c *call) flagFault(err error) string {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		if meant := closestFlag(c.flags, name); meant != "" {
			return fmt.Sprintf("unknown flag --%s; did you mean --%s?", name, meant)
		}
		return "unknown flag --" + name
	}
	text = strings.Replace(text, "flag needs an argument: -", "a value is missing behind --", 1)
	return strings.Replace(text, "for flag -", "for --", 1)
}

// fault adds one fault.
func (c *call) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// check adds every fault of flags and arguments.
func (c *call) check() {
	if len(c.faults) == 0 {
		c.checkArgs()
	} else {
		// An unknown flag leaves its value among the arguments, so that they
		// say nothing then.
		c.args = nil
	}
	c.verb.check(c)
	if c.timeout < 0 {
		c.fault("--timeout: %s is negative; 0 means no limit", c.timeout)
	}
	c.connection.check(c)
}

func (c *call) checkArgs() {
	for _, missing := range c.command.params[min(len(c.args), len(c.command.params)):] {
		if !strings.HasPrefix(missing, "[") {
			c.fault("%s is missing", missing)
		}
	}
	if n := len(c.command.params); len(c.args) > n && !c.command.takesMany() {
		c.fault("unexpected argument %q", c.args[n])
	}
}

// arg returns a positional argument, "" where it is missing.
func (c *call) arg(i int) string {
	if i < len(c.args) {
		return c.args[i]
	}
	return ""
}

// bounded returns ctx with the time that the command may take.
func (c *call) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, c.timeout, &timeoutError{c.timeout})
}

// print writes the result: document as JSON, or what text makes for people.
func (c *call) print(document any, text func(*page)) error {
	if c.json {
		enc := json.NewEncoder(c.stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(document)
	}
	p := &page{now: c.now()}
	text(p)
	_, err := c.stdout.Write(p.Bytes())
	return err
}
