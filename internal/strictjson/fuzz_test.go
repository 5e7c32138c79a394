package strictjson_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"unicode/utf8"

	"codeberg.org/dataverket/messaging/internal/strictjson"
	"github.com/stretchr/testify/require"
)

// stricter lists the reasons for which text may be refused that encoding/json
// accepts.
var stricter = []string{
	"U+0000 is not allowed",
	"surrogate escape without its other half",
	"invalid UTF-8 in a string",
	"more than 64 levels are nested",
}

// stricterObject adds those that only a top-level object can give.
var stricterObject = append(slices.Clone(stricter),
	"an object is expected here",
	"name comes twice",
	"name comes twice, if only in another case",
	"name equals a known name but for case",
	"object has more than 128 members",
)

// seed adds the refusals and some good texts.
func seed(f *testing.F) {
	for _, c := range refusals {
		f.Add([]byte(c.text))
	}
	for _, text := range []string{
		`{}`, `[]`, `null`, `"\ud83d\ude00"`, `{"a":{"a":{"a":[[[0]]]}}}`, ` { "id" : "a\/b" , "x" : -0.0E+1 } `,
		`{"tenant_id":"t","source":"maskin","data":{"é":"\u00e9"}}`, `[true,false,null,1,"",[],{}]`,
	} {
		f.Add([]byte(text))
	}
}

// FuzzCheck holds the scanner against encoding/json: what it accepts is accepted
// there, what is refused there it refuses, and where it is stricter it says one
// of the known reasons.
func FuzzCheck(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		kind, err := strictjson.Check(data, 0)
		if err == nil {
			require.True(t, json.Valid(data))
			require.True(t, utf8.Valid(data))
			require.Equal(t, kindOf(data), kind)
			return
		}
		fault := err.(*strictjson.Error)
		require.LessOrEqual(t, fault.Offset, len(data))
		if json.Valid(data) {
			require.Contains(t, stricter, fault.Reason)
		}
	})
}

// kindOf is the kind by the first byte, which is enough for valid JSON.
func kindOf(data []byte) strictjson.Kind {
	switch bytes.TrimLeft(data, " \t\r\n")[0] {
	case '{':
		return strictjson.KindObject
	case '[':
		return strictjson.KindArray
	case '"':
		return strictjson.KindString
	case 't', 'f':
		return strictjson.KindBool
	case 'n':
		return strictjson.KindNull
	}
	return strictjson.KindNumber
}

// FuzzObject holds the members against a map of encoding/json: the same names,
// each once, with the same values.
func FuzzObject(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		members, err := walk(string(data))
		if err != nil {
			if json.Valid(data) {
				require.Contains(t, stricterObject, err.(*strictjson.Error).Reason)
			}
			return
		}
		var want map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(data, &want))
		require.Len(t, members, len(want))
		for _, m := range members {
			name := string(strictjson.AppendUnescaped(nil, []byte(m.name)))
			require.Contains(t, want, name)
			require.Equal(t, string(want[name]), m.raw)
			require.Equal(t, kindOf([]byte(m.raw)), m.kind)
		}
	})
}

// FuzzUnescape holds the unescaping against encoding/json, and feeds it what no
// accepted string can hold: it must not panic there.
func FuzzUnescape(f *testing.F) {
	for _, text := range []string{
		``, `plain`, `\"\\\/\b\f\n\r\t`, `\u00e9\u20ac`, `\ud83d\ude00`, `a\u005cb`, `\ud83d`, `\`, `\u`, `\u12`, `\q`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := strictjson.AppendUnescaped([]byte("kept"), []byte(text))
		require.True(t, bytes.HasPrefix(got, []byte("kept")))
		quoted := []byte(`"` + text + `"`)
		if _, err := strictjson.Check(quoted, 0); err != nil {
			return
		}
		var want string
		require.NoError(t, json.Unmarshal(quoted, &want))
		require.Equal(t, want, string(got[len("kept"):]))
		require.LessOrEqual(t, len(want), len(text), "unescaping never lengthens")
	})
}
