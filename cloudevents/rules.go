package cloudevents

import (
	"mime"
	"strconv"
	"strings"

	"codeberg.org/dataverket/messaging/internal/strictjson"
)

// checkName returns why a text is no attribute name, or "".
func checkName(name string) string {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "is no attribute name: those are letters a to z and digits"
		}
	}
	switch name {
	case "":
		return "is no attribute name: it is empty"
	case memberData:
		return "is no attribute name: it is reserved"
	}
	return ""
}

// checkScalar returns why a JSON value is no attribute value, or "".
func checkScalar(kind strictjson.Kind, text string) string {
	switch kind {
	case strictjson.KindString:
		return checkText(text)
	case strictjson.KindNumber:
		// One spelling of each number, so that text and number are the same.
		if n, err := strconv.ParseInt(text, 10, 32); err != nil || strconv.FormatInt(n, 10) != text {
			return "must be an integer of 32 bits without fraction and exponent"
		}
		return ""
	case strictjson.KindBool:
		return ""
	}
	return "must be a string, an integer or a boolean, is " + kind.String()
}

// checkText accepts the strings of CloudEvents: no control characters and no code
// points that Unicode says are no characters. The text is valid UTF-8.
func checkText(text string) string {
	for _, r := range text {
		if r < ' ' || 0x7f <= r && r <= 0x9f {
			return "must not hold control characters"
		}
		if 0xfdd0 <= r && r <= 0xfdef || r&0xfffe == 0xfffe {
			return "must not hold noncharacters of Unicode"
		}
	}
	return ""
}

// isJSON reports whether a media type says JSON: its subtype is json or ends in
// +json, whatever its parameters.
func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	_, subtype, ok := strings.Cut(media, "/")
	return err == nil && ok && (subtype == "json" || strings.HasSuffix(subtype, "+json"))
}

// appendQuoted writes a JSON string. The text holds no control characters and only
// valid UTF-8, so quote and backslash are all there is to escape.
func appendQuoted(b []byte, text string) []byte {
	b = append(b, '"')
	for i := range len(text) {
		if text[i] == '"' || text[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, text[i])
	}
	return append(b, '"')
}
