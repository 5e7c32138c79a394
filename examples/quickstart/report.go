package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// seconds is a duration that JSON shows as a number of seconds.
type seconds time.Duration

// MarshalJSON writes the number.
func (s seconds) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", time.Duration(s).Seconds()), nil
}

// UnmarshalJSON reads it back.
func (s *seconds) UnmarshalJSON(text []byte) error {
	var number float64
	err := json.Unmarshal(text, &number)
	*s = seconds(number * float64(time.Second))
	return err
}

// String rounds to what a person wants to know.
func (s seconds) String() string { return time.Duration(s).Round(10 * time.Millisecond).String() }

// report is the result of a run; its JSON form is what --json prints.
type report struct {
	Servers     int      `json:"servers"`
	Seed        uint64   `json:"seed"`
	AckWait     seconds  `json:"ack_wait_seconds"`
	LeaseTTL    seconds  `json:"lease_seconds"`
	Kills       []kill   `json:"kills"`
	Workflow    *step    `json:"workflow"`
	DeadLetters []letter `json:"dead_letters"`
	Replay      *replay  `json:"replay"`
	Figures     figures  `json:"figures"`
	// Working is the time from the first request to the last node, Took that of
	// the whole run.
	Working seconds `json:"working_seconds"`
	Took    seconds `json:"seconds"`
	// Faults is empty when every promise was kept and the run was no void one.
	Faults []string `json:"faults"`
}

// write prints the report and returns an error when the run failed.
func (r *report) write(w io.Writer, asJSON bool) error {
	if asJSON {
		if err := json.NewEncoder(w).Encode(r); err != nil {
			return err
		}
	} else {
		r.writeText(w)
	}
	if len(r.Faults) > 0 {
		return fmt.Errorf("%d fault(s):\n  %s", len(r.Faults), strings.Join(r.Faults, "\n  "))
	}
	return nil
}

func (r *report) writeText(w io.Writer) {
	fmt.Fprintln(w, "\nONE WORKFLOW, rebuilt from its correlation id")
	r.Workflow.write(w, r.Workflow.At, "  ", "  ")
	r.writeLetters(w)
	r.writeKills(w)
	r.writeFigures(w)
}

func (r *report) writeLetters(w io.Writer) {
	fmt.Fprintln(w, "\nDEAD LETTERS of maskin")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range r.DeadLetters {
		fmt.Fprintf(t, "  %.9s\t%s\t%s\t%s\n", l.ID, l.Class, l.Tenant, l.Cause)
	}
	t.Flush()
	if r.Replay == nil {
		return
	}
	fmt.Fprintln(w, "\nREPLAY")
	fmt.Fprintf(w, "  %.9s of %s by %s: %s\n", r.Replay.LetterID, r.Replay.Server, r.Replay.By, r.Replay.Reason)
	fmt.Fprintf(w, "  %s, node %s is there after %s\n", r.Replay.State, r.Replay.Hostname, r.Replay.Took)
}

func (r *report) writeKills(w io.Writer) {
	if len(r.Kills) == 0 {
		return
	}
	fmt.Fprintln(w, "\nKILLS of maskin (SIGKILL), and what they hit")
	for _, k := range r.Kills {
		hit := "before its commit: the redelivery made the effect"
		if k.Committed {
			hit = "between its commit and its acknowledgement: the inbox skipped the redelivery"
		}
		fmt.Fprintf(w, "  at %d handled, command #%d, %s\n", k.Handled, k.Sequence, hit)
	}
}

func (r *report) writeFigures(w io.Writer) {
	f := r.Figures
	fmt.Fprintf(w, "\nCLOSING FIGURES, counted in the databases and in the streams (ack wait %s, lease %s, seed %d)\n", r.AckWait, r.LeaseTTL, r.Seed)
	for _, line := range []struct {
		name string
		n    int64
		note string
	}{
		{"requested", f.Requested, fmt.Sprintf("for %d servers", r.Servers)},
		{"committed", f.Committed, fmt.Sprintf("%d failed at commit, when their commands were in the outbox", f.Requested-f.Committed)},
		{"effects", f.Effects, fmt.Sprintf("at plattform, on %d nodes", f.Nodes)},
		{"lost", f.Lost, "committed, and neither in effect nor a visible dead letter"},
		{"duplicated", f.Duplicated, "effects beyond the first"},
		{"out of order", f.OutOfOrder, "steps back of a server, and servers that ended at a wrong size"},
		{"dead-lettered", f.DeadLettered, fmt.Sprintf("of %d faulty servers that were let through", f.ExpectedDead)},
		{"replayed", f.Replayed, "and resolved; the others stay visible"},
		{"phantoms", f.Phantoms, "messages of a transaction that did not commit"},
		{"absorbed", f.Redelivered, fmt.Sprintf("redeliveries after %d kills, of which the inbox skipped %d", len(r.Kills), f.Skipped)},
	} {
		fmt.Fprintf(w, "  %-14s%6d  %s\n", line.name, line.n, line.note)
	}
	fmt.Fprintf(w, "\n%s in all, %s from the first request to the last node\n", r.Took, r.Working)
}
