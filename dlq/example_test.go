package dlq_test

import (
	"context"
	"errors"
	"fmt"

	"codeberg.org/dataverket/messaging/dlq"
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
		done, err := dead.Replay(ctx, letterID, dlq.ReplayRequest{
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
