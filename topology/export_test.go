package topology

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
)

// What the tests outside of the package need to see.

// StreamFieldNames lists the settings of a stream under contract.
func StreamFieldNames() []string { return fieldNames(streamFields(ClassEvents)) }

// ConsumerFieldNames lists the settings of a durable under contract, with those
// that belong to another one.
func ConsumerFieldNames() []string { return fieldNames(consumerFields()) }

func fieldNames[C any](fields []field[C]) []string {
	var names []string
	for _, f := range fields {
		names = append(append(names, f.name), f.also...)
	}
	return names
}

// StreamDrift compares without a server.
func StreamDrift(s Stream, got jetstream.StreamConfig) []error {
	return drift(streamObject(s.Name), streamFields(s.Class), s.Config(), got)
}

// StreamChanges plans without a server.
func StreamChanges(s Stream, got jetstream.StreamConfig) ([]Change, []error) {
	return changes(streamObject(s.Name), streamFields(s.Class), s.Config(), got)
}

// ConsumerDrift compares without a server.
func ConsumerDrift(c Consumer, got jetstream.ConsumerConfig) []error {
	return drift(consumerObject(c.Stream.Name, c.Durable), consumerFields(), c.Config(), got)
}

// ConsumerChanges plans without a server.
func ConsumerChanges(c Consumer, got jetstream.ConsumerConfig) ([]Change, []error) {
	return changes(consumerObject(c.Stream.Name, c.Durable), consumerFields(), c.Config(), got)
}

// Merged is the update that would be sent for the given keys.
func Merged(current map[string]json.RawMessage, config any, keys ...string) (map[string]json.RawMessage, error) {
	return merge(current, config, keys)
}

// SupportedVersion judges a server's version.
var SupportedVersion = supportedVersion

// Code is one row of the classification.
type Code struct {
	Code    jetstream.ErrorCode
	Verdict string
	Remedy  string
}

// Codes returns the table.
func Codes() []Code {
	var rows []Code
	for _, row := range apiCodes() {
		rows = append(rows, Code{row.code, verdictName(row.verdict), row.remedy})
	}
	return rows
}

// Classified returns the verdict about an error.
func Classified(err error) string {
	v, _ := classify(err)
	return verdictName(v)
}

func verdictName(v verdict) string {
	return map[verdict]string{refused: "refused", notYet: "notYet", notThere: "notThere", different: "different"}[v]
}

// EnsureDurable is Ensure without what comes before.
func EnsureDurable(ctx context.Context, js jetstream.JetStream, c Consumer) error {
	return errors.Join(api{js: js}.ensureConsumer(ctx, wantedDurable{c.Stream.Name, c.Config()})...)
}

// APIPrefix is that of the API's subjects.
func APIPrefix(js jetstream.JetStream) string { return api{js: js}.prefix() }

// Patience is the limit of operations whose context has none.
const Patience = patience
