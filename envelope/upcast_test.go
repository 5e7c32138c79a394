package envelope_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"github.com/stretchr/testify/require"
)

// Three versions of one event: the name was split from its domain, then the site
// was added, which older servers have from their name.
type (
	namedV1 struct {
		Name string `json:"name"`
	}
	namedV2 struct {
		Host   string `json:"host"`
		Domain string `json:"domain"`
	}
	namedV3 struct {
		Host   string `json:"host"`
		Domain string `json:"domain"`
		Site   string `json:"site"`
	}
)

func namedSpec(version int) envelope.EventSpec {
	return envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "named", Version: version}
}

var errNoName = errors.New("a server without a name is none")

// named1, named2 and named3 are constant.
var (
	named1 = envelope.MustEvent[namedV1](namedSpec(1))
	named2 = envelope.MustEvent(namedSpec(2), envelope.Upcast(named1, func(old namedV1) (namedV2, error) {
		if old.Name == "" {
			return namedV2{}, errNoName
		}
		return namedV2{Host: old.Name, Domain: "example"}, nil
	}))
	named3 = envelope.MustEvent(namedSpec(3), envelope.Upcast(named2, func(old namedV2) (namedV3, error) {
		return namedV3{old.Host, old.Domain, old.Host[:3]}, nil // panics where it is shorter
	}))
)

// named is an envelope of a version.
func named(t *testing.T, version int, data string) *envelope.Envelope {
	t.Helper()
	return event(t, func(e *envelope.Envelope) {
		e.Type = "maskin.server.named"
		e.DataSchema = fmt.Sprintf("urn:dataverket:schema:maskin.server.named:v%d", version)
		e.Data = json.RawMessage(data)
	})
}

func TestOlderVersionsAreCarriedForwardStepByStep(t *testing.T) {
	t.Parallel()
	require.Equal(t, []int{1, 2}, named3.Older())
	require.Equal(t, []int{1}, named2.Older())
	require.Empty(t, named1.Older())
	require.Equal(t, []envelope.Declaration{named2.Declaration()}, named3.Declaration().Older)
	require.Equal(t, []envelope.Declaration{named1.Declaration()}, named2.Declaration().Older)

	want := namedV3{"osl1", "example", "osl"}
	for version, data := range map[int]string{
		1: `{"name":"osl1"}`,
		2: `{"host":"osl1","domain":"example"}`,
		3: `{"host":"osl1","domain":"example","site":"osl"}`,
	} {
		got, err := named3.Decode(named(t, version, data))
		require.NoError(t, err)
		require.Equal(t, want, got, version)
	}
	_, err := named2.Decode(named(t, 3, `{}`))
	fault, ok := errors.AsType[*envelope.DecodeError](err)
	require.True(t, ok, "nothing is carried back")
	require.Equal(t, envelope.FaultVersion, fault.Fault)
	_, err = named3.Decode(named(t, 4, `{}`))
	require.ErrorContains(t, err, "version 3 is known here: update")
}

func TestAnOlderVersionWithoutAnUpcasterIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	alone := envelope.MustEvent[namedV2](namedSpec(2))
	_, err := alone.Decode(named(t, 1, `{}`))
	require.ErrorIs(t, err, envelope.ErrMalformed)
	require.ErrorContains(t, err, "decode maskin.server.named v1: version 2 is known here, and nothing carries the older one forward: "+
		"give its declaration an envelope.Upcast, then replay")
}

func TestAnUpcasterThatFailsOrPanicsMakesTheMessageMalformed(t *testing.T) {
	t.Parallel()
	got, err := named3.Decode(named(t, 1, `{"name":""}`))
	require.Zero(t, got)
	require.ErrorIs(t, err, envelope.ErrMalformed)
	require.EqualError(t, err, "envelope: malformed: envelope: decode maskin.server.named v1: "+
		"cannot be carried forward from version 1: a server without a name is none")
	fault, ok := errors.AsType[*envelope.DecodeError](err)
	require.True(t, ok)
	require.Equal(t, envelope.FaultUpcast, fault.Fault)
	require.Equal(t, errNoName, fault.Err)
	require.NotErrorIs(t, err, errNoName, "or it could be a verdict")

	got, err = named3.Decode(named(t, 1, `{"name":"x"}`))
	require.Zero(t, got)
	require.ErrorIs(t, err, envelope.ErrMalformed)
	require.ErrorContains(t, err, "cannot be carried forward from version 2: the upcaster panicked with "+
		"runtime error: slice bounds out of range [:3] with length 1 at ")
	require.ErrorContains(t, err, "envelope_test.init.func2:", "the author finds the line")

	// What is not the runtime's own text may be the data.
	loud := envelope.MustEvent(namedSpec(2), envelope.Upcast(named1, func(old namedV1) (namedV2, error) { panic(old.Name) }))
	_, err = loud.Decode(named(t, 1, `{"name":"secret"}`))
	require.ErrorContains(t, err, "panicked with a string")
	require.NotContains(t, err.Error(), "secret")
}

func TestDataThatFitsNoVersionNamesTheVersionItHas(t *testing.T) {
	t.Parallel()
	_, err := named3.Decode(named(t, 1, `{"name":7}`))
	require.ErrorContains(t, err, `decode maskin.server.named v1: the data does not fit: field "name" cannot take a number`)
}

func TestUpcastersThatCannotBeMeantAreRefused(t *testing.T) {
	t.Parallel()
	noChange := func(old namedV1) (namedV1, error) { return old, nil }
	other := envelope.MustEvent[namedV1](envelope.EventSpec{Service: subject.Nett, Entity: "server", Verb: "named", Version: 1})
	from2 := envelope.MustEvent(namedSpec(2), envelope.Upcast(named1, noChange))
	for want, all := range map[string][]envelope.Upcaster[namedV1]{
		"Upcast: is empty":                     {{}},
		"begins at nett.server.named, which":   {envelope.Upcast(other, noChange)},
		"is not older than version 3":          {envelope.Upcast(named3, func(namedV3) (namedV1, error) { return namedV1{}, nil })},
		"from version 1 of maskin.server.name": {envelope.Upcast[namedV1, namedV1](named1, nil)},
		"carries version 1 of maskin.server.named forward, and so does another": {
			envelope.Upcast(from2, noChange), envelope.Upcast(named1, noChange),
		},
	} {
		_, err := envelope.Event(namedSpec(3), all...)
		require.ErrorContains(t, err, want)
	}
	_, err := envelope.Command(envelope.CommandSpec{Service: subject.Maskin, Entity: "server", Action: "name", Version: 2},
		envelope.Upcast(named1, noChange))
	require.ErrorContains(t, err, "another type than maskin.server.name.requested")
}

func TestATypeWithUpcastersEqualsItsCopies(t *testing.T) {
	t.Parallel()
	again := named3
	require.True(t, again == named3)
}

func TestVisibilityIsDeclaredOnceAndWrittenOnlyWhenExternal(t *testing.T) {
	t.Parallel()
	spec := namedSpec(1)
	for _, c := range []struct {
		declared, want envelope.Visibility
		opts           []envelope.Option
	}{
		{envelope.Internal, envelope.Internal, nil},
		{envelope.External, envelope.External, nil},
		{envelope.Internal, envelope.External, []envelope.Option{envelope.ExternallyVisible()}},
	} {
		spec.Visibility = c.declared
		declared := envelope.MustEvent[namedV1](spec)
		require.Equal(t, c.declared, declared.Visibility())
		require.Equal(t, c.declared, declared.Declaration().Visibility)
		m, err := envelope.New(originCtx(t, nil), subject.Maskin, declared.New("r", namedV1{}, c.opts...))
		require.NoError(t, err)
		require.Equal(t, c.want, m.Envelope.Visibility)
		encoded, err := m.Envelope.Encode()
		require.NoError(t, err)
		if c.want == envelope.Internal {
			require.NotContains(t, string(encoded), "visibility")
		} else {
			require.Contains(t, string(encoded), `"visibility":"external"`)
		}
	}
	spec.Visibility = "public"
	_, err := envelope.Event[namedV1](spec)
	require.ErrorContains(t, err, `EventSpec.Visibility: must be "internal" or "external"`)
}

func TestTheZeroTypeDeclaresNothing(t *testing.T) {
	t.Parallel()
	require.Zero(t, envelope.Type[namedV1]{}.Declaration())
}
