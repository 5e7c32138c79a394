// Command quickstart shows the whole way of a message through three services, in
// processes of their own, while one of them is killed again and again; and then
// it checks from their databases and from the streams that nothing was lost,
// doubled or reordered. See README.md beside it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"codeberg.org/dataverket/messaging/examples/internal/progress"
)

const (
	// ackWait and leaseTTL are short, so that what a killed process held is taken
	// up within seconds. Their defaults of 120 s and 6 s are for production.
	ackWait  = 2 * time.Second
	leaseTTL = 2 * time.Second
)

// serversPerKill is how much work there has to be between two kills.
const serversPerKill = 20

// options are the flags.
type options struct {
	servers, kills int
	seed           uint64
	json           bool
	role           string // what a child process is; "" for the supervisor
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "quickstart:", err)
		}
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr *os.File) error {
	opts, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	if opts.role != "" {
		return runRole(opts.role)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	watched := stdout
	if opts.json {
		watched = stderr
	}
	line := progress.New(watched)
	r, err := supervise(ctx, opts, line)
	line.End()
	if ctx.Err() != nil {
		return errors.New("interrupted; everything that was started is stopped and removed")
	}
	if err != nil {
		return err
	}
	return r.write(stdout, opts.json)
}

// parseOptions reads the flags and reports every fault at once.
func parseOptions(args []string, usage io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.IntVar(&o.servers, "events", 2000, "servers to provision, 10 to 100000; each is resized up to twice")
	flags.IntVar(&o.kills, "kills", 3, "how often maskin is killed with SIGKILL meanwhile, 0 to 20")
	flags.Uint64Var(&o.seed, "seed", 1, "decides when resizes and kills come")
	flags.BoolVar(&o.json, "json", false, "print one JSON document, and progress on standard error")
	flags.StringVar(&o.role, "role", "", "")
	flags.Usage = func() {
		fmt.Fprintln(usage, "usage: quickstart [--events N] [--kills K] [--seed S] [--json]")
		flags.VisitAll(func(f *flag.Flag) {
			if f.Usage != "" {
				fmt.Fprintf(usage, "  --%-7s %s (default %s)\n", f.Name, f.Usage, f.DefValue)
			}
		})
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var faults []error
	if flags.NArg() > 0 {
		faults = append(faults, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if o.servers < 10 || o.servers > 100_000 {
		faults = append(faults, fmt.Errorf("--events: %d is out of range; use 10 to 100000", o.servers))
	}
	if o.kills < 0 || o.kills > 20 {
		faults = append(faults, fmt.Errorf("--kills: %d is out of range; use 0 to 20", o.kills))
	}
	if least := o.kills * serversPerKill; len(faults) == 0 && o.servers < least {
		faults = append(faults, fmt.Errorf("--kills: %d kills need --events %d or more: the work would be over before the last", o.kills, least))
	}
	return o, errors.Join(faults...)
}
