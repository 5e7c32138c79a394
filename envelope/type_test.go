package envelope_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"github.com/stretchr/testify/require"
)

func TestTypesHaveTheirNamesOnTheWire(t *testing.T) {
	t.Parallel()
	require.Equal(t, "maskin.server.provisioned", provisioned.Name())
	require.Equal(t, "dv.maskin.evt.server.provisioned", provisioned.Subject().String())
	require.Equal(t, "urn:dataverket:schema:maskin.server.provisioned:v1", provisioned.Schema())
	require.Equal(t, 1, provisioned.Version())
	require.Equal(t, "maskin.server.provisioned v1", provisioned.String())

	require.Equal(t, "maskin.server.provision.requested", provision.Name())
	require.Equal(t, "dv.maskin.cmd.provision", provision.Subject().String())
	require.Equal(t, "urn:dataverket:schema:maskin.server.provision.requested:v3", provision.Schema())
	require.Equal(t, 3, provision.Version())
}

func TestTaskEventsBelongToNoServiceAndAnyMaySendThem(t *testing.T) {
	t.Parallel()
	done := envelope.MustTaskEvent[provisionedV1](envelope.TaskSpec{Verb: "succeeded", Version: 2})
	require.Equal(t, "task.succeeded v2", done.String())
	require.Equal(t, "dv.task.evt.succeeded", done.Subject().String())
	for _, s := range []subject.Service{subject.Maskin, subject.Sentral} {
		_, err := envelope.New(originCtx(t, nil), s, done.New("task-1", provisionedV1{}))
		require.NoError(t, err)
	}
	_, err := envelope.TaskEvent[string](envelope.TaskSpec{Verb: "Done"})
	for _, want := range []string{"verb", "envelope: TaskSpec.Version: must be 1 to 65535", "string does not marshal to a JSON object"} {
		require.ErrorContains(t, err, want)
	}
	require.Panics(t, func() { envelope.MustTaskEvent[provisionedV1](envelope.TaskSpec{}) })
}

func TestTypesAreComparable(t *testing.T) {
	t.Parallel()
	again := envelope.MustEvent[provisionedV1](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
	})
	require.True(t, again == provisioned)
}

func TestSpecsAreRefusedWithAllFaults(t *testing.T) {
	t.Parallel()
	_, err := envelope.Event[string](envelope.EventSpec{Entity: "Server", Verb: "provisioned.now", Version: 65536})
	for _, want := range []string{
		"service", "entity", "verb", "envelope: EventSpec.Version: must be 1 to 65535",
		"envelope: data type: string does not marshal to a JSON object",
	} {
		require.ErrorContains(t, err, want)
	}
	_, err = envelope.Command[[]byte](envelope.CommandSpec{Service: subject.Maskin, Entity: "a-b", Action: ""})
	for _, want := range []string{
		"action", "envelope: CommandSpec.Entity: must be a-z, 0-9 and _, beginning with a letter",
		"envelope: CommandSpec.Version: must be 1 to 65535", "[]uint8 does not marshal to a JSON object",
	} {
		require.ErrorContains(t, err, want)
	}
	for _, entity := range []string{"", "1a", "_a", "a.b", strings.Repeat("a", 65)} {
		_, err := envelope.Command[provisionV1](envelope.CommandSpec{Service: subject.Nett, Entity: entity, Action: "apply", Version: 1})
		require.Error(t, err, entity)
	}
	require.Panics(t, func() { envelope.MustEvent[provisionedV1](envelope.EventSpec{}) })
	require.Panics(t, func() { envelope.MustCommand[provisionV1](envelope.CommandSpec{}) })
}

func TestTheLongestNamesStillMakeAType(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 64)
	longest := envelope.MustCommand[provisionV1](envelope.CommandSpec{
		Service: subject.Identitet, Entity: long, Action: long, Version: 65535,
	})
	m, err := envelope.New(originCtx(t, nil), subject.Sentral, longest.New("r", provisionV1{}))
	require.NoError(t, err)
	_, err = m.Envelope.Encode()
	require.NoError(t, err)
}

// selfMarshaled writes itself, as a generated type may.
type selfMarshaled []string

func (s selfMarshaled) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string][]string{"items": s})
}

func TestPayloadsAreStructsMapsOrMarshalThemselves(t *testing.T) {
	t.Parallel()
	spec := envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "seen", Version: 1}
	for name, err := range map[string]error{
		"struct":       second(envelope.Event[provisionedV1](spec)),
		"pointer":      second(envelope.Event[**provisionedV1](spec)),
		"map":          second(envelope.Event[map[string]int](spec)),
		"own":          second(envelope.Event[selfMarshaled](spec)),
		"raw":          second(envelope.Event[json.RawMessage](spec)),
		"pointer only": second(envelope.Event[json.RawMessage](spec)),
	} {
		require.NoError(t, err, name)
	}
	for name, err := range map[string]error{
		"slice": second(envelope.Event[[]provisionedV1](spec)), "int": second(envelope.Event[int](spec)),
		"any": second(envelope.Event[any](spec)), "pointer to string": second(envelope.Event[*string](spec)),
	} {
		require.ErrorContains(t, err, "does not marshal to a JSON object", name)
	}
}

func second[T any](_ T, err error) error { return err }

func TestTypeDecodesItsOwn(t *testing.T) {
	t.Parallel()
	data, err := provisioned.Decode(event(t, func(e *envelope.Envelope) {
		e.Data = json.RawMessage(`{"server_id":"9a1","hostname":"web-1","unknown":[1,2,3]}`)
	}))
	require.NoError(t, err)
	require.Equal(t, provisionedV1{ServerID: "9a1", Hostname: "web-1"}, data)
}

func TestTypeRefusesOthersAndSaysBoth(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault  envelope.DecodeFault
		want   string
		change func(*envelope.Envelope)
	}{
		{envelope.FaultType, "envelope: malformed: envelope: decode nett.server.provisioned v1: " +
			"it is no maskin.server.provisioned v1: decode it with the Type of its own name", func(e *envelope.Envelope) {
			e.Type = "nett.server.provisioned"
			e.DataSchema = "urn:dataverket:schema:nett.server.provisioned:v1"
		}},
		{envelope.FaultVersion, "envelope: malformed: envelope: decode maskin.server.provisioned v2: " +
			"version 1 is known here: update to the release that declares the newer one, then replay", func(e *envelope.Envelope) {
			e.DataSchema = "urn:dataverket:schema:maskin.server.provisioned:v2"
		}},
	} {
		e := event(t, c.change)
		data, err := provisioned.Decode(e)
		require.ErrorIs(t, err, envelope.ErrMalformed)
		require.EqualError(t, err, c.want)
		require.Zero(t, data)
		fault, ok := errors.AsType[*envelope.DecodeError](err)
		require.True(t, ok)
		require.Equal(t, []any{c.fault, e.Type, e.SchemaVersion()}, []any{fault.Fault, fault.Type, fault.Version})
	}
	_, err := envelope.Type[provisionedV1]{}.Decode(event(t, nil))
	require.ErrorIs(t, err, envelope.ErrMalformed)
}

// timed refuses what is no time, with an error that quotes it.
type timed struct {
	ServerID string    `json:"server_id"`
	At       time.Time `json:"at"`
	Slot     int8      `json:"slot"`
}

// The causes of encoding/json quote the data; the error text must not.
func TestDataThatDoesNotFitIsExplainedWithoutItsContent(t *testing.T) {
	t.Parallel()
	events := envelope.MustEvent[timed](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
	})
	for data, want := range map[string]string{
		`{"server_id":4711}`:            `field "server_id" cannot take a number as string (byte 17)`,
		`{"slot":4711}`:                 `field "slot" cannot take a number as int8 (byte 12)`,
		`{"server_id":"x","at":"4711"}`: `refused by *time.ParseError`,
	} {
		got, err := events.Decode(event(t, func(e *envelope.Envelope) { e.Data = json.RawMessage(data) }))
		require.ErrorIs(t, err, envelope.ErrMalformed)
		require.EqualError(t, err, "envelope: malformed: envelope: decode maskin.server.provisioned v1: the data does not fit: "+want+
			"; its producer breaks the contract of this version: mend it, and replay with corrected data")
		fault, ok := errors.AsType[*envelope.DecodeError](err)
		require.True(t, ok)
		require.Equal(t, envelope.FaultData, fault.Fault)
		require.Zero(t, got, "nothing half-filled is returned")
	}
	_, err := events.Decode(event(t, func(e *envelope.Envelope) { e.Data = json.RawMessage(`{"server_id":1}`) }))
	cause, ok := errors.AsType[*json.UnmarshalTypeError](err)
	require.True(t, ok, "the cause can be asked for")
	require.Equal(t, "server_id", cause.Field)
}
