package subject

import "strings"

// Family is the kind of a subject: which of the grammars of the package
// documentation it follows. The zero value belongs to the zero [Subject] only.
type Family uint8

// The families of requirements S1 and S5, the two that lie beside a service's dead
// letters, and commands on their way to another site.
const (
	FamilyCommand        Family = iota + 1 // dv.<service>.cmd.<action>
	FamilyEvent                            // dv.<service>.evt.<entity>.<verb>
	FamilyTaskEvent                        // dv.task.evt.<verb>
	FamilyRPC                              // dv.rpc.<service>.<operation>
	FamilyDeadLetter                       // dv.<service>.dlq.<original subject>
	FamilyDeadLetterMark                   // dv.<service>.dlqmark.<letter id>
	FamilyReplay                           // dv.<service>.replay.<durable>
	FamilySiteCommand                      // dv.xdc.<site>.<service>.cmd.<action>
)

// Fixed tokens of the wire contract.
const (
	root    = "dv"
	areaTsk = "task"
	areaRPC = "rpc"
	areaXDC = "xdc" // what waits for another site
)

// shape is what tells one family from another.
type shape struct {
	name    string   // for messages and logs
	token   string   // the token after the service; "" where the family has none there
	parts   []string // what the free tokens are called, in order
	grammar string   // for error texts
}

// families is constant: the shape of every family, by its value. Builders,
// Parse and the error texts all read it, so that they cannot disagree.
var families = [...]shape{
	0:                    {name: "invalid"},
	FamilyCommand:        {"command", "cmd", []string{"action"}, "dv.<service>.cmd.<action>"},
	FamilyEvent:          {"event", "evt", []string{"entity", "verb"}, "dv.<service>.evt.<entity>.<verb>"},
	FamilyTaskEvent:      {"task event", "", []string{"verb"}, "dv.task.evt.<verb>"},
	FamilyRPC:            {"rpc", "", []string{"operation"}, "dv.rpc.<service>.<operation>"},
	FamilyDeadLetter:     {"dead letter", "dlq", []string{"original"}, "dv.<service>.dlq.<original subject>"},
	FamilyDeadLetterMark: {"dead letter mark", "dlqmark", []string{"letter id"}, "dv.<service>.dlqmark.<letter id>"},
	FamilyReplay:         {"replay", "replay", []string{"durable"}, "dv.<service>.replay.<durable>"},
	FamilySiteCommand:    {"command to a site", "", []string{"action"}, "dv.xdc.<site>.<service>.cmd.<action>"},
}

// shape returns the row of f; a value outside the set gets that of zero.
func (f Family) shape() *shape {
	if int(f) >= len(families) {
		f = 0
	}
	return &families[f]
}

// String names the family for messages and logs: "command", "event", "task
// event", "rpc", "dead letter", "dead letter mark", "replay", "command to a site",
// or "invalid".
func (f Family) String() string { return f.shape().name }

// familyOf returns the family whose subjects carry token after the service.
func familyOf(token string) Family {
	for i := range families {
		if token != "" && families[i].token == token {
			return Family(i)
		}
	}
	return 0
}

// familyRemedy lists what may stand after a service.
func familyRemedy() string {
	var tokens []string
	for _, shape := range families {
		if shape.token != "" {
			tokens = append(tokens, shape.token)
		}
	}
	return "use one of: " + strings.Join(tokens, ", ")
}

// head returns everything before the free tokens, with the dot. That of a command
// to a site is siteHead.
func (f Family) head(s Service) string {
	switch f {
	case FamilyTaskEvent:
		return root + "." + areaTsk + ".evt."
	case FamilyRPC:
		return root + "." + areaRPC + "." + s.String() + "."
	default:
		return root + "." + s.String() + "." + f.shape().token + "."
	}
}

// fault returns what is wrong with a free part of a subject of f, or "".
func (f Family) fault(part string) string {
	switch f {
	case FamilyDeadLetter:
		return originalFault(part)
	case FamilyDeadLetterMark:
		return letterFault(part)
	default:
		return tokenFault(part)
	}
}
