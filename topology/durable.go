package topology

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"codeberg.org/dataverket/messaging/subject"
)

// MaxDurable is the length of the longest durable name in bytes: with the
// suffix of its replay durable it still is one subject token.
const MaxDurable = 52

const (
	// separator stands between the parts of a durable name and in none of
	// them, so that different parts never give the same name.
	separator = "__"
	// replaySuffix makes a durable's replay durable; no part may be that word.
	replaySuffix = separator + replayPart
	replayPart   = "replay"
	// fromPrefix marks a durable that reads another context.
	fromPrefix = "from_"
	// maxPurpose bounds the readable part of an ephemeral name.
	maxPurpose = 24
)

// durablePart is one part of a durable name: no separator in it or at its
// edges. The name as a whole begins with a service and so with a letter.
var durablePart = regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)

// foreignBytes are what a name part may not hold.
var foreignBytes = regexp.MustCompile(`[^a-z0-9]+`)

// DurableFrom returns the name of the durable with which the service consuming
// reads the context of another: "plattform__from_maskin". Further parts, such
// as a view or a shard, are appended: "plattform__from_maskin__shard0". All
// replicas of a service compute the same name, and no other service does
// (requirement T5).
//
// A part that is no durable token ("Server View", "a__b") is sanitised: its
// text made fit, with a short hash of the original, so that different parts
// stay different. An invalid service, an empty part, the reserved part "replay"
// and a name over MaxDurable bytes are errors.
func DurableFrom(consuming, context subject.Service, parts ...string) (string, error) {
	if !context.Valid() {
		return "", fmt.Errorf("topology: name durable of %s: context is not a known service; use a constant of package subject", consuming)
	}
	return durable(consuming, fromPrefix+context.String(), parts)
}

// DurableFor returns the name of a durable of service s by its purpose:
// "maskin__commands". Further parts, rules and errors are those of DurableFrom;
// a purpose may not begin with "from_", which is DurableFrom's.
func DurableFor(s subject.Service, purpose string, parts ...string) (string, error) {
	if strings.HasPrefix(purpose, fromPrefix) {
		return "", fmt.Errorf("topology: name durable of %s: purpose %q begins with from_; use DurableFrom to read another context", s, purpose)
	}
	return durable(s, sanitise(purpose), parts)
}

func durable(s subject.Service, purpose string, parts []string) (string, error) {
	if !s.Valid() {
		return "", fmt.Errorf("topology: name durable: consuming service is not a known service; use a constant of package subject")
	}
	all := []string{s.String(), purpose}
	for _, part := range parts {
		all = append(all, sanitise(part))
	}
	name := strings.Join(all, separator)
	if fault := durableFault(name); fault != "" {
		return "", fmt.Errorf("topology: name durable %q: %s", name, fault)
	}
	return name, nil
}

// sanitise returns part if it can stand in a name as it is, else its fit
// letters with a hash of it. The hash is of 32 bits: two parts of one service
// collide once in four billion.
func sanitise(part string) string {
	if part == "" || durablePart.MatchString(part) {
		return part
	}
	sum := sha256.Sum256([]byte(part))
	fit := strings.Trim(foreignBytes.ReplaceAllString(strings.ToLower(part), "_"), "_")
	return strings.TrimPrefix(fit+"_x"+hex.EncodeToString(sum[:4]), "_")
}

// durableFault returns what is wrong with a durable name, or "".
func durableFault(name string) string {
	if len(name) > MaxDurable {
		return fmt.Sprintf("is %d bytes long, at most %d are allowed; shorten its parts", len(name), MaxDurable)
	}
	parts := strings.Split(name, separator)
	if _, err := subject.ParseService(parts[0]); err != nil || len(parts) < 2 {
		return "is not <service>__<purpose> or <service>__from_<context>; use DurableFor or DurableFrom"
	}
	for i, part := range parts[1:] {
		switch {
		case !durablePart.MatchString(part):
			return fmt.Sprintf("has the part %q; use lower-case letters, digits and single _ between them", part)
		case part == replayPart:
			return "has the part \"replay\", which names replay durables; use another word"
		case i == 0 && strings.HasPrefix(part, fromPrefix):
			if _, err := subject.ParseService(part[len(fromPrefix):]); err != nil {
				return fmt.Sprintf("reads from %q, which is not a known service; use DurableFrom", part[len(fromPrefix):])
			}
		}
	}
	return ""
}

// durableService returns whose durable it is by its prefix, zero if nobody's.
func durableService(name string) subject.Service {
	prefix, _, _ := strings.Cut(name, separator)
	s, err := subject.ParseService(prefix)
	if err != nil {
		return 0
	}
	return s
}

// durableContext returns the service that a durable reads from by its name,
// zero if the name is by purpose.
func durableContext(name string) subject.Service {
	parts := strings.Split(name, separator)
	if len(parts) < 2 || !strings.HasPrefix(parts[1], fromPrefix) {
		return 0
	}
	s, err := subject.ParseService(parts[1][len(fromPrefix):])
	if err != nil {
		return 0
	}
	return s
}

// EphemeralName returns a name for a consumer that lives for one operation:
// the purpose, made fit, and 26 random characters. It never equals a durable's
// name nor, within reason, another ephemeral's; whoever cleans up by this name
// removes nobody else's consumer (requirement T5).
func EphemeralName(purpose string) string {
	fit := strings.Trim(foreignBytes.ReplaceAllString(strings.ToLower(purpose), "_"), "_")
	if len(fit) > maxPurpose {
		fit = strings.TrimRight(fit[:maxPurpose], "_")
	}
	if fit == "" {
		fit = "adhoc"
	}
	// A dash is in no durable name.
	return fit + "-" + strings.ToLower(rand.Text())
}
