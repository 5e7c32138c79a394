package topology

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
)

// floors are the oldest servers without known security faults that matter here
// (authentication and permission bypasses, among others). 2.13 was never
// released.
func floors() []version { return []version{{2, 12, 12, false}, {2, 14, 3, false}} }

// version is that of a server.
type version struct {
	major, minor, patch int
	pre                 bool // a pre-release of it, which comes before it
}

var versionText = regexp.MustCompile(`^v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// parseVersion reads what a server says of itself: "2.15.2", "2.14.0-RC.1".
func parseVersion(text string) (version, bool) {
	match := versionText.FindStringSubmatch(text)
	if match == nil {
		return version{}, false
	}
	n := func(i int) int {
		v, _ := strconv.Atoi(match[i]) // the pattern admits numbers only
		return v
	}
	return version{n(1), n(2), n(3), match[4] != ""}, true
}

func (v version) less(w version) bool {
	switch {
	case v.major != w.major:
		return v.major < w.major
	case v.minor != w.minor:
		return v.minor < w.minor
	case v.patch != w.patch:
		return v.patch < w.patch
	}
	return v.pre && !w.pre
}

// supported: at least the newest floor, or at least the floor of its own line.
func (v version) supported() bool {
	for _, floor := range floors() {
		sameLine := v.major == floor.major && v.minor == floor.minor
		newest := floor == floors()[len(floors())-1]
		if (sameLine || newest) && !v.less(floor) {
			return true
		}
	}
	return false
}

const supportedText = ">= 2.12.12 of 2.12, or >= 2.14.3"

// neededPayload is the largest message that the set lets through.
func (set Set) neededPayload() int64 {
	needed := int64(0)
	for _, s := range set.Streams {
		needed = max(needed, int64(s.MaxMsgSize))
	}
	return needed
}

// checkServer looks at what is not a stream or a consumer: that JetStream
// answers at all, how old the server is, and what it lets through. It sees the
// server that we are connected to; the others of a cluster are the operator's.
func (a api) checkServer(ctx context.Context, set Set) error {
	err := a.call(ctx, "ask for the account", "INFO", func(ctx context.Context) error {
		_, err := a.js.AccountInfo(ctx)
		return err
	})
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return errors.Join(&MissingError{Object: "JetStream", Remedy: "enable it in the server's configuration and for this account"}, err)
	}
	if err != nil {
		return err
	}
	conn := a.js.Conn()
	var errs []error
	if text := conn.ConnectedServerVersion(); !supportedVersion(text) {
		errs = append(errs, &DriftError{Object: serverObject, Field: "version", Want: supportedText, Got: strconv.Quote(text)})
	}
	if got, need := conn.MaxPayload(), set.neededPayload(); got < need {
		errs = append(errs, &DriftError{Object: serverObject, Field: "max_payload", Want: fmt.Sprintf("%d or more", need), Got: fmt.Sprint(got)})
	}
	return errors.Join(errs...)
}

func supportedVersion(text string) bool {
	v, ok := parseVersion(text)
	return ok && v.supported()
}
