package subject

import (
	"fmt"
	"strings"
)

// Parse reads a subject from the wire. It accepts exactly what the builders
// return: Parse(s.String()) == s for every s but the zero value, and nothing
// else parses. It never panics, and allocates nothing when it succeeds: the
// Subject shares the memory of text.
//
// The error is one [*Error] that names every fault, as far as the text can be
// divided into its parts at all.
func Parse(text string) (Subject, error) {
	s, fault := parse(text)
	if fault != "" {
		return Subject{}, newError("subject", text, fault)
	}
	return s, nil
}

// parse returns the subject, or what is wrong with text.
func parse(text string) (s Subject, fault string) {
	s, tail, fault := parseHead(text)
	if fault == "" {
		fault = s.family.tailFault(tail)
	}
	if fault == "" {
		return s, ""
	}
	if hasWildcard(text) {
		fault = "is a pattern: " + wildcardRemedy + ", see ParseFilter"
	}
	return Subject{}, fault
}

// parseHead reads the fixed tokens. The subject is complete but for the check
// of its tail.
func parseHead(text string) (s Subject, tail, fault string) {
	first, rest, _ := strings.Cut(text, ".")
	second, rest, _ := strings.Cut(rest, ".")
	third, tail, _ := strings.Cut(rest, ".")
	s = Subject{text: text, tail: uint8(min(len(text)-len(tail), MaxLength))}
	if first != root {
		return s, tail, "does not begin with dv: every subject is one of " + grammars()
	}
	switch second {
	case areaTsk:
		s.family = FamilyTaskEvent
		if third != "evt" {
			fault = "has another token than evt after task: write " + s.family.shape().grammar
		}
	case areaRPC:
		s.family, s.service = FamilyRPC, lookupService(third)
		fault = serviceFault(s.service, third)
	case areaXDC:
		return parseSiteHead(text, third, tail)
	default:
		s.family, s.service = familyOf(third), lookupService(second)
		fault = joinFaults(serviceFault(s.service, second), familyFault(s.family, third))
	}
	return s, tail, fault
}

// parseSiteHead reads on where a site stands in the place of the service.
func parseSiteHead(text, site, rest string) (s Subject, tail, fault string) {
	service, rest, _ := strings.Cut(rest, ".")
	token, tail, _ := strings.Cut(rest, ".")
	s = Subject{
		text: text, tail: uint8(min(len(text)-len(tail), MaxLength)),
		family: FamilySiteCommand, service: lookupService(service),
	}
	fault = joinFaults(partFault("site", site, siteFault(site)), serviceFault(s.service, service))
	if token != FamilyCommand.shape().token {
		fault = joinFaults(fault, "has another token than cmd after the service: write "+s.family.shape().grammar)
	}
	return s, tail, fault
}

// tailFault checks the free tokens of a subject of family f.
func (f Family) tailFault(tail string) string {
	parts := f.shape().parts
	if f == FamilyDeadLetter {
		return partFault(parts[0], tail, f.fault(tail))
	}
	if n := strings.Count(tail, ".") + 1; n != len(parts) || tail == "" {
		return f.countFault(tail)
	}
	var fault string
	for _, name := range parts {
		var part string
		part, tail, _ = strings.Cut(tail, ".")
		fault = joinFaults(fault, partFault(name, part, f.fault(part)))
	}
	return fault
}

// countFault explains that there are too many or too few tokens.
func (f Family) countFault(tail string) string {
	shape := f.shape()
	fault := "has too few tokens: "
	if strings.Count(tail, ".") >= len(shape.parts) {
		fault = "has too many tokens: "
	}
	fault += "write " + shape.grammar
	if isVersion(tail[strings.LastIndexByte(tail, '.')+1:]) {
		fault += "; a version belongs into the envelope's dataschema"
	}
	return fault
}

// isVersion recognises the version token of other taxonomies, such as v1.
func isVersion(token string) bool {
	digits := strings.TrimPrefix(token, "v")
	return digits != token && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// partFault puts the name of the part and its text before a fault.
func partFault(name, part, fault string) string {
	if fault == "" {
		return ""
	}
	return fmt.Sprintf("%s %q %s", name, shorten(part), fault)
}

// serviceFault returns the fault of a service token that lookupService refused.
func serviceFault(s Service, token string) string {
	if s.Valid() {
		return ""
	}
	return partFault("service", token, "is not an accepted service: "+serviceRemedy())
}

// familyFault returns the fault of a family token that familyOf refused.
func familyFault(f Family, token string) string {
	if f != 0 {
		return ""
	}
	return partFault("family", token, "is unknown: "+familyRemedy())
}

// joinFaults lists two faults in one text; either may be empty.
func joinFaults(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// hasWildcard reports whether a token of text is a wildcard.
func hasWildcard(text string) bool {
	for token := range strings.SplitSeq(text, ".") {
		if token == "*" || token == ">" {
			return true
		}
	}
	return false
}

// grammars lists what a subject can be, without the machinery of dead letters,
// which nobody writes by hand.
func grammars() string {
	var list []string
	for f := FamilyCommand; f <= FamilyRPC; f++ {
		list = append(list, f.shape().grammar)
	}
	return strings.Join(list, ", ")
}
