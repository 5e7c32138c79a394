package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/task"
)

const (
	// followPatience is longer than most tasks take.
	followPatience = time.Hour
	// unknownPatience is how long a task may be unknown to the projection, whose
	// events are on their way.
	unknownPatience = 10 * time.Second
	// Bounds of --interval.
	followInterval    = time.Second
	minFollowInterval = 10 * time.Millisecond
	maxFollowInterval = time.Minute
)

type taskFollow struct {
	schema   schema
	id       string
	interval time.Duration
}

func newTaskFollow(fs *flag.FlagSet) verb {
	v := &taskFollow{}
	v.schema.register(fs)
	fs.DurationVar(&v.interval, "interval", followInterval, "look again after this `DURATION`, 10ms to 1m")
	return v
}

func (v *taskFollow) check(c *call) {
	v.schema.check(c)
	v.id = checkTaskID(c)
	if v.interval < minFollowInterval || v.interval > maxFollowInterval {
		c.fault("--interval: %s is out of range; use %s to %s", v.interval, minFollowInterval, maxFollowInterval)
	}
}

// taskFollowResult is the JSON of task follow.
type taskFollowResult struct {
	Task task.Task `json:"task"`
}

func (v *taskFollow) run(ctx context.Context, c *call) error {
	show := newTicker(c)
	var last task.Task
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) (err error) {
		last, err = v.follow(ctx, c, pool, show)
		return err
	})
	show.end()
	if err != nil {
		return err
	}
	if err := c.print(taskFollowResult{last}, func(*page) {}); err != nil { // people have seen it
		return err
	}
	return verdictOn(last)
}

// follow looks at the task until it has ended.
func (v *taskFollow) follow(ctx context.Context, c *call, pool *pgxpool.Pool, show *ticker) (task.Task, error) {
	tick := time.NewTicker(v.interval)
	defer tick.Stop()
	for begun := c.now(); ; {
		t, err := task.Get(ctx, pool, v.schema.name, v.id)
		switch {
		case errors.Is(err, task.ErrNotFound) && c.now().Sub(begun) < unknownPatience:
			t.ID = v.id
		case err != nil:
			return t, err
		}
		show.show(t)
		if t.State.Ended() {
			return t, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return t, context.Cause(ctx)
		}
	}
}

// verdictOn is an error for a task that did not succeed.
func verdictOn(t task.Task) error {
	switch {
	case t.State == task.StateSucceeded:
		return nil
	case t.Error != nil && t.Error.LetterID != "":
		return fmt.Errorf("task %s %s: %s; see dvmsg dlq show %s", t.ID, t.State, t.Error.Text, t.Error.LetterID)
	case t.Error != nil:
		return fmt.Errorf("task %s %s: %s", t.ID, t.State, t.Error.Text)
	}
	return fmt.Errorf("task %s was %s", t.ID, t.State)
}

// ticker shows how a task goes on: on a terminal one line that changes, else a line
// for each change, and nothing beside a JSON document.
type ticker struct {
	out      io.Writer // nil for nobody
	terminal bool
	now      func() time.Time
	last     string // what was shown last
}

func newTicker(c *call) *ticker {
	t := &ticker{out: c.stdout, terminal: isTerminal(c.stdout), now: c.now}
	if c.json {
		t.out = nil
	}
	return t
}

// isTerminal reports whether somebody looks at w while it is written.
func isTerminal(w io.Writer) bool {
	file, ok := w.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Parts of what is shown: the bar, what is said beside it so that most terminals
// need no second line, and the sequence that goes back and clears the line.
const (
	barWidth   = 24
	sayWidth   = 30
	lineWidth  = 100
	clearsLine = "\r\x1b[K"
)

// show says where the task stands if that is news.
func (t *ticker) show(of task.Task) {
	if t.out == nil {
		return
	}
	said := clean(newsOf(of))
	text := strings.TrimRight(fmt.Sprintf("%s  %s  %s", stateText(of), percentText(of), shorten(said, lineWidth)), " ")
	if t.terminal {
		text = strings.TrimRight(fmt.Sprintf("%s %4s  %s  %s", bar(of), percentText(of), stateText(of), shorten(said, sayWidth)), " ")
	}
	if text == t.last {
		return
	}
	t.last = text
	if t.terminal {
		fmt.Fprint(t.out, clearsLine, text)
		return
	}
	fmt.Fprintf(t.out, "%s  %s\n", stamp(t.now()), text)
}

// end leaves the line that was shown last.
func (t *ticker) end() {
	if t.out != nil && t.terminal && t.last != "" {
		fmt.Fprintln(t.out)
	}
}

// bar draws how far a task is. Success is all of it, whatever was said before.
func bar(t task.Task) string {
	full := 0
	switch {
	case t.State == task.StateSucceeded:
		full = barWidth
	case t.Percent != nil:
		full = min(max(*t.Percent, 0), 100) * barWidth / 100
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "]"
}
