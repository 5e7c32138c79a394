package main

import (
	"flag"
	"slices"
	"strings"
	"time"
)

// command describes one verb. The table of them is the only place where commands
// are listed; help, suggestions and the test of the documentation read it.
type command struct {
	path     string   // groups and verb: "dlq replay", "outbox parked list"
	params   []string // positional arguments: "ID"; in brackets, "[ID]", if it may be missing, "[ID...]" for any number
	summary  string   // one line, without a full stop
	about    string   // what else there is to know
	examples []string // the first one for the impatient
	needs    needs
	patience time.Duration            // default of --timeout; 0: defaultTimeout
	make     func(*flag.FlagSet) verb // registers the verb's own flags
}

// needs is what a command must reach.
type needs uint8

const (
	needsDatabase needs = 1 << iota
	needsNATS
)

func (c command) words() []string { return strings.Fields(c.path) }

// takesMany reports whether any number of arguments may follow.
func (c command) takesMany() bool {
	n := len(c.params)
	return n > 0 && strings.HasSuffix(c.params[n-1], "...]")
}

func (c command) group() string { return c.words()[0] }

// flags returns all flags of the command, unparsed.
func (c command) flags() *flag.FlagSet { return newCall(&app{}, c).flags }

// table holds the commands in the order of help.
type table []command

// commands returns the table.
func commands() table {
	return slices.Concat(migrateCommands(), topologyCommands(),
		outboxCommands(), outboxParkedCommands(), outboxRewindCommands(), outboxOrphansCommands(), inboxParkedCommands(), inboxReviveCommands(),
		dlqCommands(),
		historyCommands(), durableCommands(), sitesCommands(), contractsCommands(), taskCommands())
}

// groups returns the first words, each once.
func (t table) groups() []string {
	var names []string
	for _, c := range t {
		if !slices.Contains(names, c.group()) {
			names = append(names, c.group())
		}
	}
	return names
}

// in returns the commands that begin with the words of a group, all for "".
func (t table) in(group string) table {
	return slices.DeleteFunc(slices.Clone(t), func(c command) bool {
		return group != "" && !strings.HasPrefix(c.path, group+" ")
	})
}

func (t table) find(words []string) (command, bool) {
	path := strings.Join(words, " ")
	at := slices.IndexFunc(t, func(c command) bool { return c.path == path })
	if at < 0 {
		return command{}, false
	}
	return t[at], true
}

// isIncomplete reports whether words are the beginning of a command.
func (t table) isIncomplete(words []string) bool {
	return len(t.in(strings.Join(words, " "))) > 0
}

// wantsWord reports whether the name of the command may go on behind words.
// Where they name nothing, two are taken: what was meant is told by both.
func (t table) wantsWord(words []string) bool {
	const enough = 2
	return t.isIncomplete(words) || len(words) < enough
}

// split takes the words that name the command out of args and returns the rest
// in its order: flags may stand before the words too.
func (t table) split(args []string) (words, rest []string) {
	for len(args) > 0 && t.wantsWord(words) && args[0] != "--" {
		if !isFlag(args[0]) {
			words, args = append(words, args[0]), args[1:]
			continue
		}
		n := 1
		if t.takesValue(args[0]) {
			n = min(2, len(args)) // the value is no word
		}
		rest, args = append(rest, args[:n]...), args[n:]
	}
	return words, append(rest, args...)
}

// isFlag agrees with package flag: a lone dash is an argument.
func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// takesValue reports whether the argument behind arg belongs to it. A flag has
// the same form in all commands, so the command need not be known yet.
func (t table) takesValue(arg string) bool {
	name, _, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	if inline {
		return false
	}
	for _, c := range t {
		if f := c.flags().Lookup(name); f != nil {
			return !isSwitch(f)
		}
	}
	return false
}

// isSwitch reports whether f is a flag without a value.
func isSwitch(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

func asksForHelp(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		return slices.Contains([]string{"-h", "--h", "-help", "--help"}, arg)
	})
}

func onlyWords(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), isFlag)
}
