package topology_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// A service that handles the events of another ensures its own streams and its
// durable when it starts.
func ExampleEnsure() {
	start := func(ctx context.Context, js jetstream.JetStream) error {
		limits := topology.Limits{Replicas: 3}
		events := topology.Events(subject.Maskin, limits) // maskin's; only read
		durable, err := topology.DurableFrom(subject.Plattform, subject.Maskin)
		if err != nil {
			return err
		}
		return topology.Ensure(ctx, js, topology.Set{
			Service: subject.Plattform,
			Streams: []topology.Stream{
				topology.DeadLetters(subject.Plattform, limits),
				topology.DeadLetterOps(subject.Plattform, limits),
				events,
			},
			Consumers: []topology.Consumer{{
				Durable: durable,
				Stream:  events,
				Filter:  subject.EventsOf(subject.Maskin),
				AckWait: 30 * time.Second,
				Start:   topology.StartFirst(), // the whole history that is left
			}},
		})
	}
	_ = start
}

// An operator looks at what would change, and applies it.
func ExampleApply() {
	apply := func(ctx context.Context, js jetstream.JetStream, set topology.Set) error {
		changes, err := topology.Plan(ctx, js, set)
		for _, change := range changes {
			fmt.Println(change)
		}
		if err != nil {
			return err
		}
		_, err = topology.Apply(ctx, js, set, topology.ApplyOptions{})
		return err
	}
	_ = apply
}

// All faults of a declaration are reported at once, without a server.
func ExampleSet_Validate() {
	events := topology.Events(subject.Maskin, topology.Limits{Replicas: 7})
	events.MaxAge = 0
	fmt.Println(topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}}.Validate())
	// Output:
	// topology: Set.Streams[DV_MASKIN_EVT].Replicas: 7 is above 5: 1 is for development, 3 for production; the server takes no more than 5
	// topology: Set.Streams[DV_MASKIN_EVT].MaxAge: 0s is below 2m0s: it must cover the duplicate window, and a stream without age only ends when it is full
}

// The stream of a subject is looked up in the declaration, not on the server.
func ExampleSet_StreamFor() {
	set := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{})}}
	provisioned := subject.Must(subject.Evt(subject.Maskin, "server", "provisioned"))
	stream, err := set.StreamFor(provisioned)
	fmt.Println(stream.Name, err)
	// Output: DV_MASKIN_EVT <nil>
}

// The contract file of a service, for operators and other languages.
func ExampleParseSet() {
	set := topology.Set{
		Service: subject.Maskin,
		Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{Replicas: 3, Rate: 20})},
	}
	var file bytes.Buffer
	enc := json.NewEncoder(&file)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false) // > and not \u003e
	if err := enc.Encode(set); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(file.String())
	parsed, err := topology.ParseSet(file.Bytes())
	fmt.Println(parsed.Streams[0].Name, err)
	// Output:
	// {
	//   "service": "maskin",
	//   "streams": [
	//     {
	//       "name": "DV_MASKIN_EVT",
	//       "service": "maskin",
	//       "class": "evt",
	//       "subjects": [
	//         "dv.maskin.evt.>"
	//       ],
	//       "retention": "limits",
	//       "discard": "new",
	//       "storage": "file",
	//       "max_age": "168h0m0s",
	//       "max_bytes": 10737418240,
	//       "max_msgs": 0,
	//       "max_msg_size": 589824,
	//       "replicas": 3,
	//       "duplicates": "2m0s",
	//       "deny_delete": false,
	//       "rate": 20
	//     }
	//   ],
	//   "consumers": []
	// }
	// DV_MASKIN_EVT <nil>
}

// Names are the same in every replica, and different for different parts.
func ExampleDurableFrom() {
	for _, parts := range [][]string{{}, {"shard0"}, {"server_view", "shard0"}} {
		name, err := topology.DurableFrom(subject.Plattform, subject.Maskin, parts...)
		fmt.Println(name, err)
	}
	name, err := topology.DurableFor(subject.Maskin, "commands")
	fmt.Println(name, err)
	// Output:
	// plattform__from_maskin <nil>
	// plattform__from_maskin__shard0 <nil>
	// plattform__from_maskin__server_view__shard0 <nil>
	// maskin__commands <nil>
}
