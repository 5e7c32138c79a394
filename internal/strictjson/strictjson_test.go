package strictjson_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"codeberg.org/dataverket/messaging/internal/strictjson"
	"github.com/stretchr/testify/require"
)

// known is constant: the names that the tests know.
var known = strictjson.NewNames("id", "tenant_id", "source", "kind", "data")

// member is what an Object says about one member.
type member struct {
	known   int
	name    string
	kind    strictjson.Kind
	raw     string
	escaped bool
}

// walk collects all members and the error.
func walk(text string) ([]member, error) {
	o := strictjson.NewObject([]byte(text), known)
	var all []member
	for o.Next() {
		from, to := o.Span()
		if text[from:to] != string(o.Raw()) {
			panic("the span is not that of the value")
		}
		all = append(all, member{
			o.Known(), string(o.Name()), o.Kind(), string(o.Raw()), o.Escaped(),
		})
	}
	return all, o.Err()
}

func TestObjectTellsWhereItsMembersAre(t *testing.T) {
	t.Parallel()
	got, err := walk(" {\"id\" : \"a\\nb\",\n\t\"x\\u0079\":[1,{\"id\":2}], \"data\":{ \"a\" : [] } ,\"t\":true,\"kind\":null,\"n\":-1.5e+3} ")
	require.NoError(t, err)
	require.Equal(t, []member{
		{0, "id", strictjson.KindString, `"a\nb"`, true},
		{-1, `x\u0079`, strictjson.KindArray, `[1,{"id":2}]`, false},
		{4, "data", strictjson.KindObject, `{ "a" : [] }`, false},
		{-1, "t", strictjson.KindBool, "true", false},
		{3, "kind", strictjson.KindNull, "null", false},
		{-1, "n", strictjson.KindNumber, "-1.5e+3", false},
	}, got)
}

func TestKnownNamesAreFoundInAnyOrderAndSpelledWithEscapes(t *testing.T) {
	t.Parallel()
	got, err := walk(`{"data":1,"\u0069\u0064":2,"source":3,"tenant_id":4}`)
	require.NoError(t, err)
	indices := make([]int, len(got))
	for i, m := range got {
		indices[i] = m.known
	}
	require.Equal(t, []int{4, 0, 2, 1}, indices)
}

func TestEmptyObjectHasNoMembers(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"{}", " \r\n{ \t} "} {
		got, err := walk(text)
		require.NoError(t, err)
		require.Empty(t, got)
	}
}

func TestNextStaysFalse(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"id":1}`, `{"id":1`, `{}`} {
		o := strictjson.NewObject([]byte(text), known)
		for o.Next() {
		}
		err := o.Err()
		require.False(t, o.Next(), text)
		require.Equal(t, err, o.Err(), text)
	}
}

// refusals lists what is refused where and why: as an object with known names.
// What encoding/json refuses too is marked, and the test holds that against it.
var refusals = []struct {
	text   string
	offset int
	reason string
	json   bool // refused by encoding/json too
}{
	{``, 0, "text ends where an object is expected", true},
	{`  `, 2, "text ends where an object is expected", true},
	{`[]`, 0, "an object is expected here", false},
	{`"id"`, 0, "an object is expected here", false},
	{"\ufeff{}", 0, "an object is expected here", true},
	{`{`, 1, "text ends where a name in quotes is expected", true},
	{`{,}`, 1, "a name in quotes is expected here", true},
	{`{id:1}`, 1, "a name in quotes is expected here", true},
	{`{'id':1}`, 1, "a name in quotes is expected here", true},
	{`{"id"}`, 5, "a colon is expected here", true},
	{`{"id" 1}`, 6, "a colon is expected here", true},
	{`{"id":}`, 6, "a value is expected here", true},
	{`{"id":1,}`, 8, "a name in quotes is expected here", true},
	{`{"id":1 "data":2}`, 8, "a comma or } is expected here", true},
	{`{"id":1`, 7, "text ends where a comma or } is expected", true},
	{`{"id":1]`, 7, "a comma or } is expected here", true},
	{`{"id":1}}`, 8, "text goes on behind the value", true},
	{`{"id":1}{"id":2}`, 8, "text goes on behind the value", true},
	{"{\"id\":1}\x00", 8, "text goes on behind the value", true},
	{`{"id":1}//`, 8, "text goes on behind the value", true},
	{"{\"id\":\u00a01}", 6, "a value is expected here", true},
	// Names.
	{`{"id":1,"id":2}`, 9, "name comes twice", false},
	{`{"id":1,"\u0069d":2}`, 9, "name comes twice", false},
	{`{"x":1,"x":2}`, 8, "name comes twice, if only in another case", false},
	{`{"x":1,"\u0058":2}`, 8, "name comes twice, if only in another case", false},
	{`{"å":1,"Å":2}`, 9, "name comes twice, if only in another case", false},
	{`{"TENANT_ID":1}`, 2, "name equals a known name but for case", false},
	{`{"Id":1}`, 2, "name equals a known name but for case", false},
	{`{"ſource":1}`, 2, "name equals a known name but for case", false},
	{`{"\u017fource":1}`, 2, "name equals a known name but for case", false},
	{"{\"\u212aind\":1}", 2, "name equals a known name but for case", false},
	{`{"id` + "\n" + `":1}`, 4, "control character in a string", true},
	// Strings.
	{`{"x":"a`, 7, "text ends inside a string", true},
	{`{"x":"a\`, 7, "text ends inside an escape", true},
	{`{"x":"\q"}`, 6, "unknown escape", true},
	{`{"x":"\u12"}`, 6, `\u without four hexadecimal digits`, true},
	{`{"x":"\u12g4"}`, 6, `\u without four hexadecimal digits`, true},
	{`{"x":"ab` + "\x00" + `"}`, 8, "control character in a string", true},
	{`{"x":"12345678` + "\x1f" + `"}`, 14, "control character in a string", true},
	{`{"x":"\u0000"}`, 6, "U+0000 is not allowed", false},
	{`{"x":["\u0000"]}`, 7, "U+0000 is not allowed", false},
	{`{"x":{"\u0000":1}}`, 7, "U+0000 is not allowed", false},
	{`{"\u0000":1}`, 2, "U+0000 is not allowed", false},
	{`{"x":"\ud83d"}`, 6, "surrogate escape without its other half", false},
	{`{"x":"\ude00\ud83d"}`, 6, "surrogate escape without its other half", false},
	{`{"x":"\ud83d\ud83d"}`, 6, "surrogate escape without its other half", false},
	{`{"x":"\ud83dx"}`, 6, "surrogate escape without its other half", false},
	{`{"x":"\ud83d\n"}`, 6, "surrogate escape without its other half", false},
	{"{\"x\":\"\xff\"}", 6, "invalid UTF-8 in a string", false},
	{"{\"x\":\"\xc0\x80\"}", 6, "invalid UTF-8 in a string", false},
	{"{\"x\":\"\xed\xa0\x80\"}", 6, "invalid UTF-8 in a string", false},
	{"{\"x\":\"\xe2\x82", 6, "invalid UTF-8 in a string", true},
	{"{\"\xff\":1}", 2, "invalid UTF-8 in a string", false},
	// Numbers and literals.
	{`{"x":01}`, 6, "a comma or } is expected here", true},
	{`{"x":-}`, 6, "a digit is expected here", true},
	{`{"x":+1}`, 5, "a value is expected here", true},
	{`{"x":.5}`, 5, "a value is expected here", true},
	{`{"x":1.}`, 7, "a digit is expected here", true},
	{`{"x":1e}`, 7, "a digit is expected here", true},
	{`{"x":1e+}`, 8, "a digit is expected here", true},
	{`{"x":0x1}`, 6, "a comma or } is expected here", true},
	{`{"x":NaN}`, 5, "a value is expected here", true},
	{`{"x":nul}`, 5, "null is expected here", true},
	{`{"x":tru`, 5, "true is expected here", true},
	{`{"x":False}`, 5, "a value is expected here", true},
	// Containers.
	{`{"x":[1,]}`, 8, "a value is expected here", true},
	{`{"x":[,1]}`, 6, "a value is expected here", true},
	{`{"x":[1 2]}`, 8, "a comma or ] is expected here", true},
	{`{"x":[1}}`, 7, "a comma or ] is expected here", true},
	{`{"x":{"a":1]}`, 11, "a comma or } is expected here", true},
	{`{"x":{"a":1,}}`, 12, "a name in quotes is expected here", true},
	{`{"x":{"a"}}`, 9, "a colon is expected here", true},
	{`{"x":[[]`, 8, "text ends where a comma or ] is expected", true},
	{`{"x":[` + strings.Repeat("[", 63), 68, "more than 64 levels are nested", true},
}

func TestRefusesWithOffsetAndReason(t *testing.T) {
	t.Parallel()
	for _, c := range refusals {
		_, err := walk(c.text)
		require.Equal(t, &strictjson.Error{Offset: c.offset, Reason: c.reason}, err, "%q", c.text)
		require.Equal(t, c.json, !json.Valid([]byte(c.text)), "encoding/json on %q", c.text)
	}
}

func TestErrorTextIsOffsetAndReason(t *testing.T) {
	t.Parallel()
	_, err := walk(`{"secret":"hunter2",`)
	require.EqualError(t, err, "byte 20: text ends where a name in quotes is expected")
}

// Eight bytes are looked at in one step: each byte in each of its lanes, between
// neighbours of both extremes.
func TestEveryByteIsJudgedAlikeInEveryLane(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		for lane := range 8 {
			for _, fill := range []string{" ", "!", "~", "[", "]", "\x7f"} {
				inside := strings.Repeat(fill, lane) + string([]byte{byte(c)}) + strings.Repeat(fill, 16-lane)
				_, err := strictjson.Check([]byte(`"`+inside+`"`), 0)
				plain := c >= ' ' && c < 0x80 && c != '"' && c != '\\'
				require.Equal(t, plain, err == nil, "byte %#x in lane %d", c, lane)
			}
		}
	}
}

// Every position of an eight-byte step can hold the byte that ends it.
func TestStringsAreReadAlikeAtEveryAlignment(t *testing.T) {
	t.Parallel()
	for length := range 40 {
		plain := strings.Repeat("a", length)
		for _, tail := range []string{"", `\"`, `\\`, "é", `\u00e9`, "\x7f", "€", "\U0001f600", `\uABCD\uEF09`, `\ud83d\ude00`} {
			text := `"` + plain + tail + plain + `"`
			kind, err := strictjson.Check([]byte(text), 0)
			require.NoError(t, err, text)
			require.Equal(t, strictjson.KindString, kind)
			var want string
			require.NoError(t, json.Unmarshal([]byte(text), &want))
			require.Equal(t, want, string(strictjson.AppendUnescaped(nil, []byte(text[1:len(text)-1]))))
		}
		for _, bad := range []string{"\x00", "\x1f", "\n", "\x80", "\xff", `\x`} {
			_, err := strictjson.Check([]byte(`"`+plain+bad+plain+`"`), 0)
			require.Equal(t, length+1, err.(*strictjson.Error).Offset, "%q behind %d bytes", bad, length)
		}
	}
}

func TestDepthIsBoundedAndCountedFromOutside(t *testing.T) {
	t.Parallel()
	nested := func(n int) string {
		return strings.Repeat(`[`, n-1) + `{"a":1}` + strings.Repeat(`]`, n-1)
	}
	for depth := range 3 {
		_, err := strictjson.Check([]byte(nested(strictjson.MaxDepth-depth)), depth)
		require.NoError(t, err)
		_, err = strictjson.Check([]byte(nested(strictjson.MaxDepth-depth+1)), depth)
		require.Equal(t, "more than 64 levels are nested", err.(*strictjson.Error).Reason)
	}
	_, err := walk(`{"data":` + nested(strictjson.MaxDepth-1) + `}`)
	require.NoError(t, err)
	_, err = walk(`{"data":` + nested(strictjson.MaxDepth) + `}`)
	require.Error(t, err)
}

// An object at every level, so that the bit of each is used.
func TestContainersCloseAsTheyWereOpened(t *testing.T) {
	t.Parallel()
	text, closing := "", ""
	for i := range strictjson.MaxDepth - 1 {
		if i%3 == 0 {
			text, closing = text+`{"a":`, `}`+closing
		} else {
			text, closing = text+`[0,`, `]`+closing
		}
	}
	text = text + `[]` + closing
	_, err := strictjson.Check([]byte(text), 0)
	require.NoError(t, err)
	for i := len(text) - len(closing); i < len(text); i++ {
		broken := []byte(text)
		broken[i] ^= ']' ^ '}'
		_, err := strictjson.Check(broken, 0)
		require.Equal(t, i, err.(*strictjson.Error).Offset)
	}
}

func TestMembersAreBounded(t *testing.T) {
	t.Parallel()
	object := func(n int) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = fmt.Sprintf(`"x%d":%d`, i, i)
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	got, err := walk(object(strictjson.MaxMembers))
	require.NoError(t, err)
	require.Len(t, got, strictjson.MaxMembers)
	_, err = walk(object(strictjson.MaxMembers + 1))
	require.Equal(t, "object has more than 128 members", err.(*strictjson.Error).Reason)
}

func TestCheckTellsTheKind(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]strictjson.Kind{
		` {"a":[]} `: strictjson.KindObject, `[]`: strictjson.KindArray, `""`: strictjson.KindString,
		`0`: strictjson.KindNumber, `-0.1e-9`: strictjson.KindNumber,
		`true`: strictjson.KindBool, `false`: strictjson.KindBool, `null`: strictjson.KindNull,
	} {
		kind, err := strictjson.Check([]byte(text), 0)
		require.NoError(t, err, text)
		require.Equal(t, want, kind, text)
	}
	kind, err := strictjson.Check([]byte(`{} {}`), 0)
	require.Error(t, err)
	require.Zero(t, kind)
}

func TestKindsHaveNames(t *testing.T) {
	t.Parallel()
	var names []string
	for k := range strictjson.KindNull + 1 {
		names = append(names, k.String())
	}
	require.Equal(t, []string{"invalid", "an object", "an array", "a string", "a number", "a boolean", "null"}, names)
}

func TestTooManyKnownNamesAreAFaultOfTheProgram(t *testing.T) {
	t.Parallel()
	require.Panics(t, func() { strictjson.NewNames(make([]string, 65)...) })
	require.NotPanics(t, func() { strictjson.NewNames(make([]string, 64)...) })
}

// Not parallel: AllocsPerRun counts the allocations of the whole process.
func TestNothingIsAllocatedForKnownMembers(t *testing.T) {
	text := []byte(`{"id":"a","tenant_id":"b","source":"\n","kind":[1,2],"data":{"a":{"b":[true]}}}`)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		o := strictjson.NewObject(text, known)
		for o.Next() {
		}
		if o.Err() != nil {
			t.Error(o.Err())
		}
	}))
}
