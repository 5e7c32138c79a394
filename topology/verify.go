package topology

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
)

// Verify compares the declaration with the server and changes nothing
// (requirement T3). It returns nil, or everything that is wrong, joined:
//
//   - the Set itself (Validate), and then nothing else is asked
//   - *MissingError: JetStream, a stream, a durable or a replay durable
//   - *DriftError: a setting that contradicts the declaration, also the
//     server's version (at least 2.12.12 of 2.12, else 2.14.3) and max_payload
//   - *OverlapError: another durable on our command stream receives what ours
//     does
//
// More than declared is no drift: further subjects, more replicas, larger
// MaxBytes, MaxMsgs or MaxMsgSize, and DenyDelete or DenyPurge on a stream of
// commands or events. Metadata, description, placement and compression are not
// compared, nor is a consumer's pause.
//
// It needs the rights INFO, STREAM.INFO.<stream>, CONSUMER.INFO.<stream>.<durable>
// of the JetStream API, and CONSUMER.LIST.<stream> for our own command stream.
// While the cluster is electing it waits, until ctx ends; without a deadline in
// ctx, one minute.
func Verify(ctx context.Context, js jetstream.JetStream, set Set) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	a, err := open(ctx, js, set)
	if err != nil {
		return err
	}
	var errs []error
	missing := map[string]bool{}
	for _, s := range set.Streams {
		fault, found := a.verifyStream(ctx, set, s)
		missing[s.Name] = !found
		errs = append(errs, fault...)
	}
	for _, d := range set.durables() {
		// Of a missing stream the stream is worth reporting, not its consumers.
		if !missing[d.stream] {
			fault, _ := a.verifyConsumer(ctx, d)
			errs = append(errs, fault...)
		}
	}
	return errors.Join(errs...)
}

// open checks what everything else rests on.
func open(ctx context.Context, js jetstream.JetStream, set Set) (api, error) {
	if err := set.Validate(); err != nil {
		return api{}, err
	}
	a := api{js: js}
	return a, a.checkServer(ctx, set)
}

// wantedDurable is a durable that a Set asks for, of a consumer or its replays.
type wantedDurable struct {
	stream string
	config consumerConfig
}

func (d wantedDurable) object() string { return consumerObject(d.stream, d.config.Durable) }

// durables lists each consumer's own and its replay durable.
func (set Set) durables() []wantedDurable {
	var list []wantedDurable
	for _, c := range set.Consumers {
		list = append(list,
			wantedDurable{c.Stream.Name, c.Config()},
			wantedDurable{c.ReplayStream(), c.ReplayConfig()})
	}
	return list
}

// verifyStream compares one stream; found is also true if that is not known.
func (a api) verifyStream(ctx context.Context, set Set, s Stream) (errs []error, found bool) {
	got, found, err := a.stream(ctx, s.Name)
	switch {
	case err != nil:
		return []error{err}, true
	case !found:
		return []error{missingStream(set, s)}, false
	}
	errs = drift(streamObject(s.Name), streamFields(s.Class), s.Config(), got)
	if s.Class == ClassCommands && s.Service == set.Service {
		errs = append(errs, a.commandOverlaps(ctx, set, s)...)
	}
	return errs, true
}

func (a api) verifyConsumer(ctx context.Context, d wantedDurable) (errs []error, found bool) {
	got, found, err := a.consumer(ctx, d.stream, d.config.Durable)
	switch {
	case err != nil:
		return []error{err}, true
	case !found:
		return []error{&MissingError{Object: d.object(),
			Remedy: "call topology.Ensure when the service starts, or let the operator apply; it begins at its declared Start, also if it existed before"}}, false
	}
	return drift(d.object(), consumerFields(), d.config, got), true
}

func missingStream(set Set, s Stream) error {
	remedy := "call topology.Ensure when the service starts, or let the operator apply"
	if s.owner() != set.Service {
		remedy = "it belongs to " + s.owner().String() + ", which creates it when it starts; deploy that first, or let the operator apply its topology"
	}
	return &MissingError{Object: streamObject(s.Name), Remedy: remedy}
}
