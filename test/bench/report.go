package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Row is one line of the results. Other and Ratio are null where a figure stands
// for itself, Bar and Holds where there is nothing to reach.
type Row struct {
	Name   string     `json:"name"`
	What   string     `json:"what"`
	Ours   float64    `json:"ours"`
	Other  *float64   `json:"other"`
	Ratio  *float64   `json:"ratio"`
	Bar    *float64   `json:"bar"`
	Holds  *bool      `json:"holds"`
	Unit   string     `json:"unit"` // of ours and other
	Rounds int        `json:"rounds"`
	Spread [2]float64 `json:"spread"` // lowest and highest of the rounds: of the ratio, else of ours
	Quick  bool       `json:"quick,omitempty"`
}

// ratioRow compares two sides round by round; the ratio is to reach at least the
// bar, where there is one.
func ratioRow(name, what, unit string, bar float64, ours, other []float64) Row {
	r := ratios(ours, other)
	theirs, ratio := round(median(other)), round(median(r))
	row := Row{Name: name, What: what, Unit: unit, Ours: round(median(ours)), Other: &theirs, Ratio: &ratio,
		Rounds: len(r), Spread: spread(r)}
	if bar > 0 {
		holds := ratio >= bar
		row.Bar, row.Holds = &bar, &holds
	}
	return row
}

// limitRow judges a figure that is to stay at or below the bar.
func limitRow(name, what, unit string, bar float64, figures []float64) Row {
	ours := round(median(figures))
	holds := ours <= bar
	return Row{Name: name, What: what, Unit: unit, Ours: ours, Bar: &bar, Holds: &holds,
		Rounds: len(figures), Spread: spread(figures)}
}

func spread(figures []float64) [2]float64 {
	return [2]float64{round(slices.Min(figures)), round(slices.Max(figures))}
}

// round keeps what a measurement can tell.
func round(f float64) float64 { return math.Round(f*1000) / 1000 }

// report prints the table and writes what was asked for.
func report(rows []Row, o options) error {
	if err := printTable(os.Stdout, rows); err != nil {
		return err
	}
	if o.out != "" && len(o.rows) > 0 {
		var err error
		if rows, err = beside(o.out, rows); err != nil {
			return err
		}
	}
	if o.out != "" {
		text, err := json.MarshalIndent(rows, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.out, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.svg != "" {
		return os.WriteFile(filepath.Join(o.svg, "bench-relay.svg"), []byte(plot(rows)), 0o644)
	}
	return nil
}

// beside puts rows in the place of those of the same name in a file of results,
// and leaves the others there as they are. Without a file they are all there is.
func beside(file string, rows []Row) ([]Row, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return rows, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Row
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it or name another file with -out", file, err)
	}
	for _, row := range rows {
		i := slices.IndexFunc(all, func(old Row) bool { return old.Name == row.Name })
		if i < 0 {
			all = append(all, row)
			continue
		}
		all[i] = row
	}
	order := map[string]int{}
	for i, g := range groups() {
		order[g.name] = i
	}
	slices.SortStableFunc(all, func(a, b Row) int { return order[a.group()] - order[b.group()] })
	return all, nil
}

// group is the part of a row's name before the slash.
func (r Row) group() string {
	name, _, _ := strings.Cut(r.Name, "/")
	return name
}

func printTable(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "row\tours\tother\tunit\tratio\tlowest–highest\tbar\tholds\trounds\t  what")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s–%s\t%s\t%s\t%d\t  %s\n", r.Name, number(r.Ours), optional(r.Other), r.Unit,
			optional(r.Ratio), number(r.Spread[0]), number(r.Spread[1]), r.barText(), r.verdict(), r.Rounds, r.What)
	}
	return t.Flush()
}

func (r Row) barText() string {
	switch {
	case r.Bar == nil:
		return "–"
	case r.Ratio != nil:
		return "≥ " + number(*r.Bar)
	}
	return "≤ " + number(*r.Bar)
}

func (r Row) verdict() string {
	switch {
	case r.Holds == nil:
		return "–"
	case *r.Holds:
		return "yes"
	}
	return "NO"
}

func optional(f *float64) string {
	if f == nil {
		return "–"
	}
	return number(*f)
}

// number writes three significant digits, and thousands apart.
func number(f float64) string {
	switch {
	case f >= 1000:
		return thousands(int64(f + 0.5))
	case f >= 100:
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	text := strconv.FormatFloat(f, 'f', 2, 64)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
