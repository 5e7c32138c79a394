package topology

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"codeberg.org/dataverket/messaging/subject"
)

// The JSON form of a Set is the contract file that operators and other
// languages read. It also states what is not a field in Go, because it is the
// same for all: a reader need not know this package to create the stream.

type setJSON struct {
	Service   subject.Service `json:"service"`
	Streams   []streamJSON    `json:"streams"`
	Consumers []consumerJSON  `json:"consumers"`
	Site      string          `json:"site,omitempty"`
	Network   *networkJSON    `json:"network,omitempty"`
}

type streamJSON struct {
	Name       string           `json:"name"`
	Service    subject.Service  `json:"service"`
	Class      Class            `json:"class"`
	Subjects   []subject.Filter `json:"subjects"`
	Retention  string           `json:"retention"`
	Discard    string           `json:"discard"`
	Storage    string           `json:"storage"`
	MaxAge     durationJSON     `json:"max_age"`
	MaxBytes   int64            `json:"max_bytes"`
	MaxMsgs    int64            `json:"max_msgs"`
	MaxMsgSize int32            `json:"max_msg_size"`
	Replicas   int              `json:"replicas"`
	Duplicates durationJSON     `json:"duplicates"`
	DenyDelete bool             `json:"deny_delete"`
	Rate       float64          `json:"rate"`
	Site       string           `json:"site,omitempty"`
	Owner      string           `json:"owner,omitempty"`
	Sources    []sourceJSON     `json:"sources,omitempty"`
}

type consumerJSON struct {
	Durable       string         `json:"durable"`
	Stream        string         `json:"stream"`
	Filter        subject.Filter `json:"filter"`
	AckPolicy     string         `json:"ack_policy"`
	AckWait       durationJSON   `json:"ack_wait"`
	MaxAckPending int            `json:"max_ack_pending"`
	MaxDeliver    int            `json:"max_deliver"`
	Start         startJSON      `json:"start"`
}

type startJSON struct {
	Policy   startPolicy `json:"policy"`
	Time     *time.Time  `json:"time,omitempty"`
	Sequence uint64      `json:"sequence,omitempty"`
}

// durationJSON is a duration as Go writes it: "168h0m0s".
type durationJSON time.Duration

func (d durationJSON) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).String()), nil
}

func (d *durationJSON) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = durationJSON(parsed)
	return err
}

// What every stream and consumer of the contract file says.
const (
	jsonRetention  = "limits"
	jsonDiscard    = "new"
	jsonStorage    = "file"
	jsonAckPolicy  = "explicit"
	jsonMaxDeliver = unlimited
)

// MarshalJSON returns the contract file's content. Defaults of consumers are
// written out. It does not validate; ParseSet does. json.Marshal writes > as
// \u003e, which means the same; for people use an Encoder with
// SetEscapeHTML(false).
func (set Set) MarshalJSON() ([]byte, error) {
	out := setJSON{Service: set.Service, Streams: []streamJSON{}, Consumers: []consumerJSON{}}
	for _, s := range set.Streams {
		out.Streams = append(out.Streams, s.toJSON())
	}
	for _, c := range set.Consumers {
		out.Consumers = append(out.Consumers, c.withDefaults().toJSON())
	}
	out.Site, out.Network = set.Site, set.Network.toJSON()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // or the caller's choice would come too late
	err := enc.Encode(out)
	return b.Bytes(), err
}

// UnmarshalJSON is ParseSet.
func (set *Set) UnmarshalJSON(data []byte) error {
	parsed, err := ParseSet(data)
	if err != nil {
		return err
	}
	*set = parsed
	return nil
}

// maxSetSize bounds a contract file; a large service needs some kilobytes.
const maxSetSize = 1 << 20

// ParseSet reads a contract file strictly, as MarshalJSON writes it: every name
// known, spelled exactly and given once, nothing after the object, and all of
// it valid by Set.Validate. A setting that is left out is zero and thereby
// mostly invalid, except the defaults of consumers.
func ParseSet(data []byte) (Set, error) {
	if len(data) > maxSetSize {
		return Set{}, fmt.Errorf("topology: parse set: %d bytes, at most %d are allowed", len(data), maxSetSize)
	}
	if err := checkNames(data); err != nil {
		return Set{}, fmt.Errorf("topology: parse set: %w", err)
	}
	var in setJSON
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return Set{}, fmt.Errorf("topology: parse set: %w", err)
	}
	set, err := in.toSet()
	if err := errors.Join(err, set.Validate()); err != nil {
		return Set{}, err
	}
	return set, nil
}

func (s Stream) toJSON() streamJSON {
	return streamJSON{
		Name: s.Name, Service: s.Service, Class: s.Class, Subjects: s.Subjects,
		Retention: jsonRetention, Discard: jsonDiscard, Storage: jsonStorage,
		MaxAge: durationJSON(s.MaxAge), MaxBytes: s.MaxBytes, MaxMsgs: s.MaxMsgs, MaxMsgSize: s.MaxMsgSize,
		Replicas: s.Replicas, Duplicates: durationJSON(s.Duplicates), DenyDelete: s.DenyDelete, Rate: s.Rate,
		Site: s.Site, Owner: ownerText(s.Owner), Sources: sourcesToJSON(s.Sources),
	}
}

func (c Consumer) toJSON() consumerJSON {
	start := startJSON{Policy: c.Start.policy, Sequence: c.Start.sequence}
	if c.Start.policy == startTime {
		start.Time = &c.Start.time
	}
	return consumerJSON{
		Durable: c.Durable, Stream: c.Stream.Name, Filter: c.Filter,
		AckPolicy: jsonAckPolicy, AckWait: durationJSON(c.AckWait), MaxAckPending: c.MaxAckPending,
		MaxDeliver: jsonMaxDeliver, Start: start,
	}
}

func (in setJSON) toSet() (Set, error) {
	var f faults
	set := Set{Service: in.Service}
	for i, s := range in.Streams {
		stream := s.toStream(&f, fmt.Sprintf("streams[%d]", i))
		set.Streams = append(set.Streams, stream)
	}
	for i, c := range in.Consumers {
		consumer := c.toConsumer(&f, fmt.Sprintf("consumers[%d]", i))
		at := slices.IndexFunc(set.Streams, func(s Stream) bool { return s.Name == c.Stream })
		if at >= 0 {
			consumer.Stream = set.Streams[at]
		}
		set.Consumers = append(set.Consumers, consumer)
	}
	set.Site, set.Network = in.Site, in.Network.toNetwork(&f)
	return set, errors.Join(f...)
}

func (in streamJSON) toStream(f *faults, field string) Stream {
	constant(f, field+".retention", in.Retention, jsonRetention)
	constant(f, field+".discard", in.Discard, jsonDiscard)
	constant(f, field+".storage", in.Storage, jsonStorage)
	return Stream{
		Name: in.Name, Service: in.Service, Class: in.Class, Subjects: in.Subjects,
		MaxAge: time.Duration(in.MaxAge), MaxBytes: in.MaxBytes, MaxMsgs: in.MaxMsgs, MaxMsgSize: in.MaxMsgSize,
		Replicas: in.Replicas, Duplicates: time.Duration(in.Duplicates), DenyDelete: in.DenyDelete, Rate: in.Rate,
		Site: in.Site, Owner: ownerOf(f, field+".owner", in.Owner), Sources: sourcesOf(in.Sources),
	}
}

func (in consumerJSON) toConsumer(f *faults, field string) Consumer {
	constant(f, field+".ack_policy", in.AckPolicy, jsonAckPolicy)
	constant(f, field+".max_deliver", in.MaxDeliver, jsonMaxDeliver)
	return Consumer{
		Durable: in.Durable, Filter: in.Filter, AckWait: time.Duration(in.AckWait),
		MaxAckPending: in.MaxAckPending, Start: in.Start.toStart(f, field+".start"),
	}
}

func (in startJSON) toStart(f *faults, field string) Start {
	if (in.Time != nil) != (in.Policy == startTime) {
		f.add(field+".time", "goes with the policy time and with no other")
	}
	if in.Sequence != 0 && in.Policy != startSequence {
		f.add(field+".sequence", "goes with the policy sequence and with no other")
	}
	switch in.Policy {
	case startFirst:
		return StartFirst()
	case startNew:
		return StartNew()
	case startSequence:
		return StartAtSequence(in.Sequence)
	case startTime:
		if in.Time != nil {
			return StartAtTime(*in.Time)
		}
	default:
		f.add(field+".policy", "%q is not one of first, new, time, sequence", in.Policy)
	}
	return Start{}
}

// constant refuses another value where the contract knows one only.
func constant[T comparable](f *faults, field string, got, want T) {
	if got != want {
		f.add(field, "is %v; the platform knows %v only", got, want)
	}
}
