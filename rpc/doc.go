// Package rpc is narrow, typed request and reply on dv.rpc.<service>.<operation>
// (requirement K3): for a question that another service answers at once. It is
// neither for work that takes long, which is a command with a task, nor for what
// must not be lost, which is an event or a command: a call is stored nowhere.
//
// # Usage
//
// Declare every operation once, in a package that server and callers share:
//
//	var GetServer = rpc.MustOperation[GetServerRequest, GetServerReply](rpc.Spec{
//		Service: subject.Maskin, Name: "get_server", Version: 1,
//	})
//
// Serve it; replicas of a service share the calls:
//
//	srv, err := rpc.NewServer(conn.NATS(), rpc.ServerConfig{Service: subject.Maskin},
//		rpc.On(GetServer, func(ctx context.Context, r GetServerRequest) (GetServerReply, error) {
//			s, ok := find(ctx, r.ID)
//			if !ok {
//				return GetServerReply{}, rpc.Errorf(rpc.CodeNotFound, "server %s does not exist", r.ID)
//			}
//			return GetServerReply{Hostname: s.Hostname}, nil
//		}))
//	err = srv.Run(ctx) // until ctx ends
//
// Call it, with a deadline, under the origin that ctx carries:
//
//	client, err := rpc.NewClient(conn.NATS(), rpc.ClientConfig{Service: subject.Plattform})
//	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
//	defer cancel()
//	reply, err := GetServer.Call(ctx, client, GetServerRequest{ID: id})
//
// # Guarantees
//
//   - A call ends at its deadline, and so does the ctx of its handler, within the
//     time that the request travels. No call lasts longer than a ceiling (10 s by
//     default), which both sides enforce. The caller sends how long it waits, not
//     until when: clocks may differ.
//   - The handler's ctx carries correlation, causation, actor, tenant and trace of
//     the caller, so that what it enqueues and calls is correlated.
//   - A request is handled at most once. Handlers run concurrently, so many at a
//     time and no more; what comes beyond them is refused at once.
//   - Every answer is a reply of the asked version or an [Error] of a closed set of
//     codes. What is neither (a stream that captured the subject, a foreign
//     responder) does not pass for a reply.
//   - A caller can tell what a server said from what its own process found
//     (Error.Local), and what was surely not handled (Error.Retryable).
//   - Run, when its ctx ends, answers what has come and takes nothing new, within a
//     bounded time.
//   - "nats micro ls", "info", "ping" and "stats" show the server.
//
// # Concurrency
//
// Operations and routes are values. A Client and a Server may be used by any number
// of goroutines; handlers are called from many at once. Overload is shed where it
// arises: a slow operation takes places from the others of its Server, so one that
// is known to be slow gets a Server of its own.
//
// # Errors
//
// Call returns an [*Error], always. Handlers return one made with [Errorf]; anything
// else reaches the caller as CodeInternal without its text, which is in the server's
// log with the correlation id. Panics, too.
//
// # Configuration
//
// A caller's NATS user publishes to dv.rpc.> and subscribes to its inbox. A server's
// subscribes to dv.rpc.<service>.> and $SRV.>, and may publish replies
// (allow_responses). No stream may capture dv.rpc.>: it would answer each request
// with an acknowledgement before the server does.
//
// # Security
//
// Origin headers are claims of the caller, as sure as the broker's permissions on
// who may publish here. They are read strictly: one that comes twice or in another
// case, or breaks its rule, makes the request invalid. Bodies are read strictly,
// too, as package envelope explains. No error text holds a body. A request that asks
// for its answer on a platform subject (dv.) or the broker's own ($) is ignored: the
// server may publish where the caller may not.
package rpc
