package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
)

// letterAct is what is done about letters.
type letterAct uint8

const (
	replayLetters letterAct = iota
	discardLetters
	restoreLetters
)

// words names the act, in the imperative and as done.
func (a letterAct) words() (verb, done string) {
	return [...]string{"replay", "discard", "restore"}[a], [...]string{"replayed", "discarded", "restored"}[a]
}

// on does it to the letters of one service.
func (a letterAct) on(ctx context.Context, s shelf, f dlq.Filter, r dlq.Request) (dlq.Report, error) {
	switch a {
	case discardLetters:
		return s.DiscardAll(ctx, f, r)
	case restoreLetters:
		return s.RestoreAll(ctx, f, r)
	}
	return s.ReplayAll(ctx, f, r)
}

// dlqAct is one of the verbs that change letters.
type dlqAct struct {
	act letterAct
	selection
	decision
	ids     []letterID
	request dlq.Request
	data    dataFile
	horizon string
	wait    bool
}

func newDLQAct(fs *flag.FlagSet, a letterAct) verb {
	v := &dlqAct{act: a}
	byDefault := "all that are not closed; with IDs or --batch, any"
	if a == restoreLetters {
		byDefault = "discarded; with IDs or --batch, any"
	}
	v.selection.register(fs, byDefault)
	v.decision.register(fs)
	fs.IntVar(&v.request.Max, "max", dlq.DefaultMax, "do nothing if more than `N` letters of a service are selected")
	registerDryRun(fs, &v.request.DryRun)
	again := "also when the last replay is still outstanding"
	if a == replayLetters {
		again += ", or the failure or the first replay is older than --horizon"
	}
	if a != restoreLetters {
		fs.BoolVar(&v.request.Again, "again", false, again)
	}
	if a == replayLetters {
		fs.Float64Var(&v.request.Rate, "rate", dlq.DefaultRate, "replay at most `N` letters a second")
		fs.StringVar(&v.horizon, "horizon", "45d", "how long the inbox of the letters' handlers remembers, as an `AGE`")
		fs.BoolVar(&v.wait, "wait", false, "wait until each replay was handled or has failed again, at most --timeout")
		fs.Var(&v.data, "data", "replay one letter with the data in this file instead of its own: --data @FILE; @-: the standard input")
	}
	return v
}

// check holds the request to the rules of dlq.Request, so that all faults come at
// once and before the server is asked.
func (v *dlqAct) check(c *call) {
	v.selection.check(c)
	v.decision.check(c)
	args := c.args
	if v.data.given {
		args = v.data.take(c, args)
	}
	for _, arg := range args {
		v.ids = append(v.ids, parseID(c, arg))
	}
	verb, _ := v.act.words()
	switch {
	case len(args) == 0 && !v.says():
		c.fault("say which letters to %s: by ID, or by flags such as --fingerprint; --state open means all that are open", verb)
	case v.data.given && len(args) != 1:
		c.fault("--data: is for one letter; give its ID")
	}
	if v.request.Max < 1 {
		c.fault("--max: %d is no number of letters; use 1 or more", v.request.Max)
	}
	if v.act == replayLetters && !(v.request.Rate > 0 && v.request.Rate <= mostRate) {
		c.fault("--rate: %v is out of range; use more than 0 letters a second, at most %d", v.request.Rate, mostRate)
	}
	if v.act == replayLetters {
		var ok bool
		if v.owner.horizon, ok = parseAge(v.horizon); !ok {
			c.fault("--horizon: %q is no age such as 1080h or 45d", v.horizon)
		}
	}
	v.request.By, v.request.Reason = v.by, v.reason
	v.bePatient(c)
}

// bePatient adds to the default of --timeout what --max replays of each service take
// at --rate: a rate that is good for the services must not end the command early.
func (v *dlqAct) bePatient(c *call) {
	given := false
	c.flags.Visit(func(f *flag.Flag) { given = given || f.Name == "timeout" })
	services, err := v.owner.services()
	if v.act != replayLetters || given || len(c.faults) > 0 || err != nil {
		return
	}
	paced := float64(len(services)) * float64(v.request.Max) / v.request.Rate * float64(time.Second)
	c.timeout += time.Duration(min(paced, float64(forEver)))
}

// mostRate is what dlq.Request takes.
const mostRate = 1_000_000

// dataFile is the flag --data of a replay. It has the form of the switch --data of
// other commands, so its file is either behind "=" or the next argument that
// begins with "@".
type dataFile struct {
	given bool
	file  string
	edit  *dlq.Edit
}

// String and Set make it a flag.Value.
func (d *dataFile) String() string { return d.file }

// Set takes the value behind "=", or "true".
func (d *dataFile) Set(text string) error {
	if text == "false" {
		return nil
	}
	d.given = true
	if text != "true" {
		d.file = text
	}
	return nil
}

// IsBoolFlag says that the flag may stand alone.
func (d *dataFile) IsBoolFlag() bool { return true }

// take reads the file and returns the arguments without it.
func (d *dataFile) take(c *call, args []string) []string {
	if at := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "@") }); at >= 0 && d.file == "" {
		d.file, args = args[at], slices.Delete(slices.Clone(args), at, at+1)
	}
	name, ok := strings.CutPrefix(d.file, "@")
	if !ok || name == "" {
		c.fault("--data: give the file with the new data as --data @FILE, or --data @- for the standard input; a command line is visible to others")
		return args
	}
	data, err := readData(c, name)
	if err != nil {
		c.fault("--data: %v", err)
		return args
	}
	d.edit = dlq.ReplaceData(data)
	return args
}

// readData reads as much as an envelope can hold.
func readData(c *call, name string) ([]byte, error) {
	in := c.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, envelope.MaxSize+1))
	if err == nil && len(data) > envelope.MaxSize {
		err = fmt.Errorf("%s is larger than the %d bytes that an envelope can hold", name, envelope.MaxSize)
	}
	return data, err
}

func (v *dlqAct) run(ctx context.Context, c *call) error {
	r := newDLQActResult(v)
	err := c.withShelves(ctx, &v.owner, func(shelves []shelf) error {
		if err := v.complete(ctx, shelves); err != nil {
			return err
		}
		targets, err := v.targets(ctx, shelves)
		if err != nil {
			return err
		}
		return v.all(ctx, c, targets, &r)
	})
	if err == nil {
		err = r.unfinished()
	}
	// What was done is reported even when it could not be finished. One letter
	// that was refused needs no report beside the error.
	if err == nil || c.json && r.started || r.Done > 0 || r.Matched > 1 && r.started {
		err = errors.Join(c.print(r, r.text), err)
	}
	return err
}

// target is the letters of one service that are meant.
type target struct {
	on     shelf
	filter dlq.Filter
}

// targets returns where which letters are meant.
func (v *dlqAct) targets(ctx context.Context, shelves []shelf) (all []target, err error) {
	if len(v.ids) == 0 {
		for _, s := range shelves {
			all = append(all, target{s, v.filter})
		}
		return all, nil
	}
	found, err := resolve(ctx, shelves, v.ids)
	for _, n := range found {
		f := v.filter
		f.IDs = n.ids
		all = append(all, target{n.on, f})
	}
	return all, err
}

// all acts on one service after another, and then waits for all of them.
func (v *dlqAct) all(ctx context.Context, c *call, targets []target, r *dlqActResult) error {
	show := &progress{c: c, next: time.Now().Add(progressEvery)}
	request := v.request
	request.Edit = v.data.edit
	for _, t := range targets {
		request.Progress = func(p dlq.Report) { show.acting(v.act, p) }
		report, err := v.act.on(ctx, t.on, t.filter, request)
		r.add(t.on.service, report)
		if err != nil {
			return err
		}
	}
	if !v.wait || v.request.DryRun {
		return nil
	}
	return v.follow(ctx, targets, r, show)
}

// follow waits for the replays of all services.
func (v *dlqAct) follow(ctx context.Context, targets []target, r *dlqActResult, show *progress) error {
	r.Followed = &followed{}
	for _, t := range targets {
		f, err := t.on.Follow(ctx, r.replayed(t.on.service), show.following)
		r.Followed.add(f)
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// progressEvery is the pause between two lines that say how far it is: rare
// enough for a log, and none for what takes a moment.
const progressEvery = 2 * time.Second

// progress tells who waits how far it is, on the standard error output; nothing
// with --json.
type progress struct {
	c    *call
	next time.Time
}

func (p *progress) line(format string, args ...any) {
	now := time.Now()
	if p.c.json || now.Before(p.next) {
		return
	}
	p.next = now.Add(progressEvery)
	fmt.Fprintf(p.c.stderr, format+"\n", args...)
}

func (p *progress) acting(a letterAct, r dlq.Report) {
	_, done := a.words()
	p.line("%s %d of %d letters, %d refused, %d failed", done, r.Done, r.Matched, r.Refused, r.Failed)
}

func (p *progress) following(f dlq.Followed) {
	p.line("waiting: %d resolved, %d failed again, %d outstanding", len(f.Resolved), len(f.FailedAgain), len(f.Outstanding))
}
