package envelope_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// What Seal writes at once is what New, Encode and MarshalHeader write, whatever
// the draft says and under whatever origin.
func TestSealWritesWhatNewAndEncodeWrite(t *testing.T) {
	t.Parallel()
	shown := envelope.MustEvent[provisionedV1](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "shown", Version: 65535, Visibility: envelope.External,
	})
	finished := envelope.MustTaskEvent[provisionV1](envelope.TaskSpec{Verb: "finished", Version: 2})
	everything := []envelope.Option{
		envelope.OrderingKey("rack 7"), envelope.Project("p"), envelope.Environment("e"), envelope.Datacenter("osl1"), envelope.ExternallyVisible(),
	}
	drafts := map[string]envelope.Draft{
		"event":      provisioned.New("server/9a1", provisionedV1{ServerID: "9a1", Hostname: "<web>&"}),
		"everything": provisioned.New(`"quoted\" å`, provisionedV1{}, everything...),
		"external":   shown.New("s", provisionedV1{}),
		"command":    provision.New("s", provisionV1{}, envelope.ToSite("trd1")),
		"task":       finished.New("s", provisionV1{}),
		"large":      provisioned.New("s", provisionedV1{Hostname: strings.Repeat("x", 100_000)}),
	}
	origins := map[string]func(*envelope.Origin){
		"in a workflow":  nil,
		"at the edge":    func(o *envelope.Origin) { o.CausationID, o.Traceparent = "", "" },
		"platform scope": func(o *envelope.Origin) { o.TenantID, o.PlatformScope = "", true },
		"later trace":    func(o *envelope.Origin) { o.Traceparent = "01" + traceparent[2:] + "-more" },
		"bad trace":      func(o *envelope.Origin) { o.Traceparent = "x" },
	}
	for what, draft := range drafts {
		for where, change := range origins {
			d, id := draft.Identify()
			ctx := originCtx(t, change)
			m, err := envelope.New(ctx, subject.Maskin, d)
			require.NoError(t, err)
			sealed, err := envelope.Seal(ctx, subject.Maskin, d)
			require.NoError(t, err)

			got, err := envelope.Decode(sealed.Envelope)
			require.NoError(t, err, "%s, %s", what, where)
			m.Envelope.Time = got.Time // each is made at a time of its own
			want, err := m.Envelope.Encode()
			require.NoError(t, err)
			require.Equal(t, string(want), string(sealed.Envelope), "%s, %s", what, where)
			require.Equal(t, envelope.MarshalHeader(m.Header()), sealed.Header, "%s, %s", what, where)
			require.Equal(t, id, sealed.ID)
			require.Equal(t, m.Subject, sealed.Subject)
			require.Equal(t, m.OrderingKey, sealed.OrderingKey)
		}
	}
}

func TestSealRefusesWhatNewRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		draft  envelope.Draft
		change func(*envelope.Origin)
	}{
		"nothing":        {},
		"no resource":    {draft: provisioned.New("", provisionedV1{})},
		"bad data":       {draft: provisioned.New("s", provisionedV1{Hostname: "\x00"})},
		"no correlation": {provisioned.New("s", provisionedV1{}), func(o *envelope.Origin) { o.CorrelationID = "" }},
		"no origin":      {provisioned.New("s", provisionedV1{}), func(o *envelope.Origin) { *o = envelope.Origin{} }},
		"bad actor":      {provisioned.New("s", provisionedV1{}), func(o *envelope.Origin) { o.Actor = "robot" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := originCtx(t, c.change)
			_, want := envelope.New(ctx, subject.Maskin, c.draft)
			require.Error(t, want)
			_, err := envelope.Seal(ctx, subject.Maskin, c.draft)
			require.EqualError(t, err, want.Error())
		})
	}
	for _, more := range []int{-100, 0} { // the data alone fits, or does not
		large := provisioned.New("s", provisionedV1{Hostname: strings.Repeat("x", envelope.MaxSize+more)})
		_, err := envelope.Seal(originCtx(t, nil), subject.Maskin, large)
		require.ErrorIs(t, err, envelope.ErrTooLarge)
	}
	_, err := envelope.Seal(originCtx(t, nil), subject.Nett, provisioned.New("s", provisionedV1{}))
	require.ErrorContains(t, err, "source: is not the service of its event subject: maskin")
}
