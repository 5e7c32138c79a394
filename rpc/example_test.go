package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/subject"
)

// An operation is declared once, served by its service and called by others. In a
// service nc is natsconn.Conn.NATS, and ctx that of a handler or of the edge.
func Example() {
	server := func(ctx context.Context, nc *nats.Conn) error {
		srv, err := rpc.NewServer(nc, rpc.ServerConfig{Service: subject.Maskin},
			rpc.On(getServer, func(ctx context.Context, r getRequest) (getReply, error) {
				if r.ID == "" {
					return getReply{}, rpc.Errorf(rpc.CodeInvalidArgument, "id is empty")
				}
				return getReply{Hostname: "db1.oslo.example"}, nil
			}))
		if err != nil {
			return err
		}
		return srv.Run(ctx) // until ctx ends
	}
	caller := func(ctx context.Context, nc *nats.Conn) (string, error) {
		client, err := rpc.NewClient(nc, rpc.ClientConfig{Service: subject.Plattform})
		if err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		reply, err := getServer.Call(ctx, client, getRequest{ID: "srv-1"})
		return reply.Hostname, err
	}
	_, _ = server, caller
}

// What a caller does about an error depends on its code, and on who said so.
func ExampleError() {
	err := error(rpc.Errorf(rpc.CodeNotFound, "server srv-9 does not exist"))

	var e *rpc.Error
	switch {
	case errors.As(err, &e) && e.Retryable():
		fmt.Println("nothing was done: try again after", e.RetryAfter)
	case rpc.CodeOf(err) == rpc.CodeNotFound:
		fmt.Println("told by a server:", !e.Local)
	}
	// Output: told by a server: true
}

// A call says how long it waits, and for whom it asks. Both are checked before
// anything is sent.
func ExampleOperation_Call() {
	nc := new(nats.Conn)
	client, err := rpc.NewClient(nc, rpc.ClientConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := envelope.WithOrigin(context.Background(), envelope.NewOrigin("user:ola", "tenant-1"))
	_, err = getServer.Call(ctx, client, getRequest{ID: "srv-1"})
	fmt.Println(errors.Is(err, rpc.ErrNoDeadline))
	fmt.Println(err)
	// Output:
	// true
	// rpc: call maskin.get_server: invalid_argument (local): ctx has no deadline; use context.WithTimeout with at most 10s
}
