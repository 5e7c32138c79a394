package jsontype_test

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/jsontype"
)

type byValue []int

func (byValue) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

type byPointer []int

func (*byPointer) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

func TestToObjectFollowsPointersToTheKindsAndBelievesMarshalers(t *testing.T) {
	t.Parallel()
	type plain struct{}
	for _, yes := range []any{plain{}, &plain{}, new(*plain), byValue{}, byPointer{}, &byPointer{}} {
		require.True(t, jsontype.ToObject(reflect.TypeOf(yes), reflect.Struct), "%T", yes)
	}
	for _, no := range []any{"", 0, []plain{}, map[string]int{}, &map[string]int{}} {
		require.False(t, jsontype.ToObject(reflect.TypeOf(no), reflect.Struct), "%T", no)
	}
	require.True(t, jsontype.ToObject(reflect.TypeFor[*map[string]int](), reflect.Struct, reflect.Map))
	require.False(t, jsontype.ToObject(reflect.TypeFor[any](), reflect.Struct, reflect.Map))
}
