package sites

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/internal/strictjson"
	"codeberg.org/dataverket/messaging/topology"
)

// protocolVersion is that of questions and answers. A field more, or another
// meaning of one, is a new version.
const protocolVersion = 1

// Bounds of the wire, in bytes. The broker's default limit is 1 MiB.
const (
	maxQuestion = 128 << 10
	maxAnswer   = 256 << 10
	maxReason   = 200
)

// verbs of questions, as they stand in subjects. No verb is called reply.
const verbPosition = "position"

// replyToken stands in the place of the verb where answers arrive.
const replyToken = "reply"

// question begins every question.
type question struct {
	V  int    `json:"v"`  // the version
	To string `json:"to"` // where the flow ends: the site that asks
}

// answer begins every answer.
type answer struct {
	V     int      `json:"v"`
	Site  string   `json:"site"`            // who answers
	Error *refusal `json:"error,omitempty"` // nothing else stands beside it
}

// refusal is an answer that is none, in words for people.
type refusal struct {
	Code   Refusal `json:"code"`
	Reason string  `json:"reason"`
}

// Error is for the log of the site that refuses.
func (r *refusal) Error() string { return string(r.Code) + ": " + r.Reason }

// refuse makes a refusal. The text is shown at the other site: it names no host
// and no payload.
func refuse(why Refusal, format string, args ...any) *refusal {
	return &refusal{Code: why, Reason: clip(fmt.Sprintf(format, args...))}
}

// positionQuestion asks how far the origin is.
type positionQuestion struct {
	question
	At uint64 `json:"at"` // the newest sequence that the destination holds; 0: none is known
}

// positionAnswer is the state of the stream that the flow begins in.
type positionAnswer struct {
	answer
	First    uint64    `json:"first"`     // the oldest sequence that it holds
	Last     uint64    `json:"last"`      // the newest that it ever gave out
	LastTime time.Time `json:"last_time"` // of the newest message; zero without one
	OfFlow   uint64    `json:"of_flow"`   // the newest message of this flow that is there; 0: none
	Behind   uint64    `json:"behind"`    // messages after At, at most: others of the stream count
}

// questionSubject is where a site is asked.
func questionSubject(site, verb, stream string) string {
	return topology.SiteQuestions(site) + "." + verb + "." + stream
}

// verbOf returns the verb of a subject that questionSubject made.
func verbOf(on string) string {
	tokens := strings.Split(on, ".")
	if len(tokens) != 4 {
		return ""
	}
	return tokens[2]
}

// replySite returns the site that waits on a reply subject, "" if that is none.
// Answers go nowhere else: a server lets us answer wherever a question says.
func replySite(reply string) string {
	tokens := strings.Split(reply, ".")
	if len(tokens) < 4 || tokens[2] != replyToken || topology.SiteQuestions(tokens[1]) != tokens[0]+"."+tokens[1] {
		return ""
	}
	return tokens[1]
}

// memberName is what members are called. Go's decoder also takes names that differ
// in case, and this leaves nothing to differ.
var memberName = regexp.MustCompile(`^[a-z][a-z_]*$`)

// scan applies the rules of form that hold in every version.
func scan(data []byte, most int) error {
	if len(data) > most {
		return fmt.Errorf("has %d bytes, at most %d", len(data), most)
	}
	o := strictjson.NewObject(data, strictjson.NewNames())
	for o.Next() {
		if !memberName.Match(o.Name()) {
			return errors.New("a member's name is not of a to z and _")
		}
	}
	return o.Err()
}

// decode reads data, which scan accepted, into a struct that has all its members.
func decode(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("member %.40q has another type", wrong.Field)
	}
	if err != nil {
		return errors.New("has a member that this version has not, or a value that does not fit")
	}
	return nil
}

// readQuestion reads what every version begins with, and demands this one.
func readQuestion(data []byte) (question, *refusal) {
	if err := scan(data, maxQuestion); err != nil {
		return question{}, refuse(RefusedMalformed, "the question %v", err)
	}
	var q question
	if err := json.Unmarshal(data, &q); err != nil {
		return question{}, refuse(RefusedMalformed, "v or to has another type")
	}
	if q.V != protocolVersion {
		return question{}, refuse(RefusedVersion, "version %d is not known here", q.V)
	}
	return q, nil
}

// readAnswer reads the answer of a site to one that asks, into a struct that embeds
// answer.
func readAnswer(asked, asker, stream string, data []byte, into any) error {
	malformed := func(reason string) error { return &MalformedError{Site: asked, Stream: stream, Reason: reason} }
	if err := scan(data, maxAnswer); err != nil {
		return malformed(err.Error())
	}
	var a answer
	if err := json.Unmarshal(data, &a); err != nil {
		return malformed("v, site or error has another type")
	}
	switch {
	case a.V > protocolVersion:
		return &VersionError{Site: asker, Asked: a.V, Known: protocolVersion}
	case a.V < 1:
		return malformed("has no version")
	case a.V < protocolVersion:
		return &VersionError{Site: asked, Asked: protocolVersion, Known: a.V}
	case a.Site != asked:
		return malformed("another site answered")
	case a.Error != nil:
		return &RefusedError{Site: asked, Stream: stream, Why: Refusal(clip(string(a.Error.Code))), Reason: clip(a.Error.Reason)}
	}
	if err := decode(data, into); err != nil {
		return malformed(err.Error())
	}
	return nil
}

// clip makes a text of the other site, or for it, one line of bounded length.
func clip(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason-len("…")], "") + "…"
}
