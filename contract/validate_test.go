package contract_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
)

// accepts reports whether a schema without references allows a value. It is what
// the tests hold the code against; formats are asserted where Go can.
func accepts(s *contract.Schema, v any) bool {
	if s.Type != nil && !slices.ContainsFunc(s.Type, func(t string) bool { return is(t, v) }) {
		return false
	}
	if s.Enum != nil && !slices.Contains(s.Enum, v) {
		return false
	}
	switch v := v.(type) {
	case string:
		return acceptsText(s, v)
	case map[string]any:
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				return false
			}
		}
		for name, value := range v {
			if p := s.Properties[name]; p != nil && !accepts(p, value) {
				return false
			}
		}
	}
	return true
}

func acceptsText(s *contract.Schema, text string) bool {
	if s.Format == "date-time" {
		if _, err := time.Parse(time.RFC3339, text); err != nil {
			return false
		}
	}
	length := float64(utf8.RuneCountInString(text))
	return regexp.MustCompile(s.Pattern).MatchString(text) &&
		(s.MinLength == nil || length >= *s.MinLength) && (s.MaxLength == nil || length <= *s.MaxLength)
}

// is reports whether a value is of a JSON type.
func is(name string, v any) bool {
	switch v := v.(type) {
	case nil:
		return name == "null"
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case float64:
		return name == "number" || name == "integer" && v == float64(int64(v))
	case []any:
		return name == "array"
	}
	return name == "object"
}

func object(t testing.TB, data []byte) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal(data, &v))
	return v
}
