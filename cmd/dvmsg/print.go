package main

import (
	"bytes"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// page collects output for people and is written at once.
type page struct {
	bytes.Buffer
	now time.Time
}

// line adds one line.
func (p *page) line(format string, args ...any) {
	p.WriteString(clean(fmt.Sprintf(format, args...)))
	p.WriteByte('\n')
}

// gap adds an empty line.
func (p *page) gap() { p.WriteByte('\n') }

// table adds rows below a header, in columns.
func (p *page) table(header []string, rows [][]string) {
	// One space less than the padding of two would glue "AGE" to its
	// neighbour; tabs would depend on the terminal.
	w := tabwriter.NewWriter(&p.Buffer, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, orDash(clean(cell)))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// labelled is one line of a list of properties.
type labelled struct{ label, text string }

// labelWidth leaves room for the longest label.
const labelWidth = 12

// list adds the properties that have a text.
func (p *page) list(all []labelled) {
	for _, l := range all {
		if l.text != "" {
			p.line("%-*s  %s", labelWidth, l.label, l.text)
		}
	}
}

// when gives a time both ways; "" for the zero time.
func (p *page) when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := p.now.Sub(t)
	if d < 0 {
		return stamp(t) + " (in " + age(-d) + ")"
	}
	return stamp(t) + " (" + age(d) + " ago)"
}

// stamp gives a time in UTC to the second: operators compare it with logs.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

const day = 24 * time.Hour

// age gives a duration in its two largest units.
func age(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < day:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d/day), int(d.Hours())%24)
}

// clean makes one line of text that cannot steer a terminal: control characters,
// line ends and invisible marks of direction become spaces. What other services
// sent may hold any of them.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, string(unicode.ReplacementChar)))
}

// shorten cuts text to at most n characters and shows that it did.
func shorten(text string, n int) string {
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	return string(runes[:n-1]) + "…"
}

// orDash keeps an empty cell visible.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// count names n things: "1 letter", "2 letters".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
