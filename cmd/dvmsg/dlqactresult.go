package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/subject"
)

// dlqActResult is the JSON of dlq replay, discard and restore.
type dlqActResult struct {
	DryRun bool   `json:"dry_run"`
	By     string `json:"by"`
	Reason string `json:"reason"`
	// Matched letters were selected; more than the others together means that it
	// stopped early.
	Matched int `json:"matched"`
	Done    int `json:"done"`
	Refused int `json:"refused"`
	Failed  int `json:"failed"`
	// Batches finds the letters again: dlq list --batch.
	Batches []batch `json:"batches"`
	Letters []acted `json:"letters"`
	// Followed is what became of the replays, with --wait.
	Followed *followed `json:"followed,omitempty"`

	act     letterAct
	started bool // a report is there
}

// batch is what one service's letters have in common.
type batch struct {
	Service subject.Service `json:"service"`
	Batch   string          `json:"batch"`
}

// acted is what became of one letter.
type acted struct {
	Service  subject.Service `json:"service"`
	LetterID string          `json:"letter_id"`
	// State is what the letter is now.
	State dlq.State `json:"state,omitempty"`
	// Error is why nothing was done, or what is not known; Refused tells which.
	Error   string `json:"error,omitempty"`
	Refused bool   `json:"refused,omitempty"`

	// Of a replay, the last four once it was published.
	Durable   string      `json:"durable,omitempty"`
	Subject   string      `json:"subject,omitempty"`
	Round     int         `json:"round,omitempty"`
	Edit      *dlq.Edited `json:"edit,omitempty"`
	TookOver  bool        `json:"took_over,omitempty"`
	Found     bool        `json:"found,omitempty"`
	MessageID string      `json:"message_id,omitempty"`
	Sequence  uint64      `json:"sequence,omitempty"`
	At        time.Time   `json:"at,omitzero"`

	err error
}

// actedOf is what became of one letter of s.
func actedOf(s subject.Service, o dlq.Outcome, did letterAct) acted {
	a := acted{Service: s, LetterID: o.LetterID, State: o.State, Refused: o.Refused(), err: advise(o.Err, did)}
	if a.err != nil {
		a.Error = a.err.Error()
	}
	if r := o.Replay; r != nil {
		a.Durable, a.Subject, a.Round, a.Edit = r.Durable, r.Subject, r.Round, r.Edit
		a.TookOver, a.Found = r.TookOver, r.Found
		a.MessageID, a.Sequence, a.At = r.MessageID, r.Sequence, r.At
	}
	return a
}

// followed is dlq.Followed of all services.
type followed struct {
	Resolved    []string `json:"resolved"`
	FailedAgain []string `json:"failed_again"`
	Outstanding []string `json:"outstanding"`
	Other       []string `json:"other"`
}

func (f *followed) add(more dlq.Followed) {
	f.Resolved = append(slices.Clip(f.Resolved), more.Resolved...)
	f.FailedAgain = append(slices.Clip(f.FailedAgain), more.FailedAgain...)
	f.Outstanding = append(slices.Clip(f.Outstanding), more.Outstanding...)
	f.Other = append(slices.Clip(f.Other), more.Other...)
}

func newDLQActResult(v *dlqAct) dlqActResult {
	return dlqActResult{
		DryRun: v.request.DryRun, By: v.by, Reason: v.reason, act: v.act,
		Batches: []batch{}, Letters: []acted{},
	}
}

// add takes the report of one service.
func (r *dlqActResult) add(s subject.Service, report dlq.Report) {
	r.started = r.started || report.Outcomes != nil
	r.Matched += report.Matched
	r.Done += report.Done
	r.Refused += report.Refused
	r.Failed += report.Failed
	if report.Batch != "" && report.Done > 0 {
		r.Batches = append(r.Batches, batch{s, report.Batch})
	}
	for _, o := range report.Outcomes {
		r.Letters = append(r.Letters, actedOf(s, o, r.act))
	}
}

// replayed returns the letters of one service whose replays are out.
func (r *dlqActResult) replayed(s subject.Service) (ids []string) {
	for _, a := range r.Letters {
		if a.Service == s && a.MessageID != "" {
			ids = append(ids, a.LetterID)
		}
	}
	return ids
}

// unfinished returns why the command did not do all that it was asked for.
func (r *dlqActResult) unfinished() error {
	verb, done := r.act.words()
	left := r.Refused + r.Failed
	switch {
	case left == 1 && r.Matched == 1:
		return r.Letters[0].err
	case left > 0 && r.DryRun:
		return fmt.Errorf("%d of %s could not be %s; they are in the output", left, count(r.Matched, "letter"), done)
	case left > 0:
		return fmt.Errorf("%d of %s were not %s; they are in the output", left, count(r.Matched, "letter"), done)
	}
	if f := r.Followed; f != nil && len(f.FailedAgain)+len(f.Outstanding)+len(f.Other) > 0 {
		return fmt.Errorf("%s: %s", verb, f.text())
	}
	return nil
}

func (f *followed) text() string {
	text := fmt.Sprintf("%d resolved, %d failed again, %d outstanding", len(f.Resolved), len(f.FailedAgain), len(f.Outstanding))
	if n := len(f.Other); n > 0 {
		text += fmt.Sprintf(", %d discarded or removed", n)
	}
	return text
}

// advise adds what an operator can do about a refusal. Only a replay takes an
// abandoned one over; a discard goes over it on demand, and restore not at all.
func advise(err error, did letterAct) error {
	conflict, ok := errors.AsType[*dlq.ConflictError](err)
	switch {
	case errors.Is(err, dlq.ErrForgotten):
		return fmt.Errorf("%w (--again)", err)
	case !ok:
		return err
	case did == restoreLetters:
		return err
	case conflict.State == dlq.StateReplayed:
		return fmt.Errorf("%w; its outcome is outstanding: wait, or repeat it with --again", err)
	case conflict.State == dlq.StateClaimed && did == discardLetters:
		return fmt.Errorf("%w; a replay is under way: look again in a minute, after which an abandoned one can be discarded with --again", err)
	case conflict.State == dlq.StateClaimed:
		return fmt.Errorf("%w; another replay is under way: look again in a minute, after which an abandoned one is taken over", err)
	}
	return err
}

// mostShown bounds a list for people.
const mostShown = 20

func (r dlqActResult) text(p *page) {
	verb, done := r.act.words()
	if r.Matched == 0 {
		p.line("no dead letter matches")
		return
	}
	if r.DryRun {
		done = "would " + verb
	}
	if r.Matched == 1 && r.Done == 1 {
		r.one(p, done)
	} else {
		p.line("%s %d of %s", done, r.Done, count(r.Matched, "letter"))
		r.acted(p)
		r.left(p)
	}
	r.next(p)
}

// one says what was done about a single letter.
func (r dlqActResult) one(p *page, done string) {
	l := r.Letters[0]
	switch {
	case r.act != replayLetters:
		p.line("%s letter %s (%s)", done, l.LetterID, l.State)
	case r.DryRun:
		p.line("%s letter %s (%s) to %s on %s", done, l.LetterID, l.State, l.Durable, l.Subject)
	default:
		p.line("replay %d of letter %s is out: %s will receive it on %s (message %d)",
			l.Round, l.LetterID, l.Durable, l.Subject, l.Sequence)
	}
	if l.TookOver && !r.DryRun {
		p.line("the unfinished replay of somebody else was taken over")
	}
	p.edited(l.Edit)
}

// edited says what became of the data, in a dry run with the difference.
func (p *page) edited(e *dlq.Edited) {
	if e == nil {
		return
	}
	p.line("with other data: SHA-256 %s instead of %s", e.New, orDash(e.Old))
	for _, c := range e.Changes {
		p.line("  %s: %s -> %s", cmp.Or(c.Path, "/"), orNone(string(c.Old)), orNone(string(c.New)))
	}
}

func orNone(text string) string {
	if text == "" {
		return "(none)"
	}
	return shorten(clean(text), causeWidth)
}

// acted lists the letters of a dry run.
func (r dlqActResult) acted(p *page) {
	if !r.DryRun || r.Done == 0 {
		return
	}
	rows := make([][]string, 0, mostShown)
	for _, l := range r.Letters {
		if l.err != nil || len(rows) == mostShown {
			continue
		}
		rows = append(rows, []string{l.LetterID, string(l.State), l.Durable})
	}
	p.gap()
	p.table([]string{"LETTER", "STATE", "DURABLE"}, rows)
	if more := r.Done - len(rows); more > 0 {
		p.line("… and %d more; --json lists all", more)
	}
}

// left counts what was not done, by why.
func (r dlqActResult) left(p *page) {
	counts, examples := map[string]int{}, map[string]string{}
	var order []string
	for _, l := range r.Letters {
		if l.err == nil {
			continue
		}
		why := strings.TrimPrefix(strings.ReplaceAll(l.Error, " letter "+l.LetterID, ""), "dlq:")
		why = strings.TrimPrefix(strings.TrimSpace(why), ": ")
		if counts[why]++; counts[why] == 1 {
			order, examples[why] = append(order, why), l.LetterID
		}
	}
	if len(order) == 0 {
		return
	}
	rows := make([][]string, 0, mostShown)
	for _, why := range order[:min(mostShown, len(order))] {
		rows = append(rows, []string{strconv.Itoa(counts[why]), examples[why], shorten(clean(why), 2*causeWidth)})
	}
	p.gap()
	p.table([]string{"NOT", "EXAMPLE", "WHY"}, rows)
	if more := len(order) - mostShown; more > 0 {
		p.line("… and %d more reasons; --json has all", more)
	}
}

// next says what became of it, or how to see that.
func (r dlqActResult) next(p *page) {
	if f := r.Followed; f != nil {
		p.gap()
		p.line("%s", f.text())
		for _, id := range f.FailedAgain[:min(mostShown, len(f.FailedAgain))] {
			p.line("  failed again: dvmsg dlq show %s", id)
		}
	}
	switch {
	case r.DryRun || r.Done == 0:
	case r.Matched == 1:
		p.line("next: dvmsg dlq show %s", r.Letters[0].LetterID)
	default:
		p.gap()
		for _, b := range r.Batches {
			p.line("next: dvmsg dlq list --service %s --batch %s", b.Service, b.Batch)
		}
	}
}
