package strictjson

import "strconv"

// Error says where a text breaks which rule.
type Error struct {
	// Offset counts bytes from 0 to where the fault was noticed.
	Offset int
	// Reason says what is wrong there. It never holds content.
	Reason string
}

// Error returns "byte <offset>: <reason>".
func (e *Error) Error() string {
	return "byte " + strconv.Itoa(e.Offset) + ": " + e.Reason
}
