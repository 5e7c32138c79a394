package contract_test

import (
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/subject"
)

func TestEveryRuleOfTheSchemaIsAsRecorded(t *testing.T) {
	t.Parallel()
	l := list(t, event[everything]("thing", "seen", 1))
	got, err := l.Contracts[0].SchemaDocument()
	require.NoError(t, err)
	requireGolden(t, "testdata/everything.schema.json", got)
}

// What encoding/json writes is what the schema says: the same names, the required
// ones always.
func TestSchemaHasTheFieldsThatEncodingJSONWrites(t *testing.T) {
	t.Parallel()
	s := list(t, event[everything]("thing", "seen", 1)).Contracts[0].Schema
	written := func(v everything) []string {
		data, err := json.Marshal(v)
		require.NoError(t, err)
		var object map[string]any
		require.NoError(t, json.Unmarshal(data, &object))
		var names []string
		for name := range object {
			require.Contains(t, s.Properties, name)
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	require.Equal(t, s.Required, written(everything{}), "an empty value has the required ones only")
	full := everything{
		Tail: &Tail{}, Labels: map[string]string{"a": "b"}, Counts: map[size][]float64{}, Raw: json.RawMessage("1"), Any: 1, Key: []byte{1}, Other: &node{},
	}
	full.Artifact.Size = 1
	require.Len(t, written(full), len(s.Properties))
}

// Conflicts of embedded names end as encoding/json ends them.
func TestConflictsOfEmbeddedNamesAreThoseOfEncodingJSON(t *testing.T) {
	t.Parallel()
	type A struct {
		Same   int
		Tagged int `json:"Other"`
		Only   int
	}
	type B struct {
		Same  int
		Other int
	}
	type C struct{ A }
	type outer struct {
		A
		B
		C C `json:",omitempty"`
	}
	type deep struct {
		*A
		C
	}
	for _, c := range []struct {
		l contract.List
		v any
	}{
		{list(t, event[outer]("a", "b", 1)), outer{}},
		{list(t, event[deep]("a", "b", 1)), deep{A: &A{}}},
		{list(t, event[struct {
			C
			Only string `json:"dæmon"`
		}]("a", "b", 1)), struct {
			C
			Only string `json:"dæmon"`
		}{}},
	} {
		data, err := json.Marshal(c.v)
		require.NoError(t, err)
		var object map[string]any
		require.NoError(t, json.Unmarshal(data, &object))
		var properties []string
		for name := range c.l.Contracts[0].Schema.Properties {
			properties = append(properties, name)
		}
		var names []string
		for name := range object {
			names = append(names, name)
		}
		require.ElementsMatch(t, names, properties, string(data))
	}
}

type (
	unexported struct{ A int }
	keyed      struct {
		ByNumber map[int]string `json:"by_number"`
	}
	holder struct {
		List []struct {
			Signal chan int `json:"signal"`
		} `json:"list"`
	}
	loop   *loop
	broken struct{}
	gauge  int
)

func (broken) ContractSchema() string { return `{"type":"string","additionalProperties":false}` }
func (gauge) ContractEnum() []string  { return []string{"1"} }

func TestATypeThatIsNoSchemaIsAnErrorThatNamesTheField(t *testing.T) {
	t.Parallel()
	type stringer interface{ String() string }
	for want, m := range map[string]contract.Message{
		"field List[].Signal of contract_test.holder: a chan int has no JSON":                        event[holder]("a", "b", 1),
		"field ByNumber of contract_test.keyed: the keys of map[int]string are no strings":           event[keyed]("a", "b", 1),
		"field F of struct { F func() }: a func() has no JSON":                                       event[struct{ F func() }]("a", "b", 1),
		"field C of struct { C complex128 }: a complex128 has no JSON":                               event[struct{ C complex128 }]("a", "b", 1),
		"is an interface with methods":                                                               event[struct{ S stringer }]("a", "b", 1),
		"field B of struct { B *big.Int }: big.Int marshals itself: give it a method ContractSchema": event[struct{ B *big.Int }]("a", "b", 1),
		"field unexported of struct { *contract_test.unexported }: encoding/json cannot set":         event[struct{ *unexported }]("a", "b", 1),
		"field T of struct { T contract_test.broken }: its method ContractSchema: parse schema":      event[struct{ T broken }]("a", "b", 1),
		"is for types that are text":                                                                 event[struct{ G gauge }]("a", "b", 1),
		`"min=1" is none of type=, format=, enum=a|b`: event[struct {
			N int `contract:"min=1"`
		}]("a", "b", 1),
		"type is any, string": event[struct {
			N int `contract:"type=text"`
		}]("a", "b", 1),
		"format and enum are for text": event[struct {
			N int `contract:"enum=1|2"`
		}]("a", "b", 1),
		"field L of struct { L contract_test.loop }: a contract_test.loop has no JSON": event[struct{ L loop }]("a", "b", 1),
		"time.Time: is no JSON object":     event[time.Time]("a", "b", 1),
		"contract_test.amount: is no JSON": event[amount]("a", "b", 1),
	} {
		_, err := contract.New(subject.Maskin, contract.Produces(m))
		require.ErrorContains(t, err, "contract: produces[0] (maskin.a.b v1): ")
		require.ErrorContains(t, err, want)
	}
	require.Panics(t, func() { contract.MustNew(subject.Maskin, contract.Produces(event[holder]("a", "b", 1))) })
}

func TestAllFieldsThatAreNoSchemaAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := contract.New(subject.Maskin, contract.Produces(event[struct {
		A chan int
		B func()
	}]("a", "b", 1), event[keyed]("c", "d", 1)))
	for _, want := range []string{"field A", "field B", "field ByNumber"} {
		require.ErrorContains(t, err, want)
	}
	require.Len(t, strings.Split(err.Error(), "\n"), 3)
}

func TestDataOfAnyShapeIsAnObject(t *testing.T) {
	t.Parallel()
	for _, m := range []contract.Message{
		event[map[string]any]("a", "b", 1), event[json.RawMessage]("a", "b", 1), event[map[string]json.RawMessage]("a", "b", 1),
	} {
		got, err := json.Marshal(list(t, m).Contracts[0].Schema)
		require.NoError(t, err)
		require.JSONEq(t, `{"type":"object","additionalProperties":{}}`, string(got))
	}
}

func TestATypeThatHoldsItselfRefersToItself(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(list(t, event[*node]("a", "b", 1)).Contracts[0].Schema)
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"object","required":["name","next"],"properties":{
		"name":{"type":"string"},
		"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]},
		"kids":{"type":"array","items":{"$ref":"#"}},
		"map":{"type":"object","additionalProperties":{"anyOf":[{"$ref":"#"},{"type":"null"}]}}}}`, string(got))
}

func TestASchemaOfAnotherSubsetIsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"additionalProperties":false}`:                   "additionalProperties",
		`{"oneOf":[]}`:                                     "unknown field",
		`{"type":"float"}`:                                 `"float" is no JSON type`,
		`{"$ref":"#/definitions/x"}`:                       "leads nowhere",
		`{"$ref":"other.json"}`:                            "leads nowhere",
		`{"$ref":"#"}`:                                     "leads nowhere",
		`{"definitions":{"a":{"$ref":"#/definitions/a"}}}`: "leads nowhere",
		`{"definitions":{"a/b":{}}}`:                       "is no name",
		`{"properties":{"a":{"definitions":{"b":{}}}}}`:    "stand at the root only",
		`{"properties":{"a":null}}`:                        "schema.a: is null",
		`{"anyOf":[null]}`:                                 "is null",
		`{"items":{"enum":[[1]]}}`:                         "enum holds an array",
		`{"required":["a"]}`:                               `requires "a", which is no property`,
		`[]`:                                               "must be a JSON object",
		`{} {}`:                                            "byte",
		`{"type":7}`:                                       "cannot unmarshal",
		strings.Repeat(`{"items":`, 70) + "{}" + strings.Repeat("}", 70):                  "nested",
		`{"description":"` + strings.Repeat("x", 9<<20) + `"}`:                            "at most",
		`{"definitions":{"a":{"$ref":"#/definitions/b"},"b":{"$ref":"#/definitions/a"}}}`: "leads nowhere",
	} {
		_, err := contract.ParseSchema([]byte(text))
		require.ErrorContains(t, err, "contract: parse schema: ")
		require.ErrorContains(t, err, want)
	}
	s, err := contract.ParseSchema([]byte(`{"$ref":"#/definitions/a","definitions":{"a":{"type":["string","null"]}}}`))
	require.NoError(t, err)
	again, err := json.Marshal(s)
	require.NoError(t, err)
	require.JSONEq(t, `{"$ref":"#/definitions/a","definitions":{"a":{"type":["string","null"]}}}`, string(again))
}
