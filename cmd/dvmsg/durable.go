package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/history"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func durableCommands() table {
	return table{
		{
			path: "durable reset", params: []string{"[DURABLE]"}, summary: "hand a durable its stream once more, from a time or message on", needs: needsNATS,
			about: `Everything from there on is delivered again, to this durable and nobody else; its
service may run. Its inbox leaves out what it has handled; a handler without one
does everything again. What the inbox has forgotten is applied again too: a reset
that reaches further back than --horizon needs --beyond-horizon. It never leaves
out what is not handled, and never goes back before the declared start. Who and why
are kept in the durable's metadata. Dead letters are replayed with dlq replay. With
--file instead of DURABLE it does so for every durable of a contract file.`,
			examples: []string{
				`dvmsg durable reset plattform__from_maskin --since 2026-01-02T15:04:05Z --by operator:ola --reason "restored from a backup, DV-412" --dry-run`,
				`dvmsg durable reset plattform__from_maskin --from 4711 --by operator:ola --reason "handler repaired, DV-413"`,
				`dvmsg durable reset --file plattform.json --from 1 --by operator:ola --reason "restored from a backup, DV-412" --dry-run`,
			},
			make: newDurableReset,
		},
	}
}

type durableReset struct {
	decision
	file           string
	set            []history.Durable // of the contract file
	durable        history.Durable
	request        history.ResetRequest
	since, horizon string
}

func newDurableReset(fs *flag.FlagSet) verb {
	v := &durableReset{}
	v.decision.register(fs)
	fs.StringVar(&v.file, "file", "", "every durable of this contract `FILE` instead of DURABLE, - for the standard input")
	fs.StringVar(&v.durable.Stream, "stream", "", "the `STREAM` that the durable reads; default: the one that has a durable of this name")
	fs.Uint64Var(&v.request.From, "from", 0, "begin with message `N` of the stream")
	fs.StringVar(&v.since, "since", "", "begin at this `TIME`: an age (90m, 2h, 3d) or 2006-01-02T15:04:05Z")
	fs.StringVar(&v.horizon, "horizon", "45d", "how long the inbox of the durable's handlers remembers, as an `AGE`")
	fs.BoolVar(&v.request.BeyondHorizon, "beyond-horizon", false, "also when it reaches further back than that: effects are applied twice")
	registerDryRun(fs, &v.request.DryRun)
	return v
}

func (v *durableReset) check(c *call) {
	v.decision.check(c)
	v.durable.Name = c.arg(0)
	v.checkWhich(c)
	v.request.Since = checkTime(c, "--since", v.since)
	if (v.request.From > 0) != (v.since == "") {
		c.fault("say from where: --from or --since, one of them")
	}
	var ok bool
	if v.request.Horizon, ok = parseAge(v.horizon); !ok {
		c.fault("--horizon: %q is no age such as 1080h or 45d", v.horizon)
	}
	v.request.By, v.request.Reason = v.by, v.reason
	v.request.Logger = slog.New(slog.DiscardHandler) // the output says it
}

// checkWhich reads the contract file, if one is given.
func (v *durableReset) checkWhich(c *call) {
	if v.file == "" {
		if v.durable.Name == "" {
			c.fault("DURABLE is missing: name one, or all of a service with --file")
		}
		return
	}
	if v.durable.Name != "" || v.durable.Stream != "" {
		c.fault("--file: not with DURABLE or --stream; name one durable, or all of a service")
	}
	f := contractFile{file: v.file}
	f.check(c)
	for _, d := range f.set.Consumers {
		v.set = append(v.set, history.Durable{Stream: d.Stream.Name, Name: d.Durable})
	}
}

// durableResetResult is the JSON of durable reset, without --file.
type durableResetResult struct {
	DryRun bool `json:"dry_run"`
	history.Reset
	horizon time.Duration
}

func (v *durableReset) run(ctx context.Context, c *call) error {
	if v.file != "" {
		return v.runAll(ctx, c)
	}
	var r durableResetResult
	err := c.withNATS(ctx, func(conn *natsconn.Conn) (err error) {
		d := v.durable
		if d.Stream == "" {
			if d.Stream, err = streamOf(ctx, conn.JetStream(), d.Name); err != nil {
				return err
			}
		}
		reset, err := history.ResetDurable(ctx, conn.JetStream(), d, v.request)
		r = durableResetResult{v.request.DryRun, reset, v.request.Horizon}
		return err
	})
	if _, beyond := errors.AsType[*history.HorizonError](err); beyond {
		return fmt.Errorf("%w; look what its handlers would do, then repeat it with --beyond-horizon", err)
	}
	if err != nil {
		return err
	}
	return c.print(r, r.text)
}

// streamOf finds the stream that has a durable of this name, among those that
// topology names.
func streamOf(ctx context.Context, js jetstream.JetStream, durable string) (string, error) {
	names := []string{topology.StreamName(subject.Services()[0], topology.ClassTaskEvents)}
	for _, s := range subject.Services() {
		names = append(names, topology.StreamName(s, topology.ClassEvents), topology.StreamName(s, topology.ClassCommands))
	}
	var found []string
	for _, name := range names {
		_, err := js.Consumer(ctx, name, durable)
		switch {
		case err == nil:
			found = append(found, name)
		case !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound):
			return "", fmt.Errorf("look for durable %s on stream %s: %w", durable, name, err)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no stream of events, commands or task events has a durable %s; if it reads another stream, say --stream", durable)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("several streams have a durable %s: say --stream, one of %s", durable, strings.Join(found, ", "))
}

// line says what comes again.
func (r durableResetResult) line(p *page) {
	did := "hands"
	if r.DryRun {
		did = "would hand"
	}
	p.line("it %s %s %s of %s again, from message %d on, stored %s", did, r.Name, count(r.Again, "message"), r.Stream, r.From, p.when(r.StoredAt))
}

func (r durableResetResult) text(p *page) {
	r.line(p)
	if r.Waiting > 0 {
		p.line("%s it has not handled yet come after them", count(r.Waiting, "message"))
	}
	p.line("its inbox leaves out what it has handled; a handler without an inbox does it again")
	if r.BeyondHorizon {
		p.line("warning: the inbox remembers %s: what it has forgotten is applied again", age(r.horizon))
	}
	if !r.DryRun {
		p.line("next: dvmsg dlq list --durable %s --since 1h, for what fails", r.Name)
	}
}

func uint64Text(n uint64) string { return strconv.FormatUint(n, 10) }
