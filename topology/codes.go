package topology

import (
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// verdict is what an error of the JetStream API means to this package.
type verdict int

const (
	refused   verdict = iota // asking again changes nothing
	notYet                   // the cluster is not ready: ask again
	notThere                 // the stream or consumer does not exist
	different                // it exists with another configuration
)

// apiCode is one row of the classification by error code. Texts are never
// looked at: they change between versions.
type apiCode struct {
	code    jetstream.ErrorCode
	verdict verdict
	remedy  string // for what a reader cannot guess from the server's text
}

// apiCodes are the codes that need more than being reported.
func apiCodes() []apiCode {
	return []apiCode{
		// In a cluster that has just started, or is electing, these pass by
		// themselves. 10005 "no suitable peers" is also what a cluster that is
		// too small says for ever; the context ends that.
		{10004, notYet, "the cluster does not answer completely; check its nodes"},
		{10005, notYet, "no node can take it; check that the cluster has as many nodes as Replicas, with room for MaxBytes"},
		{10007, notYet, "the node is joining its cluster; check the nodes"},
		{10008, notYet, "JetStream has no leader; check the nodes"},
		{10009, notYet, "JetStream has no leader; check the nodes"},

		{10014, notThere, ""},
		{10059, notThere, ""},
		{10149, notThere, ""},

		{10013, different, ""},
		{10058, different, ""},
		{10105, different, ""},
		{10148, different, ""},

		{10002, refused, "the account's limits are reached; raise them or lower MaxBytes"},
		{10023, refused, "the server has no room; lower MaxBytes or give it more storage"},
		{10026, refused, "the account's limit of consumers is reached; raise it"},
		{10027, refused, "the account's limit of streams is reached; raise it"},
		{10028, refused, "the server has no memory left"},
		{10039, refused, "enable JetStream for the account"},
		{10047, refused, "the server sets MaxBytes aside and has less; lower MaxBytes or give it more storage"},
		{10065, refused, "another stream holds some of the subjects; find it with: nats stream find --subject"},
		{10074, refused, "the server is no cluster; declare Replicas 1 for it"},
		{10076, refused, "enable JetStream in the server's configuration"},
		{10120, refused, "the account has no JetStream limits; set some"},
		{10122, refused, "MaxBytes is above what the account allows for one stream; lower it or raise that"},
	}
}

// classify returns what err means and what to do.
func classify(err error) (verdict, string) {
	if code, ok := errorCode(err); ok {
		for _, row := range apiCodes() {
			if row.code == code {
				return row.verdict, row.remedy
			}
		}
		return refused, ""
	}
	if silence(err) {
		return notYet, silenceRemedy
	}
	return refused, ""
}

func errorCode(err error) (jetstream.ErrorCode, bool) {
	if wrapped, ok := errors.AsType[jetstream.JetStreamError](err); ok && wrapped.APIError() != nil {
		return wrapped.APIError().ErrorCode, true
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.ErrorCode, true
	}
	return 0, false
}

const silenceRemedy = "the server does not answer; check that it runs, that JetStream has a leader, and that this user may use the JetStream API"

// silence reports whether err is the lack of an answer.
func silence(err error) bool {
	for _, sign := range []error{
		errNoAnswer, nats.ErrNoResponders, nats.ErrTimeout, nats.ErrDisconnected, nats.ErrReconnectBufExceeded, nats.ErrConnectionReconnecting,
	} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}
