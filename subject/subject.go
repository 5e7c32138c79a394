package subject

import "strings"

// Subject is one concrete subject: something that can be published to. A
// wildcard is never a Subject but a [Filter] (requirement S3). The zero value is
// no subject; every other value satisfies the grammar of its family.
//
// A Subject is a plain immutable value: copy it, compare it with ==, use it as
// a map key, share it between goroutines.
type Subject struct {
	text    string
	tail    uint8 // where the free tokens begin
	family  Family
	service Service
}

// String returns the subject as it stands on the wire, and "" for the zero
// value.
func (s Subject) String() string { return s.text }

// IsZero reports whether s is the zero value, which is no subject.
func (s Subject) IsZero() bool { return s.text == "" }

// Family returns which grammar s follows; zero for the zero value.
func (s Subject) Family() Family { return s.family }

// Service returns the service that the subject names: the one that is addressed
// by a command or a call, the one that emits an event, the consuming one of a
// dead letter, a mark or a replay. It is zero for a task event, since every
// service reports tasks on the same subjects.
func (s Subject) Service() Service { return s.service }

// Action returns the action of a command, also of one to a site, and "" for any
// other family.
func (s Subject) Action() string {
	if s.family == FamilySiteCommand {
		return s.free(FamilySiteCommand)
	}
	return s.free(FamilyCommand)
}

// Site returns the destination of a command to a site, and "" for any other family.
func (s Subject) Site() string {
	if s.family != FamilySiteCommand {
		return ""
	}
	site, _, _ := strings.Cut(s.text[len(siteRoot):], ".")
	return site
}

// Entity returns the entity of an event, and "" for any other family.
func (s Subject) Entity() string {
	entity, _, _ := strings.Cut(s.free(FamilyEvent), ".")
	return entity
}

// Verb returns the verb of an event or of a task event, and "" for any other
// family.
func (s Subject) Verb() string {
	if s.family == FamilyTaskEvent {
		return s.free(FamilyTaskEvent)
	}
	_, verb, _ := strings.Cut(s.free(FamilyEvent), ".")
	return verb
}

// Operation returns the operation of an RPC subject, and "" for any other
// family.
func (s Subject) Operation() string { return s.free(FamilyRPC) }

// Original returns the raw original subject of a dead letter, and "" for any
// other family. It is foreign text that may break the naming rules: [Parse] it
// before trusting it.
func (s Subject) Original() string { return s.free(FamilyDeadLetter) }

// LetterID returns the letter id of a dead letter mark, and "" for any other
// family.
func (s Subject) LetterID() string { return s.free(FamilyDeadLetterMark) }

// Durable returns the durable that a replay is addressed to, and "" for any
// other family.
func (s Subject) Durable() string { return s.free(FamilyReplay) }

// free returns what follows the fixed tokens, if s is of family f.
func (s Subject) free(f Family) string {
	if s.family != f {
		return ""
	}
	return s.text[s.tail:]
}

// MarshalText returns the text of the subject. The zero value is an error,
// since nobody could read it back.
func (s Subject) MarshalText() ([]byte, error) {
	if s.IsZero() {
		return nil, newError("subject", "", "is not set: build one with Cmd, Evt, TaskEvt, RPC or Parse")
	}
	return []byte(s.text), nil
}

// UnmarshalText is [Parse] for encoding/json and its relatives. s is unchanged
// when it fails.
func (s *Subject) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}
