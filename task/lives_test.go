package task_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/task"
)

// randomLife is a random walk over the table of transitions, with requests to cancel at any
// place: replays, attempts that died, tasks that nobody opened.
func randomLife(r *rand.Rand) (history []did, end task.State) {
	least := map[task.Verb]int64{task.VerbCreated: 1, task.VerbQueued: 2}
	version, attempt := int64(0), 0
	for range 2 + r.IntN(14) {
		if r.IntN(6) == 0 {
			history = append(history, asked(fmt.Sprint("reason ", len(history))))
			continue
		}
		typ := lifeTypes[r.IntN(len(lifeTypes))]
		verb := task.Verb(typ.Subject().Verb())
		next, err := end.Next(verb, the)
		if err != nil || end.Ended() && r.IntN(3) == 0 {
			continue
		}
		if least[verb] == 0 {
			least[verb] = 3
		}
		end, version = next, max(version+1, least[verb])
		if verb == task.VerbStarted {
			attempt++
		}
		history = append(history, v(typ, version, attempt).saying(percent(r.IntN(101))))
	}
	return history, end
}

// lifeTypes is constant: the events that make a life.
var lifeTypes = []envelope.Type[task.EventV1]{
	task.Created, task.Queued, task.Queued, task.Started, task.Started, task.Progress, task.Progress,
	task.Succeeded, task.Failed, task.Failed, task.Cancelled,
}

// Long lives, each in a few of its orders, with repeats.
func TestTheProjectionOfAnyLifeIsItsEnd(t *testing.T) {
	t.Parallel()
	w := &worker{pool: dvtest.Postgres(t)}
	p, err := task.NewProjection(w.pool, task.ProjectionConfig{})
	require.NoError(t, err)
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 0))
		history, end := randomLife(r)
		if len(history) == 0 {
			continue
		}
		all := stored(t, history)
		want := projected(t, w, p, all...)
		require.Contains(t, want, fmt.Sprintf(`"state": %q`, end), "seed %d", seed)
		for range 4 {
			come := append(append([]envelope.Received[task.EventV1]{}, all...), all[:r.IntN(len(all)+1)]...)
			r.Shuffle(len(come), func(i, j int) { come[i], come[j] = come[j], come[i] })
			require.Equal(t, want, projected(t, w, p, come...), "seed %d", seed)
		}
	}
}

// An act is something that happens to a command: a delivery whose handler behaves in
// some way, or a request to cancel.
type act struct {
	behaviour string
	replay    bool
	dies      bool          // between the event of the failure and the mark
	takes     time.Duration // for the handler
}

func randomAct(r *rand.Rand) act {
	behaviours := []string{"ok", "error", "error", "permanent", "permanent", "panic", "interrupted", "there", "open", "fail", "ask"}
	return act{
		behaviours[r.IntN(len(behaviours))], r.IntN(3) == 0, r.IntN(4) == 0,
		time.Duration(r.IntN(6)) * time.Millisecond,
	}
}

// handle behaves.
func (a act) handle(ctx context.Context, stop func()) error {
	run := task.FromContext(ctx)
	run.Progress(50, "half")
	<-time.After(a.takes)
	switch a.behaviour {
	case "error":
		return errBroken
	case "permanent":
		return envelope.Permanent(errBroken)
	case "panic":
		panic("boom")
	case "interrupted":
		stop()
		return ctx.Err()
	case "there":
		return envelope.ErrAlreadyProcessed
	case "open":
		run.LeaveOpen()
	case "fail":
		run.Fail("", "no")
	}
	return nil
}

// happens has a consumer do what it does.
func (w *worker) happens(t testing.TB, m envelope.Message, a act) error {
	if a.behaviour == "ask" {
		return w.ask(t, m.Envelope.ID, "no longer wanted")
	}
	d := delivery(m)
	if a.replay {
		d.LetterID = letter
	}
	ctx, stop := context.WithCancel(d.Context(t.Context()))
	defer stop()
	route := w.route(func(ctx context.Context, _ pgx.Tx, _ received) error { return a.handle(ctx, stop) })
	err := func() (err error) {
		defer func() {
			if recover() != nil {
				err = errBroken
			}
		}()
		return route.Handle(ctx, d)
	}()
	switch {
	case err == nil, errors.Is(err, envelope.ErrAlreadyProcessed):
		return nil
	case a.replay: // this was its last attempt
	case !envelope.IsPermanent(err), ctx.Err() != nil:
		return nil
	}
	if err := route.OnDead(t.Context(), d, &envelope.Failure{Class: envelope.ClassPoison, Err: err}, letter); err != nil || a.dies {
		return err
	}
	if err := route.MarkDead(t.Context(), d, letter); err != nil && !errors.Is(err, envelope.ErrAlreadyProcessed) {
		return err
	}
	return nil
}

// Whatever befalls a command, one copy at a time or two at once: its events are a legal
// life without a gap, and the end of that life is what the inbox and the effect say.
func TestTheEventsOfACommandAreALegalLifeThatEndsAsTheCommandDid(t *testing.T) {
	t.Parallel()
	w := setup(t, time.Millisecond)
	for seed := range uint64(40) {
		r, m, said := rand.New(rand.NewPCG(seed, 1)), command(t), []string{}
		for range 2 + r.IntN(7) {
			var both sync.WaitGroup
			errs := make([]error, 1+r.IntN(2))
			for i := range errs {
				a := randomAct(r)
				said = append(said, fmt.Sprintf("%d: %+v", i, a))
				both.Go(func() { errs[i] = w.happens(t, m, a) })
			}
			both.Wait()
			require.NoError(t, errors.Join(errs...))
		}
		w.requireALife(t, m, fmt.Sprintf("seed %d:\n%s", seed, strings.Join(said, "\n")))
	}
}

// requireALife checks the events of a command against what became of it.
func (w *worker) requireALife(t testing.TB, m envelope.Message, said string) {
	t.Helper()
	state := task.StateQueued
	all := events(t, w.pool, m.Envelope.ID)
	for i, e := range all {
		require.EqualValues(t, i+3, e.Version, said)
		next, err := state.Next(task.Verb(e.verb), m.Envelope.ID)
		require.NoError(t, err, said)
		state = next
	}
	said = fmt.Sprintf("%s\n%v", said, life(all))
	var handled, dead bool
	require.NoError(t, w.pool.QueryRow(t.Context(), `select count(*) filter (where letter_id is null) > 0, count(*) filter (where letter_id is not null) > 0
  from messaging.inbox_messages where message_id = $1`, m.Envelope.ID).Scan(&handled, &dead))
	switch {
	case dead:
		require.True(t, state.Ended(), said)
	case handled: // with success, a failure of the handler's own, or left open
		require.Contains(t, []task.State{task.StateSucceeded, task.StateFailed, task.StateStarted}, state, said)
	case state == task.StateSucceeded:
		require.Contains(t, said, "there", "nothing was done")
	}
}
