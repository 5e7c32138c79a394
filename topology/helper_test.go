package topology_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// maskinEvents is another service's stream.
func maskinEvents() topology.Stream { return topology.Events(subject.Maskin, topology.Limits{}) }

// plattform is a service with everything: commands of its own, events of its
// own and events of another.
func plattform() topology.Set {
	commands := topology.Commands(subject.Plattform, topology.Limits{})
	return topology.Set{
		Service: subject.Plattform,
		Streams: []topology.Stream{
			commands,
			topology.Events(subject.Plattform, topology.Limits{}),
			topology.DeadLetters(subject.Plattform, topology.Limits{}),
			topology.DeadLetterOps(subject.Plattform, topology.Limits{}),
			maskinEvents(),
		},
		Consumers: []topology.Consumer{
			{
				Durable: "plattform__commands", Stream: commands,
				Filter: subject.CommandsOf(subject.Plattform), Start: topology.StartFirst(),
			},
			{
				Durable: "plattform__from_maskin", Stream: maskinEvents(),
				Filter: subject.EventsOf(subject.Maskin), Start: topology.StartNew(),
				AckWait: 30 * time.Second, MaxAckPending: 16,
			},
		},
	}
}

// maskin is the owner of maskinEvents.
func maskin() topology.Set {
	return topology.Set{Service: subject.Maskin, Streams: []topology.Stream{maskinEvents()}}
}

// server is one with the streams of the given services.
func server(tb testing.TB, sets ...topology.Set) jetstream.JetStream {
	tb.Helper()
	js := dvtest.NATS(tb).JetStream()
	for _, set := range sets {
		require.NoError(tb, topology.Ensure(tb.Context(), js, set))
	}
	return js
}

// drifted returns the fields of all *DriftError in err, with their objects.
func drifted(err error) map[string]string {
	fields := map[string]string{}
	for _, e := range flatten(err) {
		if d, ok := errors.AsType[*topology.DriftError](e); ok {
			fields[d.Field] = d.Object
		}
	}
	return fields
}

// missing returns the objects of all *MissingError in err.
func missing(err error) []string {
	var objects []string
	for _, e := range flatten(err) {
		if m, ok := errors.AsType[*topology.MissingError](e); ok {
			objects = append(objects, m.Object)
		}
	}
	return objects
}

// flatten returns the leaves of joined errors.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

func streamNames(tb testing.TB, js jetstream.JetStream) []string {
	tb.Helper()
	var names []string
	lister := js.StreamNames(tb.Context())
	for name := range lister.Name() {
		names = append(names, name)
	}
	require.NoError(tb, lister.Err())
	return names
}

func config(tb testing.TB, js jetstream.JetStream, stream string) jetstream.StreamConfig {
	tb.Helper()
	s, err := js.Stream(tb.Context(), stream)
	require.NoError(tb, err)
	return s.CachedInfo().Config
}

// short is a context for operations that are expected to wait in vain.
func short(tb testing.TB, d time.Duration) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), d)
	tb.Cleanup(cancel)
	return ctx
}

func asError[E error](tb testing.TB, err error) E {
	tb.Helper()
	found, ok := errors.AsType[E](err)
	require.True(tb, ok, "%v", err)
	return found
}
