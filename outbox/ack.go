package outbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// Why a publish is not (yet) stored, by what the relay does about it. Nothing
// is ever given up, and no message has a budget of attempts: an outage is lag.
//
//   - errUnknown: no answer, or one that leaves it open. The message is sent
//     again with the same id; if it had been stored, the stream says
//     "duplicate" inside its window, and the inbox absorbs it after.
//   - errRefused: the broker cannot take it now (full stream, no quorum, no
//     resources, no stream). Nothing was stored; try later.
//   - errMisconfigured: the answer came from a stream or domain that is not
//     the declared one, or the stream refuses what we declared: the stream is
//     wrong, not the message. Only an operator can heal it, so the wait is long
//     and the log says so.
//   - errImpossible: this message can never be stored as it is (too large, no
//     valid subject, a header that demands another last message of the stream).
//     Its key is parked, and an operator decides.
var (
	errUnknown       = errors.New("outcome unknown")
	errRefused       = errors.New("refused for now")
	errMisconfigured = errors.New("misconfigured")
	errImpossible    = errors.New("can never be stored")
)

// pubAck is JetStream's answer to a publish.
type pubAck struct {
	Stream    string `json:"stream"`
	Domain    string `json:"domain"`
	Sequence  uint64 `json:"seq"`
	Duplicate bool   `json:"duplicate"`
	Error     *struct {
		Code        int    `json:"code"`
		ErrCode     int    `json:"err_code"`
		Description string `json:"description"`
	} `json:"error"`
}

// ackReader reads the acknowledgements of one stream. They count only from the
// declared stream and domain: with leafnodes, a copy at another site can answer
// too.
type ackReader struct {
	stream string
	domain string // "": any
	usual  []byte // how the server begins to say that it stored a message; nil until it did
}

// ack returns the acknowledgement of a stored message, or why it is not stored.
//
// The server writes a plain acknowledgement in one fixed form, which is read
// without a JSON decoder: that was a sixth of the relay's work. Every other
// answer, and another form of this one, goes through it.
func (r *ackReader) ack(m *nats.Msg) (pubAck, error) {
	if rest, ok := bytes.CutPrefix(m.Data, r.usual); ok && r.usual != nil {
		if digits, ok := bytes.CutSuffix(rest, []byte("}")); ok {
			if n, ok := sequence(digits); ok {
				return pubAck{Stream: r.stream, Sequence: n}, nil
			}
		}
	}
	a, err := r.decode(m)
	if err == nil && r.usual == nil {
		r.usual = usualAck(a.Stream, a.Domain)
	}
	return a, err
}

func usualAck(stream, domain string) []byte {
	if domain == "" {
		return fmt.Appendf(nil, `{"stream":%q,"seq":`, stream)
	}
	return fmt.Appendf(nil, `{"stream":%q,"domain":%q,"seq":`, stream, domain)
}

// sequence reads a stream sequence: decimal digits, not zero.
func sequence(digits []byte) (n uint64, ok bool) {
	if len(digits) == 0 || len(digits) > 18 || digits[0] == '0' {
		return 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return n, true
}

func (r *ackReader) decode(m *nats.Msg) (pubAck, error) {
	if len(m.Data) == 0 {
		if m.Header.Get("Status") == "503" {
			return pubAck{}, fmt.Errorf("%w: no stream listens on this subject", errRefused)
		}
		return pubAck{}, fmt.Errorf("%w: empty acknowledgement", errMisconfigured)
	}
	var a pubAck
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return pubAck{}, fmt.Errorf("%w: the answer is not an acknowledgement of a stream", errMisconfigured)
	}
	switch {
	case a.Error != nil:
		return pubAck{}, fmt.Errorf("%w: %s (%d)", classify(a.Error.Code, a.Error.ErrCode), a.Error.Description, a.Error.ErrCode)
	case a.Stream != r.stream:
		return pubAck{}, fmt.Errorf("%w: stream %q acknowledged, declared is %q", errMisconfigured, a.Stream, r.stream)
	case r.domain != "" && a.Domain != r.domain:
		return pubAck{}, fmt.Errorf("%w: domain %q acknowledged, configured is %q", errMisconfigured, a.Domain, r.domain)
	case a.Sequence == 0:
		return pubAck{}, fmt.Errorf("%w: acknowledgement without a sequence", errMisconfigured)
	}
	return a, nil
}

// classifySend sorts the client's own refusals.
func classifySend(err error) error {
	if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) || errors.Is(err, errHeaderColumn) {
		return fmt.Errorf("%w: %w", errImpossible, err)
	}
	return fmt.Errorf("%w: %w", errRefused, err)
}

// classify sorts JetStream's error codes; see the server's errors.json. What
// is not listed is refused for now: waiting never loses anything.
func classify(code, errCode int) error {
	switch errCode {
	case 10054, 10097: // message too large; headers too large
		return errImpossible
	case 10070, 10071, 10164, 10193: // it demands another last message of the stream, and always will
		return errImpossible
	case 10060, 10165, 10166, 10188, 10189, 10190, 10191, 10192: // another stream; TTL or schedule settings
		return errMisconfigured
	case 10158, 10008: // the same id is being stored; temporarily unavailable
		return errUnknown
	case 10077, 10023, 10028, 10047, 10167, 10039, 10059, 10076: // full, no resources, no stream, no JetStream
		return errRefused
	}
	if code == 400 {
		return errMisconfigured
	}
	return errRefused
}
