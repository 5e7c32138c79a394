package strictjson

// Kind is what kind of JSON value something is. The zero value is invalid.
type Kind uint8

// The kinds.
const (
	KindObject Kind = iota + 1 // {…}
	KindArray                  // […]
	KindString                 // "…"
	KindNumber                 // a number
	KindBool                   // true or false
	KindNull                   // null
)

// String names the kind with its article, for "must be a string, is null".
func (k Kind) String() string {
	switch k {
	case KindObject:
		return "an object"
	case KindArray:
		return "an array"
	case KindString:
		return "a string"
	case KindNumber:
		return "a number"
	case KindBool:
		return "a boolean"
	case KindNull:
		return "null"
	}
	return "invalid"
}
