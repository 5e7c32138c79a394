package dlq_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// host is what a repaired program knows of the data.
type host struct {
	Hostname string `json:"hostname"`
	Disks    []disk `json:"disks,omitempty"`
	Rack     *int   `json:"rack,omitempty"`
}

type disk struct {
	Size int `json:"size"`
}

func hostType[T any](version int, older ...envelope.Upcaster[T]) envelope.Type[T] {
	return envelope.MustEvent(envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: version}, older...)
}

func same(h host) (host, error) { return h, nil }

// rename is the repair in these tests.
var rename = dlq.Transform(hostType[host](1), func(h host) (host, error) {
	h.Hostname = "server-1"
	return h, nil
})

// foreignEnvelope is of an author who writes otherwise than this library: other
// order, white space, finer times, fields of a later version.
func foreignEnvelope(data string) string {
	return "{ \"subject\":\"server-1\",  \"type\":\"maskin.server.provisioned\",\n\"new_field\":{\"data\":1}," +
		`"id":"` + goldenID + `","data" : ` + data + ` ,"time":"2026-08-01T10:00:00.123456789Z","source":"maskin",` +
		`"specversion":"1.3","datacontenttype":"application/json",` +
		`"dataschema":"urn:dataverket:schema:maskin.server.provisioned:v1","correlation_id":"corr-1","tenant_id":"tenant-1" }`
}

// carrying makes a failure of an event with that data.
func carrying(tb testing.TB, data string) func(*envelope.Failure) {
	return func(f *envelope.Failure) {
		f.Data = []byte(foreignEnvelope(data))
		e, err := envelope.Decode(f.Data)
		require.NoError(tb, err)
		f.Envelope, f.Header = e, envelope.Message{Envelope: e}.Header()
	}
}

func editing(r dlq.Request, e *dlq.Edit) dlq.Request {
	r.Edit = e
	return r
}

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Only data changes, and of data only what was changed: the rest is byte by byte
// what the author wrote, whoever he is.
func TestEditedReplayDiffersInItsDataOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := `{"unknown": {"deep":[1.0, "é<"]}, "hostname":"", "disks":[{"size":5,"serial":"x"}],"n":12345678901234567890}`
	edited := `{"unknown":{"deep":[1.0, "é<"]},"hostname":"server-1","disks":[{"size":5,"serial":"x"}],"n":12345678901234567890}`
	id := b.bury(t, failed(t, carrying(t, old)))
	r, err := b.queue.Replay(t.Context(), id, editing(request("ola"), rename))
	require.NoError(t, err)
	raw := b.stored(t, "DV_PLATTFORM_DLQOPS", r.Sequence)
	require.Equal(t, foreignEnvelope(edited), string(raw.Data))
	require.Equal(t, hashOf(edited), raw.Header.Get(dlq.HeaderEdited))
	require.Equal(t, id+"/r1", raw.Header.Get(envelope.HeaderMsgID))
	require.Equal(t, &dlq.Edited{Old: hashOf(old), New: hashOf(edited)}, r.Edit, "without the data")
	e, err := envelope.Decode(raw.Data)
	require.NoError(t, err)
	require.NoError(t, e.CheckHeader(envelope.Header(raw.Header)))

	// The letter keeps what died; the marks keep who, why and the hashes.
	l := b.show(t, id)
	require.Equal(t, foreignEnvelope(old), string(l.Data))
	require.Len(t, l.Marks, 2)
	for _, m := range l.Marks {
		require.Equal(t, []string{"operator:ola", hashOf(old), hashOf(edited)}, []string{m.By, m.OldData, m.NewData})
	}
	require.NotContains(t, asJSON(t, l.Marks), "server-1")
}

func TestADryRunOfAnEditShowsTheDifference(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t, carrying(t, `{"hostname":"","disks":[{"size":5}],"a/b":true}`)))
	r, err := b.queue.Replay(t.Context(), id, editing(dry("ola"), dlq.ReplaceData([]byte(
		" {\"hostname\":\"x\",\"disks\":[{\"size\":7},{\"size\":9}],\"new\":{ \"y\":null }}\n"))))
	require.NoError(t, err)
	require.Equal(t, []dlq.Change{
		{Path: "/hostname", Old: json.RawMessage(`""`), New: json.RawMessage(`"x"`)},
		{Path: "/disks/0/size", Old: json.RawMessage(`5`), New: json.RawMessage(`7`)},
		{Path: "/disks/1", New: json.RawMessage(`{"size":9}`)},
		{Path: "/a~1b", Old: json.RawMessage(`true`)},
		{Path: "/new", New: json.RawMessage(`{"y":null}`)},
	}, r.Edit.Changes)
	require.Empty(t, b.show(t, id).Marks)
	require.Zero(t, b.replays(t))
}

func TestAnEditThatCannotBeMadeReplaysNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	broken := errors.New("no such host")
	id := b.bury(t, failed(t, carrying(t, `{"hostname":7}`)))
	undecodable := b.bury(t, failed(t, func(f *envelope.Failure) {
		f.Envelope, f.Data, f.Class = nil, []byte(`{"data":{}}`), envelope.ClassDecode
	}))
	fine := b.bury(t, failed(t))
	for name, c := range map[string]struct {
		id   string
		edit *dlq.Edit
		want string
	}{
		"does not fit":    {id, rename, "hostname"},
		"other version":   {fine, dlq.Transform(hostType[host](2), func(h host) (host, error) { return h, nil }), "version 1"},
		"carried forward": {fine, dlq.Transform(hostType[host](2, envelope.Upcast(hostType[host](1), same)), same), "edit it with the Type of its own version"},
		"own error":       {fine, dlq.Transform(hostType[host](1), func(h host) (host, error) { return h, broken }), "no such host"},
		"no function":     {fine, dlq.Transform[host](hostType[host](1), nil), "no function"},
		"no edit":         {fine, &dlq.Edit{}, "make it with"},
		"no object":       {fine, dlq.ReplaceData([]byte(`[1]`)), "no JSON object"},
		"nothing":         {fine, dlq.ReplaceData(nil), "no JSON object"},
		"no JSON":         {fine, dlq.ReplaceData([]byte(`{"a":}`)), "no envelope"},
		"two values":      {fine, dlq.ReplaceData([]byte(`{"a":1},"id":"x"`)), "no envelope"},
		"too large":       {fine, dlq.ReplaceData([]byte(`{"a":"` + strings.Repeat("x", envelope.MaxSize) + `"}`)), "no envelope"},
		"no envelope":     {undecodable, dlq.ReplaceData([]byte(`{}`)), "have its producer publish"},
	} {
		_, err := b.queue.Replay(t.Context(), c.id, editing(request("ola"), c.edit))
		refused, ok := errors.AsType[*dlq.EditError](err)
		require.True(t, ok, "%s: %v", name, err)
		require.Equal(t, c.id, refused.LetterID)
		require.ErrorContains(t, err, c.want, name)
	}
	_, err := b.queue.Replay(t.Context(), fine, editing(request("ola"),
		dlq.Transform(hostType[host](1), func(h host) (host, error) { return h, broken })))
	require.ErrorIs(t, err, broken)
	require.Zero(t, b.replays(t))
	require.Empty(t, b.show(t, fine).Marks)
}

// Data that does not fit the type is what class decode is about. A type of the
// same name over a map reads it.
func TestDataThatDoesNotFitIsRepairedThroughAMap(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t, carrying(t, `{"z":1,"hostname":7}`), failing(envelope.ClassDecode, "hostname is a number")))
	r, err := b.queue.Replay(t.Context(), id, editing(request("ola"),
		dlq.Transform(hostType[map[string]any](1), func(m map[string]any) (map[string]any, error) {
			m["hostname"] = "server-7"
			return m, nil
		})))
	require.NoError(t, err)
	require.Equal(t, foreignEnvelope(`{"z":1,"hostname":"server-7"}`), string(b.stored(t, "DV_PLATTFORM_DLQOPS", r.Sequence).Data))
}

// A contradiction is about who a message is from; no data removes it.
func TestAnEditReplaysNoSecurityLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t, failing(envelope.ClassSecurity, "tenants differ")))
	_, err := b.queue.Replay(t.Context(), id, editing(request("ola"), dlq.ReplaceData([]byte(`{"server_id":"x"}`))))
	require.True(t, is[*dlq.SecurityError](err), "%v", err)
	require.Zero(t, b.replays(t))
}

func TestAnEditThatChangesNothingIsAPlainReplay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := `{"hostname":"server-1", "x":"\u00e9"}`
	for _, edit := range []*dlq.Edit{rename, dlq.ReplaceData([]byte(`{"x":"é","hostname":"server-1"}`))} {
		id := b.bury(t, failed(t, carrying(t, old)))
		r, err := b.queue.Replay(t.Context(), id, editing(again("ola"), edit))
		require.NoError(t, err)
		require.Nil(t, r.Edit)
		raw := b.stored(t, "DV_PLATTFORM_DLQOPS", r.Sequence)
		require.Equal(t, foreignEnvelope(old), string(raw.Data))
		require.Empty(t, raw.Header.Get(dlq.HeaderEdited))
		require.Empty(t, b.show(t, id).Mark.NewData)
	}
}

func TestAGroupIsTransformed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters := b.all(t, 3)
	upper := dlq.Transform(serverProvisioned(), func(p provisioned) (provisioned, error) {
		p.ServerID = strings.ToUpper(p.ServerID)
		return p, nil
	})
	report, err := b.queue.ReplayAll(t.Context(), openOnes, editing(dry("ola"), upper))
	require.NoError(t, err)
	require.Equal(t, 3, report.Done)
	require.Equal(t, []dlq.Change{{Path: "/server_id", Old: json.RawMessage(`"server-1"`), New: json.RawMessage(`"SERVER-1"`)}},
		report.Outcomes[0].Replay.Edit.Changes)

	_, err = b.queue.ReplayAll(t.Context(), openOnes, editing(swift("ola"), dlq.ReplaceData([]byte(`{}`))))
	require.ErrorContains(t, err, "ReplaceData, which is for one letter", "the same data for all is a mistake")
	report, err = b.queue.ReplayAll(t.Context(), openOnes, editing(swift("ola"), upper))
	require.NoError(t, err)
	require.Equal(t, letters, report.Replayed())
	for _, o := range report.Outcomes {
		require.Contains(t, string(b.stored(t, "DV_PLATTFORM_DLQOPS", o.Replay.Sequence).Data), `"SERVER-1"`)
	}
}

// If it fails again, what failed is what was edited; what died is in the copy
// before.
func TestAFailedEditIsTheLettersNextCopy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t, carrying(t, `{"hostname":""}`)))
	r, err := b.queue.Replay(t.Context(), id, editing(request("ola"), rename))
	require.NoError(t, err)
	b.bury(t, b.replayFailed(t, r.Sequence, "still wrong"))
	l := b.show(t, id)
	require.Equal(t, dlq.StateOpen, l.State)
	require.Equal(t, foreignEnvelope(`{"hostname":"server-1"}`), string(l.Data))
	require.Equal(t, foreignEnvelope(`{"hostname":""}`), string(b.stored(t, "DV_PLATTFORM_DLQ", l.Copies[0].Sequence).Data))
	require.Empty(t, l.OriginalHeader, "the hash is no header of the original")
	r, err = b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.Nil(t, r.Edit)
}

// Somebody died behind a replay with other data. What is out is out: the next one
// is told instead of being believed.
func TestATakenOverReplayWithOtherDataIsAConflict(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ dead, next *dlq.Edit }{
		"edited behind plain": {rename, nil},
		"plain behind edited": {nil, rename},
		"other edit":          {rename, dlq.ReplaceData([]byte(`{"hostname":"other"}`))},
	} {
		b := setup(t)
		id := b.bury(t, failed(t, carrying(t, `{"hostname":""}`)))
		dead, err := b.queue.Claim(t.Context(), id, editing(request("ola"), c.dead))
		require.NoError(t, err)
		require.NoError(t, dead.Deliver(t.Context()))
		hash := b.stored(t, "DV_PLATTFORM_DLQOPS", 2).Header.Get(dlq.HeaderEdited)

		late := b.open(t, dlq.Config{ClaimLease: 1})
		_, err = late.Replay(t.Context(), id, editing(request("kari"), c.next))
		requireConflict(t, err, dlq.StateReplayed, "operator:ola")
		require.Equal(t, 1, b.replays(t), name)
		l := b.show(t, id)
		require.Equal(t, dlq.StateReplayed, l.State)
		require.Equal(t, hash, l.Mark.NewData, "the mark says what is out")
	}
	b := setup(t)
	id := b.bury(t, failed(t, carrying(t, `{"hostname":""}`)))
	dead, err := b.queue.Claim(t.Context(), id, editing(request("ola"), rename))
	require.NoError(t, err)
	require.NoError(t, dead.Deliver(t.Context()))
	r, err := b.open(t, dlq.Config{ClaimLease: 1}).Replay(t.Context(), id, editing(request("kari"), rename))
	require.NoError(t, err, "the same data is what was asked for")
	require.True(t, r.Found)
	require.NotNil(t, r.Edit)
}

func TestMergeKeepsWhatTheTypeDoesNotKnow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ raw, before, after, want string }{
		"changed":     {`{"u":1,"a":1}`, `{"a":1}`, `{"a":2}`, `{"u":1,"a":2}`},
		"removed":     {`{"u":1,"a":1}`, `{"a":1}`, `{}`, `{"u":1}`},
		"added":       {`{"u":1}`, `{}`, `{"a":2}`, `{"u":1,"a":2}`},
		"zero":        {`{"u":1}`, `{"a":0,"b":0}`, `{"a":0,"b":2}`, `{"u":1,"b":2}`},
		"nested":      {`{"o":{"u":1,"a":1}}`, `{"o":{"a":1}}`, `{"o":{"a":2}}`, `{"o":{"u":1,"a":2}}`},
		"list":        {`{"l":[{"u":1,"a":1},{"u":2}]}`, `{"l":[{"a":1},{"a":0}]}`, `{"l":[{"a":2},{"a":0}]}`, `{"l":[{"u":1,"a":2},{"u":2}]}`},
		"longer list": {`{"l":[{"u":1}]}`, `{"l":[{}]}`, `{"l":[{},{}]}`, `{"l":[{},{}]}`},
		"fixed list":  {`{"l":[1,2,3]}`, `{"l":[1,2]}`, `{"l":[5,2]}`, `{"l":[5,2]}`},
		"other kind":  {`{"a":{"u":1}}`, `{"a":{}}`, `{"a":"x"}`, `{"a":"x"}`},
		"null":        {`{"a":null}`, `{"a":""}`, `{"a":"x"}`, `{"a":"x"}`},
		"was null":    {`{"u":1,"a":null}`, `{}`, `{"a":"x"}`, `{"u":1,"a":"x"}`},
		"other case":  {`{"A":1}`, `{"a":1}`, `{"a":2}`, `{"A":2}`},
		"twice":       {`{"a":1,"a":3}`, `{"a":3}`, `{"a":4}`, `{"a":4}`},
		"untouched":   {`{ "a" : 1.0 }`, `{"a":1}`, `{"a":1}`, `{ "a" : 1.0 }`},
		"number form": {`{"n":1.0,"a":1}`, `{"n":1,"a":1}`, `{"n":1,"a":2}`, `{"n":1.0,"a":2}`},
		"odd name":    {`{"\u00e9<\"":1}`, `{}`, `{"a":1}`, `{"é<\"":1,"a":1}`},
	} {
		require.Equal(t, c.want, dlq.Merge(c.raw, c.before, c.after), name)
	}
}

// legacy reads an old name that it does not write.
type legacy struct{ name string }

func (l *legacy) UnmarshalJSON(data []byte) error {
	var m map[string]string
	err := json.Unmarshal(data, &m)
	if l.name = m["old"]; l.name == "" {
		l.name = m["new"]
	}
	return err
}

func (l legacy) MarshalJSON() ([]byte, error) { return json.Marshal(map[string]string{"new": l.name}) }

// The consumer must see what the change returned, or nothing is replayed.
func TestATransformIsRefusedWhereItsTypeWouldNotSeeTheChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t, carrying(t, `{"old":"a"}`)))
	_, err := b.queue.Replay(t.Context(), id, editing(request("ola"),
		dlq.Transform(hostType[legacy](1), func(legacy) (legacy, error) { return legacy{"b"}, nil })))
	require.True(t, is[*dlq.EditError](err), "%v", err)
	require.ErrorContains(t, err, "use ReplaceData")
}

// Whatever the data is, what is merged is JSON, and equal to itself. Whether it
// decodes to what was meant is looked at each time before it is replayed.
func FuzzMerge(f *testing.F) {
	for _, seed := range []string{
		`{"hostname":"a","disks":[{"size":1,"u":2}],"rack":4}`, `{"HOSTNAME":"a","hostname":"b"}`, `{"disks":[{}]}`,
		`{"rack":null,"u":[[{}]]}`, `{"hostname":"\ud800"}`, `{"disks":[{"size":1}],"Disks":[{"size":2}]}`,
	} {
		f.Add(seed, "x", 3)
	}
	f.Fuzz(func(t *testing.T, data, hostname string, size int) {
		var old host
		if json.Unmarshal([]byte(data), &old) != nil || !strings.HasPrefix(data, "{") {
			return
		}
		before, err := json.Marshal(old)
		require.NoError(t, err)
		changed := host{Hostname: hostname, Disks: append(old.Disks[:len(old.Disks):len(old.Disks)], disk{size})}
		after, err := json.Marshal(changed)
		require.NoError(t, err)
		merged := dlq.Merge(data, string(before), string(after))
		require.True(t, json.Valid([]byte(merged)), merged)
		require.Empty(t, dlq.Changes(merged, merged))
	})
}
