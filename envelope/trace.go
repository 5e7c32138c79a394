package envelope

import "strings"

// Layout of a W3C traceparent: version-traceid-parentid-flags.
const (
	traceparentLen  = 55
	traceIDStart    = 3
	traceIDEnd      = traceIDStart + 32
	parentIDStart   = traceIDEnd + 1
	parentIDEnd     = parentIDStart + 16
	traceFlagsStart = parentIDEnd + 1
)

// TraceID returns the trace id of a W3C traceparent, 32 lower-case hex digits,
// and whether traceparent is one (requirement X3). Version 00 must have its
// exact form; a later version may append further fields, as the recommendation
// demands; version ff and all-zero ids are refused.
func TraceID(traceparent string) (string, bool) {
	if !isTraceparent(traceparent) {
		return "", false
	}
	return traceparent[traceIDStart:traceIDEnd], true
}

// isTraceparent holds the rules of the W3C recommendation, section 3.2.
func isTraceparent(t string) bool {
	if len(t) < traceparentLen || t[2] != '-' || t[traceIDEnd] != '-' || t[parentIDEnd] != '-' {
		return false
	}
	version := t[:2]
	if !isHex(version) || version == "ff" {
		return false
	}
	if len(t) > traceparentLen && (version == "00" || t[traceparentLen] != '-') {
		return false
	}
	return isNonZeroHex(t[traceIDStart:traceIDEnd]) &&
		isNonZeroHex(t[parentIDStart:parentIDEnd]) &&
		isHex(t[traceFlagsStart:traceparentLen])
}

// maxTraceparent bounds what a later version may append.
const maxTraceparent = 256

// validTraceparent returns t if it can be sent on, else "".
func validTraceparent(t string) string {
	if !isTraceparent(t) || len(t) > maxTraceparent || len(t) > traceparentLen && !isHeaderValue(t) {
		return ""
	}
	return t
}

// isHex reports whether s is made of lower-case hex digits only.
func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isNonZeroHex is isHex without the all-zero value, which means "none".
func isNonZeroHex(s string) bool {
	return isHex(s) && strings.Trim(s, "0") != ""
}
