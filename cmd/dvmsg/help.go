package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

const overview = `dvmsg looks after the messaging of a Dataverket platform: tables, streams,
outbox, inbox, dead letters, what streams hold, flows between sites, contracts of
messages, and tasks.

Usage:
  dvmsg COMMAND [ARGUMENTS] [FLAGS]     flags may stand before or after arguments
  dvmsg help COMMAND                    flags and examples; also: dvmsg COMMAND -h
`

const conventions = `Connections, by flag or by environment:
  --database URL   DVMSG_DATABASE_URL   postgres://user@host:5432/name
  --nats URL       DVMSG_NATS_URL       nats://host:4222, several separated by commas
  --creds FILE     DVMSG_NATS_CREDS     NATS credentials file
  --by ACTOR       DVMSG_OPERATOR       who decides, such as operator:ola
  A command line is visible to other users: passwords belong in the environment
  or in a file.

For all commands:
  --json           exactly one JSON document on the standard output
  --timeout 30s    give up after this time; 0: never
  --dry-run        where something is changed: check everything, change nothing

Exit codes:
  0  done, or nothing to report
  1  failed; the error says what to do
  2  wrong usage; nothing was contacted
  3  differences found (migrate verify, topology verify, diff and server-config,
     contracts lint, diff and breaking), a flow that does not move (sites status), or
     something that a site lacks (sites verify)
`

// writeHelp explains what words name: a command, a group or everything.
func (a *app) writeHelp(w io.Writer, t table, words []string) {
	if cmd, ok := t.find(words); ok {
		writeCommand(w, cmd)
		return
	}
	group := strings.Join(words, " ")
	if group != "" {
		fmt.Fprintf(w, "Usage:\n  dvmsg %s COMMAND [ARGUMENTS] [FLAGS]\n", group)
	} else {
		fmt.Fprint(w, overview)
	}
	fmt.Fprint(w, "\nCommands:\n")
	for _, c := range t.in(group) {
		fmt.Fprintf(w, "  %-23s %s\n", c.path, c.summary)
	}
	fmt.Fprint(w, "\nExamples:\n")
	for _, c := range t.in(group) {
		fmt.Fprintf(w, "  %s\n", c.examples[0])
	}
	if group == "" {
		fmt.Fprint(w, "\n", conventions)
		return
	}
	fmt.Fprintf(w, "\nRun \"dvmsg %s COMMAND -h\" for the flags, \"dvmsg help\" for connections and exit codes.\n", group)
}

func writeCommand(w io.Writer, c command) {
	fmt.Fprintf(w, "dvmsg %s: %s.\n\nUsage:\n  %s\n", c.path, c.summary, usageLine(c))
	if c.about != "" {
		fmt.Fprintf(w, "\n%s\n", c.about)
	}
	fmt.Fprint(w, "\nExamples:\n")
	for _, example := range c.examples {
		fmt.Fprintf(w, "  %s\n", example)
	}
	fmt.Fprint(w, "\nFlags:\n")
	c.flags().VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		if isSwitch(f) {
			value = ""
		}
		fmt.Fprintf(w, "  %-20s %s%s\n", strings.TrimSpace("--"+f.Name+" "+value), usage, defaultOf(f))
	})
	fmt.Fprint(w, "\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 differences found. See: dvmsg help\n")
}

func usageLine(c command) string {
	return strings.Join(append(append([]string{"dvmsg", c.path}, c.params...), "[FLAGS]"), " ")
}

// defaultOf names the default of a flag that has one, unless its text does.
func defaultOf(f *flag.Flag) string {
	if f.DefValue == "" || f.DefValue == "false" || f.DefValue == "0" || strings.Contains(f.Usage, "default") {
		return ""
	}
	return "; default: " + f.DefValue
}
