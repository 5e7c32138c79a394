package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// group is some rows that share their preparation and their rounds.
type group struct {
	name string
	run  func(context.Context, *bench) ([]Row, error)
}

// groups lists what can be measured, in the order of the report. Rows are named
// "<group>/<what>".
func groups() []group {
	return []group{
		{"relay", relayRows},
		{"writers", writerRows},
		{"retained", retainedRows},
		{"latency", latencyRows},
		{"memory", memoryRows},
		{"idle", idleRows},
		{"outage", outageRows},
		{"failover", failoverRows},
		{"consume", consumeRows},
		{"inbox", inboxRows},
		{"stalled", stalledRows},
		{"delay", parkedRows},
		{"ordered", orderedRows},
		{"sites", siteRows},
		{"decode", decodeRows},
		{"telemetry", telemetryRows},
	}
}

// choose returns the groups that hold the named rows; all without names.
func choose(names []string) ([]group, error) {
	all := groups()
	var known []string
	for _, g := range all {
		known = append(known, g.name)
	}
	wanted := map[string]bool{}
	for _, name := range names {
		head, _, _ := strings.Cut(name, "/")
		if !slices.Contains(known, head) {
			return nil, fmt.Errorf("row %q: unknown; the groups are %s", name, strings.Join(known, ", "))
		}
		wanted[head] = true
	}
	return slices.DeleteFunc(all, func(g group) bool { return len(names) > 0 && !wanted[g.name] }), nil
}

// only keeps the named rows, and those of named groups.
func only(rows []Row, names []string) []Row {
	return slices.DeleteFunc(rows, func(r Row) bool {
		return len(names) > 0 && !slices.ContainsFunc(names, func(name string) bool {
			return r.Name == name || strings.HasPrefix(r.Name, name+"/")
		})
	})
}

// sizes are how much is measured.
type sizes struct {
	backlog  int           // messages that one round of throughput publishes
	retained int           // published rows that stay in the table
	memory   int           // backlog of the relay whose memory is measured
	events   int           // single events of one round of latency
	window   time.Duration // of what has a rate and no end: Watermill, paced events, writers beside a relay
	slice    time.Duration // the same, where two sides differ by less than the machine drifts in a window
	slices   int           // of them per round and side
	quiet    time.Duration // of what is counted per second: idle, outage
	slow     int           // rounds of what takes long or hardly varies, at most
	consumed int           // messages that one round of consuming reads
	handled  int           // messages of one round with a database
	stalled  int           // backlog of a consumer that does not get on
}

func sizesFor(quick bool) sizes {
	if quick {
		return sizes{backlog: 50_000, retained: 200_000, memory: 200_000, events: 30,
			window: time.Second, slice: 100 * time.Millisecond, slices: 20, quiet: 4 * time.Second, slow: 1, consumed: 20_000, handled: 3_000, stalled: 50_000}
	}
	return sizes{backlog: 500_000, retained: 5_000_000, memory: 2_000_000, events: 300,
		window: 10 * time.Second, slice: 300 * time.Millisecond, slices: 80, quiet: 20 * time.Second, slow: 5, consumed: 200_000, handled: 20_000, stalled: 1_000_000}
}

// bench is one run of the program.
type bench struct {
	*servers
	sizes  sizes
	rounds int
	began  time.Time
}

func newBench(ctx context.Context, o options) (*bench, error) {
	s, err := startServers(ctx)
	if err != nil {
		return nil, err
	}
	return &bench{servers: s, sizes: sizesFor(o.quick), rounds: o.rounds, began: time.Now()}, nil
}

// logf tells on standard error how far the run is.
func (b *bench) logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// side is one of the things that are measured beside each other.
type side struct {
	name    string
	measure func(context.Context) (float64, error)
}

// interleave measures every side once per round and returns the figures by side
// and round. Every other round runs backwards: a machine that gets slower, or a
// cache that gets warmer, favours nobody.
func (b *bench) interleave(ctx context.Context, sides ...side) ([][]float64, error) {
	figures := make([][]float64, len(sides))
	for round := range b.rounds {
		for step := range sides {
			i := turn(round, step, len(sides))
			figure, err := sides[i].measure(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", sides[i].name, err)
			}
			b.logf("  round %d/%d  %-28s %12.1f", round+1, b.rounds, sides[i].name, figure)
			figures[i] = append(figures[i], figure)
		}
	}
	return figures, nil
}

// interleaveSlices measures every side in many short windows that alternate, and
// returns the mean of each round. A machine drifts by more in a minute than some
// sides differ by, so that many short windows tell more than a few long ones.
func (b *bench) interleaveSlices(ctx context.Context, n int, sides ...side) ([][]float64, error) {
	fine := *b
	fine.rounds *= n
	figures, err := fine.interleave(ctx, sides...)
	for i := range figures {
		figures[i] = means(figures[i], n)
	}
	return figures, err
}

// means returns the mean of every n figures.
func means(figures []float64, n int) (out []float64) {
	for chunk := range slices.Chunk(figures, n) {
		sum := 0.0
		for _, f := range chunk {
			sum += f
		}
		out = append(out, sum/float64(len(chunk)))
	}
	return out
}

// turn returns which side is measured at a step of a round. Every side has every
// place, and every neighbour, since both tell on a figure.
func turn(round, step, sides int) int {
	if round%2 == 1 {
		step = sides - 1 - step
	}
	return (step + round/2) % sides
}

// median of figures; 0 of none.
func median(figures []float64) float64 { return percentile(figures, 0.5) }

// percentile returns the smallest figure that is not below the share p of all;
// the mean of the two in the middle for an even median.
func percentile(figures []float64, p float64) float64 {
	if len(figures) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(figures))
	if n := len(sorted); p == 0.5 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

// ratios divides round by round: what slows a whole round cancels out.
func ratios(ours, other []float64) []float64 {
	out := make([]float64, len(ours))
	for i := range ours {
		out[i] = ours[i] / other[i]
	}
	return out
}

// best takes the highest figure of each round.
func best(sides ...[]float64) []float64 {
	out := slices.Clone(sides[0])
	for _, figures := range sides[1:] {
		for i, f := range figures {
			out[i] = max(out[i], f)
		}
	}
	return out
}
