package consumer_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// serverV2 and serverV3 are later versions of serverV1.
type (
	serverV2 struct {
		Host string `json:"host"`
	}
	serverV3 struct {
		Host string `json:"host"`
		Rack int    `json:"rack"`
	}
)

func provisionedSpec(version int) envelope.EventSpec {
	return envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: version}
}

// provisioned2 and provisioned3 are constant.
var (
	provisioned2 = envelope.MustEvent(provisionedSpec(2), envelope.Upcast(provisioned, func(old serverV1) (serverV2, error) {
		switch old.Hostname {
		case "":
			return serverV2{}, errBroken
		case "boom":
			panic("boom")
		}
		return serverV2{"from1:" + old.Hostname}, nil
	}))
	provisioned3 = envelope.MustEvent(provisionedSpec(3), envelope.Upcast(provisioned2, func(old serverV2) (serverV3, error) {
		return serverV3{Host: "from2:" + old.Host}, nil
	}))
)

// named is a handler that tells which one it is and what it got.
func named[T any](got chan<- string, name string, host func(T) string) func(context.Context, envelope.Received[T]) error {
	return func(_ context.Context, m envelope.Received[T]) error {
		got <- name + " " + host(m.Data)
		return nil
	}
}

func TestHandlerOfANewVersionReceivesOldMessages(t *testing.T) {
	t.Parallel()
	b, got := setup(t), make(chan string, 3)
	b.run(t, b.config(), consumer.On(provisioned3, named(got, "3", func(d serverV3) string { return d.Host })))
	b.publish(t, "a")
	require.Equal(t, "3 from2:from1:a", <-got)
	b.send(t, draft(t, provisioned2.New("srv-b", serverV2{"b"})))
	require.Equal(t, "3 from2:b", <-got)
	b.send(t, draft(t, provisioned3.New("srv-c", serverV3{"c", 1})))
	require.Equal(t, "3 c", <-got)
	b.settled(t)
	require.Empty(t, b.graves.all())
}

func TestAnOldMessageGoesToTheHandlerOfTheNearestVersion(t *testing.T) {
	t.Parallel()
	b, got := setup(t), make(chan string, 1)
	three := consumer.On(provisioned3, named(got, "3", func(d serverV3) string { return d.Host }))
	two := consumer.On(provisioned2, named(got, "2", func(d serverV2) string { return d.Host }))
	one := consumer.On(provisioned, named(got, "1", func(d serverV1) string { return d.Hostname }))
	r := b.run(t, b.config(), three, two)
	b.publish(t, "a")
	require.Equal(t, "2 from1:a", <-got)
	b.settled(t)
	require.NoError(t, r.stop())
	b.run(t, b.config(), three, two, one)
	b.publish(t, "b")
	require.Equal(t, "1 b", <-got)
	b.settled(t)
}

// A row of docs/DELIVERY.md.
func TestWhatAnUpcasterRefusesBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t, b.config(), consumer.On(provisioned2, func(context.Context, envelope.Received[serverV2]) error {
		return errors.New("the handler must not see it")
	}))
	b.publish(t, "", "boom")
	for _, f := range b.graves.await(t, 2) {
		require.Equal(t, envelope.ClassDecode, f.Class)
		require.ErrorIs(t, f.Err, envelope.ErrMalformed)
		fault, ok := errors.AsType[*envelope.DecodeError](f.Err)
		require.True(t, ok)
		require.Equal(t, envelope.FaultUpcast, fault.Fault)
		require.ErrorContains(t, f.Err, "decode maskin.server.provisioned v1: cannot be carried forward from version 1")
	}
	b.settled(t)
}

func TestUnknownTypeAndVersionSayWhatToDo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t, b.config(), consumer.On(provisioned2, func(context.Context, envelope.Received[serverV2]) error { return nil }))
	b.send(t, draft(t, provisioned3.New("srv-a", serverV3{})))
	moved := envelope.MustEvent[serverV1](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "moved", Version: 1})
	b.send(t, draft(t, moved.New("srv-a", serverV1{})))
	letters := b.graves.await(t, 2)
	b.settled(t)
	for _, f := range letters {
		require.Equal(t, envelope.ClassDecode, f.Class)
		fault, ok := errors.AsType[*envelope.DecodeError](f.Err)
		require.True(t, ok)
		if fault.Type == moved.Name() {
			require.Equal(t, envelope.FaultType, fault.Fault)
			require.EqualError(t, f.Err, "consumer: route message: envelope: decode maskin.server.moved v1: no handler; this consumer handles "+
				"maskin.server.provisioned v1, maskin.server.provisioned v2: add one, or narrow the durable's filter, then replay or discard")
			continue
		}
		require.Equal(t, envelope.FaultVersion, fault.Fault)
		require.EqualError(t, f.Err, "consumer: route message: envelope: decode maskin.server.provisioned v3: no handler of this version; "+
			"this consumer handles v1, v2: deploy a release that handles the newer one, then replay")
	}
}

func TestAnOlderVersionThatNobodyCarriesForwardSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	alone := envelope.MustEvent[serverV2](provisionedSpec(2))
	b.run(t, b.config(), consumer.On(alone, func(context.Context, envelope.Received[serverV2]) error { return nil }))
	b.publish(t, "a")
	require.ErrorContains(t, b.graves.await(t, 1)[0].Err, "this consumer handles v2: carry the older one forward with envelope.Upcast, then replay")
	b.settled(t)
}

// An upcaster sees the data alone. Whatever it calls and returns, the message is
// neither acknowledged nor tried again.
func TestAnUpcastersErrorIsFinalWhateverItWraps(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{envelope.ErrParked, envelope.ErrFenced, envelope.ErrAlreadyProcessed, envelope.RetryAfter(1, nil), context.Canceled} {
		b := setup(t)
		v2 := envelope.MustEvent(provisionedSpec(2), envelope.Upcast(provisioned, func(serverV1) (serverV2, error) { return serverV2{}, cause }))
		b.run(t, b.config(), consumer.On(v2, func(context.Context, envelope.Received[serverV2]) error { return nil }))
		b.publish(t, "a")
		b.settled(t)
		require.Len(t, b.graves.all(), 1, "%v", cause)
		require.Equal(t, envelope.ClassDecode, b.graves.all()[0].Class, "%v", cause)
	}
}
