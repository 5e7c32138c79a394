package sites_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/sites"
)

func TestAnswersOfAnotherFormAreRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"no JSON":             {"hello", "is none: byte 0"},
		"nothing":             {"", "is none: byte 0"},
		"an array":            {"[]", "an object is expected"},
		"no version":          {`{"site":"dc1"}`, "has no version"},
		"a version as text":   {`{"v":"1","site":"dc1"}`, "v, site or error has another type"},
		"the next version":    {`{"v":2,"site":"dc1"}`, "deploy the newer library at dc2"},
		"another site":        {`{"v":1,"site":"dc3"}`, "another site answered"},
		"an unknown member":   {`{"v":1,"site":"dc1","lost":1}`, "has a member that this version has not"},
		"a name twice":        {`{"v":1,"v":2,"site":"dc1"}`, "is none: byte"},
		"a name in capitals":  {`{"v":1,"site":"dc1","LAST":1}`, "a member's name"},
		"a negative sequence": {`{"v":1,"site":"dc1","last":-1}`, `member "last" has another type`},
		"two values":          {`{"v":1,"site":"dc1"}{}`, "is none: byte"},
		"too much":            {`{"v":1,"site":"dc1","x":"` + strings.Repeat("x", 300<<10) + `"}`, "at most 262144"},
		"a refusal":           {`{"v":1,"site":"dc1","error":{"code":"flow","reason":"no"}}`, "deploy the same network at both sites"},
		"a missing stream":    {`{"v":1,"site":"dc1","error":{"code":"stream","reason":"no"}}`, "start the stream's owner there"},
		"an older library":    {`{"v":1,"site":"dc1","error":{"code":"verb","reason":"no"}}`, "deploy the newer library at dc1"},
		"an unknown refusal":  {`{"v":1,"site":"dc1","error":{"code":"tired","reason":"a\nb"}}`, "(tired): a b; see the log there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := sites.ReadAnswer([]byte(c.text))
			require.ErrorContains(t, err, c.want)
			require.Less(t, len(err.Error()), 600, "what the other site says is bounded")
		})
	}
	last, err := sites.ReadAnswer([]byte(`{"v":1,"site":"dc1","first":1,"last":7,"last_time":"2026-03-01T12:00:00Z","of_flow":7,"behind":0}`))
	require.NoError(t, err)
	require.EqualValues(t, 7, last)
}

func TestAVersionErrorNamesTheSiteToUpgrade(t *testing.T) {
	t.Parallel()
	_, err := sites.ReadAnswer([]byte(`{"v":3,"site":"dc1","error":{"code":"version","reason":"no"}}`))
	wrong, ok := errors.AsType[*sites.VersionError](err)
	require.True(t, ok)
	require.Equal(t, sites.VersionError{Site: "dc2", Asked: 3, Known: 1}, *wrong)
}

func TestOnlyTheAnswersOfSitesAreAnswered(t *testing.T) {
	t.Parallel()
	require.Equal(t, "dc2", sites.ReplySite("dvsites.dc2.reply.abc.1"))
	for _, reply := range []string{"", "_INBOX.abc", "dvsites.dc2.position.DV_MASKIN_EVT", "dvsites.dc2.reply", "dv.maskin.cmd.delete", "$JS.API.STREAM.DELETE.DV_MASKIN_EVT"} {
		require.Empty(t, sites.ReplySite(reply), reply)
	}
}

func FuzzQuestionsAndAnswersNeverPanicAndKeepTheirForm(f *testing.F) {
	f.Add([]byte(`{"v":1,"to":"dc2","at":7}`))
	f.Add([]byte(`{"v":1,"site":"dc1","first":1,"last":7,"last_time":"2026-03-01T12:00:00Z","of_flow":7,"behind":0}`))
	f.Add([]byte(`{"v":1,"site":"dc1","error":{"code":"flow","reason":"no"}}`))
	f.Add([]byte(`{"V":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if to, _, err := sites.ReadQuestion(data); err == nil {
			require.NotContains(t, string(data), `"V"`)
			require.Contains(t, string(data), to)
		}
		if _, err := sites.ReadAnswer(data); err != nil {
			require.Less(t, len(err.Error()), 600)
		}
	})
}

func FuzzSourceHeader(f *testing.F) {
	f.Add("DV_MASKIN_EVT:aBcD1234 17 dv.maskin.evt.> dv.maskin.evt.> dv.maskin.evt.server.provisioned")
	f.Add("$JS.ACK.DV_MASKIN_EVT.x.1.17.1.0.0")
	f.Add(" 17")
	f.Fuzz(func(t *testing.T, header string) {
		stream, seq := sites.SourceOf(header)
		require.Equal(t, stream == "", header == "" || seq == 0 && stream == "", "both or none")
		require.True(t, strings.HasPrefix(header, stream))
	})
}
