// Package health answers readiness and liveness probes over HTTP from what the
// parts of a process say of themselves (requirement M2).
//
// # Usage
//
//	h, err := health.New(health.Config{},
//		health.Ping("broker", conn),     // *natsconn.Conn
//		health.Ping("database", pool),   // *pgxpool.Pool
//		health.Of("relay", relay),       // *outbox.Relay
//		health.Of("servers", consumer),  // *consumer.Consumer
//		health.Info("sites", watcher),   // *sites.Watcher: told of, and no more
//	)
//	mux.Handle("/readyz", h.Ready())
//	mux.Handle("/livez", h.Live())
//
// Ready answers 200 while every part is ready, else 503. Live answers 200 for as
// long as the process can answer at all: what restarts a process must not do so
// because a server that it needs is away. Both have the same body:
//
//	{"ready":false,"parts":[
//	  {"name":"broker","ready":true,"since":"2026-03-01T12:00:00Z","checked":"2026-03-01T12:05:01Z"},
//	  {"name":"database","ready":false,"since":"2026-03-01T12:05:00Z","checked":"2026-03-01T12:05:01Z","reason":"failed to connect …"}]}
//
// Readiness takes a process out of the way of requests. A part belongs here if the
// process cannot do its work without it. Consumers and relays go on by themselves
// when their servers are back; for them the probe is a report.
//
// What is worth telling and no reason to take the process out of the way is an [Info]:
//
//	{"name":"sites","ready":true,"since":"…","checked":"…","detail":"flows that move: 1 of 2; events of maskin from osl1: silent for 14s (…)"}
//
// # Guarantees
//
//   - What is lost is reported by every probe that begins Config.Interval later,
//     within Config.Timeout: together at most [MaxDelay], 5 s. That holds for parts
//     that ask, as Ping does. Of tells what the part knows, and a client that
//     waits for an answer of its server may know less: a natsconn.Conn notices a
//     closed connection at once, and one that is only silent after half a minute.
//   - Probes cost the servers nothing more, however many there are: a part is asked
//     once in Config.Interval at most, and never while it has not answered.
//   - Nothing is asked while nobody probes; no goroutine outlives its check.
//   - A check that hangs or panics is a part that is not ready, and nothing else.
//     Ready answers within Config.Timeout, from then on at once, and Live within
//     0.2 s.
//
// # Configuration
//
// Give the readiness probe a timeout above Config.Timeout, such as 3 s: one that
// gives up earlier takes the process out of service without a reason in its log.
//
// A Ping of a pool waits for one of its connections. Where handlers may hold all of
// them for longer than Config.Timeout, ping a pool of one connection that is for
// this alone.
//
// # Concurrency
//
// A Health and its handlers are safe for concurrent use. Checks of different parts
// run at the same time, those of one part never.
//
// # Security
//
// Reasons are the texts of errors, which name hosts and users: serve probes on a
// port that only the platform reaches. User names and passwords in URLs, and what
// follows password=, token= and the like, are replaced by ***; control characters
// are taken out, and a reason ends after 512 bytes.
package health
