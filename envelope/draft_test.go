package envelope_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"github.com/stretchr/testify/require"
)

func TestNewStampsWhatTheCallerCannotForget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		<-time.After(1234567 * time.Nanosecond) // of the bubble's clock
		m, err := envelope.New(originCtx(t, nil), subject.Maskin,
			provisioned.New("server/9a1", provisionedV1{ServerID: "9a1", Hostname: "web-1"}))
		require.NoError(t, err)
		require.Equal(t, provisioned.Subject(), m.Subject)
		require.Equal(t, "server/9a1", m.OrderingKey)
		require.Equal(t, traceparent, m.Traceparent)
		e := m.Envelope
		require.Equal(t, "1.0", e.SpecVersion)
		require.Equal(t, byte('7'), e.ID[14], "UUID version 7")
		require.Equal(t, "maskin.server.provisioned", e.Type)
		require.Equal(t, subject.Maskin, e.Source)
		require.Equal(t, "server/9a1", e.Subject)
		require.Equal(t, time.Date(2000, 1, 1, 0, 0, 0, 1234000, time.UTC), e.Time)
		require.Equal(t, "application/json", e.DataContentType)
		require.Equal(t, provisioned.Schema(), e.DataSchema)
		require.Equal(t, "tenant-42", e.TenantID)
		require.Equal(t, testOrigin.Actor, e.Actor)
		require.Equal(t, testOrigin.CorrelationID, e.CorrelationID)
		require.Equal(t, testOrigin.CausationID, e.CausationID)
		require.Equal(t, envelope.Internal, e.Visibility)
		require.Equal(t, `{"server_id":"9a1","hostname":"web-1"}`, string(e.Data))
		require.NoError(t, e.Validate())
		require.NoError(t, e.CheckSubject(m.Subject))
		require.NoError(t, e.CheckHeader(m.Header()))
	})
}

func TestNewMessagesSurviveTheWire(t *testing.T) {
	t.Parallel()
	m, err := envelope.New(originCtx(t, nil), subject.Sentral, provision.New("server/é", provisionV1{Plan: "<b>&"},
		envelope.OrderingKey("rack/1"), envelope.Project("p"), envelope.Environment("e"), envelope.Datacenter("d"),
		envelope.ExternallyVisible()))
	require.NoError(t, err)
	require.Equal(t, "rack/1", m.OrderingKey)
	require.Equal(t, "server/é", m.Envelope.Subject)
	require.Equal(t, []string{"p", "e", "d"}, []string{m.Envelope.ProjectID, m.Envelope.EnvironmentID, m.Envelope.DatacenterID})
	require.Equal(t, envelope.External, m.Envelope.Visibility)
	encoded, err := m.Envelope.Encode()
	require.NoError(t, err)
	got, err := envelope.Decode(encoded)
	require.NoError(t, err)
	require.Equal(t, m.Envelope, got)
	data, err := provision.Decode(got)
	require.NoError(t, err)
	require.Equal(t, provisionV1{Plan: "<b>&"}, data)
}

func TestADraftCanBeUsedAgainAndBecomesAnotherMessage(t *testing.T) {
	t.Parallel()
	d := provisioned.New("server/9a1", provisionedV1{})
	ids := map[string]bool{}
	last := ""
	for range 1000 {
		m, err := envelope.New(originCtx(t, nil), subject.Maskin, d)
		require.NoError(t, err)
		require.Greater(t, m.Envelope.ID, last, "ids ascend within a process")
		last = m.Envelope.ID
		ids[last] = true
	}
	require.Len(t, ids, 1000)
}

func TestAnIdentifiedDraftIsOneMessageWithTheIdThatWasTold(t *testing.T) {
	t.Parallel()
	d := provisioned.New("server/9a1", provisionedV1{}, envelope.Project("p"), envelope.Environment("e"), envelope.Datacenter("d"))
	one, id := d.Identify()
	_, other := d.Identify()
	require.NotEqual(t, id, other)
	require.Equal(t, "server/9a1", one.ResourceID())
	for range 2 {
		m, err := envelope.New(originCtx(t, nil), subject.Maskin, one)
		require.NoError(t, err)
		require.Equal(t, id, m.Envelope.ID)
		sealed, err := envelope.Seal(originCtx(t, nil), subject.Maskin, one)
		require.NoError(t, err)
		require.Equal(t, id, sealed.ID)
	}
	m, err := envelope.New(originCtx(t, nil), subject.Maskin, d)
	require.NoError(t, err)
	require.NotEqual(t, id, m.Envelope.ID, "the draft it was made from is as it was")

	beside, err := envelope.New(originCtx(t, nil), subject.Maskin, provisioned.New("server/9a1", provisionedV1{}, d.Placement()...))
	require.NoError(t, err)
	require.Equal(t, []string{"p", "e", "d"},
		[]string{beside.Envelope.ProjectID, beside.Envelope.EnvironmentID, beside.Envelope.DatacenterID})
}

func TestADraftKeepsTheDataItWasMadeFrom(t *testing.T) {
	t.Parallel()
	counts := envelope.MustEvent[map[string]int](envelope.EventSpec{
		Service: subject.Maskin, Entity: "rack", Verb: "counted", Version: 1,
	})
	data := map[string]int{"a": 1}
	d := counts.New("rack/1", data)
	data["a"] = 2
	m, err := envelope.New(originCtx(t, nil), subject.Maskin, d)
	require.NoError(t, err)
	require.JSONEq(t, `{"a":1}`, string(m.Envelope.Data))
}

func TestPlatformScopeHasToBeSaid(t *testing.T) {
	t.Parallel()
	d := provisioned.New("server/9a1", provisionedV1{})
	for name, c := range map[string]struct {
		change func(*envelope.Origin)
		want   []string
	}{
		"tenant":   {nil, nil},
		"platform": {func(o *envelope.Origin) { o.TenantID, o.PlatformScope = "", true }, nil},
		"neither": {func(o *envelope.Origin) { o.TenantID = "" }, []string{
			"Origin.TenantID: is required: set it, or set Origin.PlatformScope when the work is for no tenant",
		}},
		"both": {func(o *envelope.Origin) { o.PlatformScope = true }, []string{
			"Origin.PlatformScope: contradicts Origin.TenantID: set one of the two",
		}},
	} {
		_, err := envelope.New(originCtx(t, c.change), subject.Maskin, d)
		require.Equal(t, c.want, newFaults(err), name)
	}
}

// newFaults is faults without the head that names the type.
func newFaults(err error) []string {
	all := faults(err)
	if len(all) > 0 {
		_, all[0], _ = strings.Cut(all[0], `": `)
	}
	return all
}

func TestNewWithoutAnOriginSaysWhereToSetIt(t *testing.T) {
	t.Parallel()
	_, err := envelope.New(t.Context(), subject.Maskin, provisioned.New("server/9a1", provisionedV1{}))
	require.EqualError(t, err, `envelope: new message of type "maskin.server.provisioned": envelope: Origin: is missing in ctx: `+
		`set it at the edge with envelope.WithOrigin; the ctx of a handler carries it, and m.Context(ctx) where it is one of a batch`)
}

func TestNewReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	ctx := originCtx(t, func(o *envelope.Origin) {
		*o = envelope.Origin{CausationID: "a b", Actor: "robot:1"}
	})
	_, err := envelope.New(ctx, subject.Nett, provisioned.New("", provisionedV1{},
		envelope.OrderingKey("a\nb"), envelope.Project("å"), envelope.Environment(" "), envelope.Datacenter("-")))
	const token = "must be letters, digits and ._:@/+=-, beginning with a letter or digit"
	require.Equal(t, []string{
		"Origin.CorrelationID: is required: start with envelope.NewOrigin",
		"Origin.TenantID: is required: set it, or set Origin.PlatformScope when the work is for no tenant",
		"Origin.CausationID: " + token,
		"Origin.Actor: kind must be user, service, operator or system",
		"resource id: is required",
		"project_id: " + token,
		"environment_id: " + token,
		"datacenter_id: " + token,
		"OrderingKey: must not hold control characters",
		"source: is not the service of its event subject: maskin",
	}, newFaults(err))
}

func TestEverythingWeSendHasAnActor(t *testing.T) {
	t.Parallel()
	ctx := originCtx(t, func(o *envelope.Origin) { o.Actor = "" })
	_, err := envelope.New(ctx, subject.Maskin, provisioned.New("server/9a1", provisionedV1{}))
	require.Equal(t, []string{"Origin.Actor: is required: say who initiated the work"}, newFaults(err))
}

func TestOnlyItsServiceSendsAnEventAndAnyoneACommand(t *testing.T) {
	t.Parallel()
	for _, s := range subject.Services() {
		_, err := envelope.New(originCtx(t, nil), s, provisioned.New("server/9a1", provisionedV1{}))
		require.Equal(t, s == subject.Maskin, err == nil)
		_, err = envelope.New(originCtx(t, nil), s, provision.New("server/9a1", provisionV1{}))
		require.NoError(t, err)
	}
}

func TestZeroDraftIsRefused(t *testing.T) {
	t.Parallel()
	for _, d := range []envelope.Draft{{}, envelope.Type[provisionedV1]{}.New("r", provisionedV1{})} {
		_, err := envelope.New(originCtx(t, nil), subject.Maskin, d)
		require.Equal(t, []string{"draft: is empty: make it with the New method of a Type"}, newFaults(err))
	}
}

func TestBadDataIsReportedWhenTheMessageIsMade(t *testing.T) {
	t.Parallel()
	raw := envelope.MustEvent[json.RawMessage](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "seen", Version: 1,
	})
	for data, want := range map[string]string{
		`[1]`:            "data: must be a JSON object, is an array: put large or binary data elsewhere and reference it with envelope.Artifact",
		`"AAEC"`:         "data: must be a JSON object, is a string: put large or binary data elsewhere and reference it with envelope.Artifact",
		`{"a":"\u0000"}`: `data: is not acceptable JSON: byte 6: U+0000 is not allowed`,
		`{"a":"\ud800"}`: `data: is not acceptable JSON: byte 6: surrogate escape without its other half`,
		`{`:              "data: does not marshal: refused by *json.MarshalerError",
		strings.Repeat(`{"a":`, 64) + "1" + strings.Repeat("}", 64): "data: is not acceptable JSON: byte 315: more than 64 levels are nested",
	} {
		_, err := envelope.New(originCtx(t, nil), subject.Maskin, raw.New("server/9a1", json.RawMessage(data)))
		require.Equal(t, []string{want}, newFaults(err), data)
	}
	floats := envelope.MustEvent[map[string]float64](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "seen", Version: 1,
	})
	_, err := envelope.New(originCtx(t, nil), subject.Maskin, floats.New("r", map[string]float64{"x": math.NaN()}))
	require.Equal(t, []string{"data: does not marshal: refused by *json.UnsupportedValueError"}, newFaults(err))
	_, err = envelope.New(originCtx(t, nil), subject.Maskin, floats.New("r", nil))
	require.Equal(t, []string{"data: must be a JSON object, is null: put large or binary data elsewhere and reference it with envelope.Artifact"}, newFaults(err))
}

// A text that PostgreSQL cannot store must not get as far as the consumer's table.
func TestNulIsRejectedWhereTheMessageIsMade(t *testing.T) {
	t.Parallel()
	_, err := envelope.New(originCtx(t, nil), subject.Maskin, provisioned.New("r", provisionedV1{Hostname: "a\x00b"}))
	require.Equal(t, []string{"data: is not acceptable JSON: byte 29: U+0000 is not allowed"}, newFaults(err))
}

func TestTooLargeIsRefusedWithSizeAndLimit(t *testing.T) {
	t.Parallel()
	_, err := envelope.New(originCtx(t, nil), subject.Maskin,
		provisioned.New("r", provisionedV1{Hostname: strings.Repeat("x", envelope.MaxSize)}))
	require.ErrorIs(t, err, envelope.ErrTooLarge)
	require.ErrorContains(t, err, "bytes exceed the limit of 524288: put large data elsewhere")
}

func TestABadTraceIsNotSent(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "nonsense", strings.Replace(traceparent, "00-", "ff-", 1), "cc" + traceparent[2:] + "-\r\nx: y"} {
		m, err := envelope.New(originCtx(t, func(o *envelope.Origin) { o.Traceparent = bad }), subject.Maskin,
			provisioned.New("r", provisionedV1{}))
		require.NoError(t, err)
		require.Empty(t, m.Traceparent)
	}
}

func TestTypeErrorsCanBeAskedFor(t *testing.T) {
	t.Parallel()
	_, err := envelope.New(originCtx(t, nil), subject.Nett, provisioned.New("", provisionedV1{}))
	field, ok := errors.AsType[*envelope.FieldError](err)
	require.True(t, ok)
	require.Equal(t, "resource id", field.Field)
	mismatch, ok := errors.AsType[*envelope.MismatchError](err)
	require.True(t, ok)
	require.Equal(t, "source", mismatch.Field)
}

func TestACommandIsForASiteAndAnEventIsNot(t *testing.T) {
	t.Parallel()
	d := provision.New("server/1", provisionV1{}, envelope.ToSite("trd1"), envelope.Datacenter("osl1"))
	require.Equal(t, "trd1", d.Site())
	m, err := envelope.New(originCtx(t, nil), subject.Sentral, d)
	require.NoError(t, err)
	require.Equal(t, provision.Subject(), m.Subject, "what it arrives on")
	require.Equal(t, "osl1", m.Envelope.DatacenterID, "where the resource belongs is another question")
	require.NotContains(t, d.Placement(), envelope.ToSite("trd1"), "what is sent about it stays here")
	require.Empty(t, provision.New("server/1", provisionV1{}, envelope.ToSite("")).Site())

	_, err = envelope.New(originCtx(t, nil), subject.Maskin, provisioned.New("server/1", provisionedV1{}, envelope.ToSite("trd1")))
	require.Equal(t, []string{"ToSite: is for commands only: events reach other sites by the flows that the platform's network declares"}, newFaults(err))
	_, err = envelope.New(originCtx(t, nil), subject.Sentral, provision.New("server/1", provisionV1{}, envelope.ToSite("Trd 1")))
	require.Equal(t, []string{"ToSite: is no name of a site: use one of the platform's network, such as trd1"}, newFaults(err))
}
