package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The exit codes. They are a promise to scripts.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitFound   = 3
)

func main() {
	// An interrupt ends the request under way and is reported; a second one
	// ends the process, since stop gives the signal back.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// run is the whole program but for what belongs to the process. It returns the
// exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env func(string) string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, env: env, now: time.Now}
	return a.run(ctx, args)
}

// app is what surrounds a command.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string
	now            func() time.Time // ages are relative to it
}

// run finds the command that args name and runs it, or helps to find one.
func (a *app) run(ctx context.Context, args []string) int {
	t := commands()
	words, rest := t.split(args)
	if len(words) > 0 && words[0] == "help" {
		return a.help(t, append(words[1:], onlyWords(rest)...))
	}
	cmd, ok := t.find(words)
	switch {
	case ok:
		return a.runCommand(ctx, cmd, rest)
	case asksForHelp(rest):
		return a.help(t, words)
	case t.isIncomplete(words):
		// Wrong usage, so that a script with an empty variable does not pass.
		a.writeHelp(a.stderr, t, words)
		return exitUsage
	}
	return a.report("dvmsg", &usageError{faults: []string{t.unknown(words)}, help: "dvmsg help"})
}

// help prints what belongs to the words behind "help", or in front of "-h".
func (a *app) help(t table, words []string) int {
	if _, ok := t.find(words); !ok && !t.isIncomplete(words) {
		return a.report("dvmsg", &usageError{faults: []string{t.unknown(words)}, help: "dvmsg help"})
	}
	a.writeHelp(a.stdout, t, words)
	return exitOK
}

// runCommand parses the flags, checks everything that can be checked here, and
// only then lets the verb touch anything.
func (a *app) runCommand(ctx context.Context, cmd command, args []string) int {
	c := newCall(a, cmd)
	if asked := c.parse(args); asked {
		a.writeHelp(a.stdout, commands(), cmd.words())
		return exitOK
	}
	c.check()
	if len(c.faults) > 0 {
		return a.report("dvmsg "+cmd.path, &usageError{faults: c.faults, help: "dvmsg " + cmd.path + " -h"})
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	err := explainEnd(ctx, c.verb.run(ctx, c))
	return a.report("dvmsg "+cmd.path, errors.Join(err, c.hidden))
}
