// Command twosites runs a service at two sites that are joined by a link, cuts,
// swallows, slows and flaps the link while both work, and then checks from their
// databases and streams that nothing was lost, doubled or reordered. See README.md
// beside it.
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

// options are the flags.
type options struct {
	events  int           // of each site
	rate    int           // events a second at each site, at most
	fault   time.Duration // how long one lasts
	servers int           // of NATS at each site
	bars    bool
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "twosites:", err)
		}
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr *os.File) error {
	opts, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	line := progress.New(stdout)
	r, err := play(ctx, opts, line)
	line.End()
	if ctx.Err() != nil {
		return errors.New("interrupted; everything that was started is stopped and removed")
	}
	if err != nil {
		return err
	}
	return r.write(stdout)
}

// parseOptions reads the flags and reports every fault at once.
func parseOptions(args []string, usage io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("twosites", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.IntVar(&o.events, "events", 10_000, "events of each site, 200 to 1000000")
	flags.IntVar(&o.rate, "rate", 350, "events a second at each site, at most, 1 to 100000")
	flags.DurationVar(&o.fault, "fault", 3*time.Second, "how long each fault of the link lasts, 100ms to 1m")
	flags.IntVar(&o.servers, "servers", 3, "NATS servers at each site, 1 or 3")
	flags.BoolVar(&o.bars, "bars", false, "fail also if catching up takes more than 10s, or the faults cost a site more than 5 % of its own throughput")
	flags.Usage = func() {
		fmt.Fprintln(usage, "usage: twosites [--events N] [--rate R] [--fault D] [--servers 1|3] [--bars]")
		flags.VisitAll(func(f *flag.Flag) {
			fmt.Fprintf(usage, "  --%-7s %s (default %s)\n", f.Name, f.Usage, f.DefValue)
		})
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var faults []error
	refuse := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	refuse(flags.NArg() > 0, "unexpected argument %q", flags.Arg(0))
	refuse(o.events < 200 || o.events > 1_000_000, "--events: %d is out of range; use 200 to 1000000", o.events)
	refuse(o.rate < 1 || o.rate > 100_000, "--rate: %d is out of range; use 1 to 100000", o.rate)
	refuse(o.fault < 100*time.Millisecond || o.fault > time.Minute, "--fault: %s is out of range; use 100ms to 1m", o.fault)
	refuse(o.servers != 1 && o.servers != 3, "--servers: %d is no size of a site; use 1 or 3", o.servers)
	return o, errors.Join(faults...)
}

// rests are the times without a fault: before the first, between any two, after the
// last.
func (o options) rest() time.Duration {
	rest := (o.lasts() - time.Duration(len(plan))*o.fault) / time.Duration(len(plan)+1)
	return rest
}

// lasts is how long the traffic goes on: at most at the wanted rate, and so long that
// the link is whole for as long as it is not.
func (o options) lasts() time.Duration {
	atRate := time.Duration(o.events) * time.Second / time.Duration(o.rate)
	return max(atRate, time.Duration(2*len(plan)+1)*o.fault)
}
