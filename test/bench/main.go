// Command bench measures relay and consumer beside what they are to be judged by: the raw
// limit of the broker, and how other people publish from PostgreSQL. It starts
// its own PostgreSQL and NATS server, and needs the server binaries of
// PostgreSQL only.
//
//	go run . [-quick] [-rows name,…] [-rounds 5] [-out results.json] [-svg ../../docs]
//
// README.md tells what each row means and how it is measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	if role := os.Getenv(childRole); role != "" {
		exit(runChild(role))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// options are the command line.
type options struct {
	quick    bool
	rows     []string
	rounds   int
	out, svg string
}

func parseOptions(args []string) (options, error) {
	var o options
	var rows string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "small sizes: all rows in under three minutes, for a look and not for a verdict")
	flags.StringVar(&rows, "rows", "", "names of rows or groups, separated by commas (default: all); the others stay in the file")
	flags.IntVar(&o.rounds, "rounds", 0, "interleaved rounds (default 5, with -quick 3)")
	flags.StringVar(&o.out, "out", "results.json", "file for the results, empty for none")
	flags.StringVar(&o.svg, "svg", "", "directory for bench-relay.svg (default: none is drawn)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if rows != "" {
		o.rows = strings.Split(rows, ",")
	}
	if o.rounds == 0 {
		o.rounds = 5
		if o.quick {
			o.rounds = 3
		}
	}
	return o, nil
}

func run(ctx context.Context) error {
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		return err
	}
	chosen, err := choose(o.rows)
	if err != nil {
		return err
	}
	began := time.Now()
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	var rows []Row
	for _, g := range chosen {
		b.logf("%s", g.name)
		got, err := g.run(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		rows = append(rows, got...)
	}
	for i := range rows {
		rows[i].Quick = o.quick
	}
	rows = only(rows, o.rows)
	b.logf("measured in %v: %d cores, %s, PostgreSQL %d", time.Since(began).Round(time.Second),
		runtime.NumCPU(), runtime.Version(), b.pg.Major())
	return report(rows, o)
}
