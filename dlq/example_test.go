package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

// A consumer takes the queue as the place for messages that it gives up on.
func ExampleOpen() {
	open := func(ctx context.Context, conn *natsconn.Conn) (*dlq.Queue, error) {
		dead, err := dlq.Open(ctx, conn.JetStream(), subject.Plattform, dlq.Config{})
		if errors.Is(err, dlq.ErrNoStream) {
			return nil, fmt.Errorf("run topology.Ensure before: %w", err)
		}
		return dead, err
	}
	_ = open
}

// Everything that failed in one workflow and still needs attention.
func ExampleQueue_List() {
	list := func(ctx context.Context, dead *dlq.Queue, correlationID string) error {
		for letter, err := range dead.List(ctx, dlq.Filter{CorrelationID: correlationID}) {
			if malformed, ok := errors.AsType[*dlq.MalformedError](err); ok {
				fmt.Println("not a letter:", malformed.Sequence)
				continue
			}
			if err != nil {
				return err
			}
			fmt.Println(letter.ID, letter.State, letter.Durable, letter.Class, letter.Error)
		}
		return nil
	}
	_ = list
}

// One letter, after its cause is gone.
func ExampleQueue_Replay() {
	replay := func(ctx context.Context, dead *dlq.Queue, letterID string) error {
		done, err := dead.Replay(ctx, letterID, dlq.Request{
			By: "operator:ola", Reason: "hostname fixed, DV-412",
		})
		if conflict, ok := errors.AsType[*dlq.ConflictError](err); ok {
			fmt.Println("already", conflict.State, "by", conflict.By)
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Println("replay", done.Round, "of", done.LetterID, "is on its way to", done.Durable)
		return nil
	}
	_ = replay
}

// What failed most since midnight is replayed as a whole, and waited for.
func ExampleQueue_ReplayAll() {
	replay := func(ctx context.Context, dead *dlq.Queue, midnight time.Time) error {
		groups, err := dead.Groups(ctx, dlq.Filter{Since: midnight})
		if err != nil || len(groups) == 0 {
			return err
		}
		report, err := dead.ReplayAll(ctx, dlq.Filter{Fingerprint: groups[0].Fingerprint, State: dlq.StateOpen}, dlq.Request{
			By: "operator:ola", Reason: "hostname fixed, DV-412", Rate: 20,
		})
		for _, o := range report.Outcomes {
			if o.Err != nil {
				fmt.Println(o.LetterID, o.State, o.Err)
			}
		}
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		became, err := dead.Follow(ctx, report.Replayed(), nil)
		fmt.Println(len(became.Resolved), "handled,", len(became.FailedAgain), "failed again")
		return err
	}
	_ = replay
}

// The payload is repaired by the types that made it. What the type does not know
// stays as it is.
func ExampleTransform() {
	type ServerProvisionedV1 struct {
		Hostname string `json:"hostname"`
	}
	serverProvisioned := envelope.MustEvent[ServerProvisionedV1](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
	})
	repair := func(ctx context.Context, dead *dlq.Queue, letterID string) error {
		rehearsed, err := dead.Replay(ctx, letterID, dlq.Request{
			By: "operator:ola", Reason: "hostname lower case, DV-412", DryRun: true,
			Edit: dlq.Transform(serverProvisioned, func(old ServerProvisionedV1) (ServerProvisionedV1, error) {
				old.Hostname = strings.ToLower(old.Hostname)
				return old, nil
			}),
		})
		if err != nil || rehearsed.Edit == nil {
			return err // nil: nothing to repair
		}
		for _, c := range rehearsed.Edit.Changes {
			fmt.Println(c.Path, string(c.Old), "->", string(c.New))
		}
		return nil
	}
	_ = repair
}

// A service keeps its own house in order.
func ExampleQueue_Purge() {
	daily := func(ctx context.Context, dead *dlq.Queue) error {
		for {
			if _, err := dead.Purge(ctx, dlq.PurgeRequest{}); err != nil {
				return err
			}
			select {
			case <-time.After(24 * time.Hour):
			case <-ctx.Done():
				return nil
			}
		}
	}
	_ = daily
}

// The zero filter is what an operator has to look at; StateAny shows the rest.
func ExampleState_Closed() {
	for _, s := range []dlq.State{dlq.StateOpen, dlq.StateReplayed, dlq.StateResolved, dlq.StateDiscarded} {
		fmt.Println(s, s.Closed())
	}
	// Output:
	// open false
	// replayed false
	// resolved true
	// discarded true
}
