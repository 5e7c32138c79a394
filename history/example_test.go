package history_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/history"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

// Everything that happened to one server since yesterday, whatever it is.
func ExampleRead() {
	print := func(ctx context.Context, conn *natsconn.Conn) error {
		q := history.Query{
			Filter: subject.EventsOf(subject.Maskin), Resource: "server-1",
			Since: time.Now().Add(-24 * time.Hour), Max: 100,
		}
		for m, err := range history.Read(ctx, conn.JetStream(), q) {
			if strange, ok := errors.AsType[*history.MessageError](err); ok {
				fmt.Println("not a message:", strange.Sequence)
				continue
			}
			if more, ok := errors.AsType[*history.LimitError](err); ok {
				fmt.Println("there may be more from", more.Next)
				return nil
			}
			if err != nil {
				return err
			}
			fmt.Println(m.StoredAt, m.Envelope.Type, m.Envelope.ID)
		}
		return nil
	}
	_ = print
}

// A new view of one server catches up before it subscribes.
func ExampleReadAs() {
	type ServerRenamedV1 struct {
		Hostname string `json:"hostname"`
	}
	serverRenamed := envelope.MustEvent[ServerRenamedV1](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "renamed", Version: 1,
	})
	names := func(ctx context.Context, conn *natsconn.Conn) (all []string, err error) {
		for m, err := range history.ReadAs(ctx, conn.JetStream(), serverRenamed, history.Query{Resource: "server-1"}) {
			if err != nil {
				return nil, err
			}
			all = append(all, m.Data.Hostname)
		}
		return all, nil
	}
	_ = names
}

// The database was restored from a backup: the messages since then come again.
func ExampleResetDurable() {
	restored := func(ctx context.Context, conn *natsconn.Conn, backup time.Time) error {
		reset, err := history.ResetDurable(ctx, conn.JetStream(),
			history.Durable{Stream: "DV_MASKIN_EVT", Name: "plattform__from_maskin"},
			history.ResetRequest{Since: backup, By: "operator:ola", Reason: "restored from a backup, DV-412"})
		if err != nil {
			return err
		}
		fmt.Println(reset.Again, "messages come again, from", reset.From, "of", reset.StoredAt)
		return nil
	}
	_ = restored
}
