package topology

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/internal/sleep"
)

// Ensure creates what is missing of our own and verifies everything else, as
// Verify does. A service calls it once, when it starts.
//
// Our own are the streams whose owner is set.Service, and the durables and
// replay durables of set.Consumers. It never alters what exists, never touches
// another service's stream, and deletes nothing: drift is an error, a foreign
// stream that is missing is an error. Own streams are created before that is
// reported, so that two services that read each other can both start.
//
// A durable is created at its declared Start, also on a stream that holds
// messages. One that existed and was lost cannot be told from one that never
// was: with StartFirst its history is handled again, which the inbox absorbs
// within its horizon; with StartNew, what was unread is skipped. A running
// consumer therefore never creates its durable itself (requirement T9). A replay
// durable always begins with what comes after it (see [Consumer.ReplayConfig]).
//
// Replicas of a service may call it at the same moment. It needs the rights of
// Verify, and STREAM.CREATE.<stream> and CONSUMER.CREATE.<stream>.> for what it
// creates. A cluster that has just started, where no node can take a stream
// yet, is waited for as by Verify.
func Ensure(ctx context.Context, js jetstream.JetStream, set Set) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	a, err := open(ctx, js, set)
	if err != nil {
		return err
	}
	var errs []error
	usable := map[string]bool{}
	own, foreign := set.own()
	for _, s := range own {
		fault := a.ensureStream(ctx, set, s)
		usable[s.Name] = len(fault) == 0
		errs = append(errs, fault...)
	}
	for _, s := range foreign {
		fault, _ := a.verifyStream(ctx, set, s)
		usable[s.Name] = len(fault) == 0
		errs = append(errs, fault...)
	}
	for _, d := range set.durables() {
		// Nothing is built on a stream that is not as declared: a durable on
		// one with WorkQueue retention, say, would change who gets what.
		if usable[d.stream] {
			errs = append(errs, a.ensureConsumer(ctx, d)...)
		}
	}
	for _, s := range own {
		// Again, now that our durables exist: two releases that start at the
		// same moment saw nothing of each other before.
		if s.Class == ClassCommands && usable[s.Name] {
			errs = append(errs, a.commandOverlaps(ctx, set, s)...)
		}
	}
	return errors.Join(errs...)
}

func (a api) ensureStream(ctx context.Context, set Set, s Stream) []error {
	fault, found := a.verifyStream(ctx, set, s)
	if found {
		return fault
	}
	if err := a.createStream(ctx, s.Config()); err != nil && !existsNow(err) {
		return []error{err}
	}
	return settled(ctx, func() ([]error, bool) { return a.verifyStream(ctx, set, s) })
}

func (a api) ensureConsumer(ctx context.Context, d wantedDurable) []error {
	fault, found := a.verifyConsumer(ctx, d)
	if found {
		return fault
	}
	if err := a.createConsumer(ctx, d.stream, d.config); err != nil && !existsNow(err) {
		return []error{err}
	}
	return settled(ctx, func() ([]error, bool) { return a.verifyConsumer(ctx, d) })
}

// settled looks at what was created: it is ours, or another's who was quicker
// and may have declared otherwise. In a cluster a create can be accepted a
// moment before every node that may be asked knows about it (seen with four
// replicas creating at once), so not found is asked again until ctx ends.
func settled(ctx context.Context, look func() (fault []error, found bool)) []error {
	for attempt := 1; ; attempt++ {
		fault, found := look()
		if found || ctx.Err() != nil {
			return fault
		}
		sleep.For(ctx, waits().Delay(attempt))
	}
}

// existsNow reports whether a create failed because somebody else created it
// otherwise in between.
func existsNow(err error) bool {
	v, _ := classify(err)
	return v == different
}
