// Package progress shows how far an example is, in one line that is refreshed.
package progress

import (
	"fmt"
	"os"
	"time"
)

// plainEvery is how often a line is written where it cannot be refreshed.
const plainEvery = 2 * time.Second

// Line is one line that is refreshed, or, where nobody looks at a terminal, a line
// every two seconds. It is used by one goroutine at a time.
type Line struct {
	out      *os.File
	terminal bool
	open     bool // the line is not ended yet
	last     time.Time
}

// New returns a line on out.
func New(out *os.File) *Line {
	info, err := out.Stat()
	return &Line{out: out, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

// Say writes a line of its own.
func (p *Line) Say(format string, args ...any) {
	p.End()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// Show writes or refreshes the line.
func (p *Line) Show(now fmt.Stringer) {
	if !p.terminal && time.Since(p.last) < plainEvery {
		return
	}
	p.last = time.Now()
	if !p.terminal {
		fmt.Fprintln(p.out, now)
		return
	}
	fmt.Fprint(p.out, "\r\x1b[K"+now.String()) // to the start of the line, and clear it
	p.open = true
}

// End ends an open line.
func (p *Line) End() {
	if p.open {
		fmt.Fprintln(p.out)
		p.open = false
	}
}
