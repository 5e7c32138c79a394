// Package dvtest gives the tests of a service real parts: a NATS server with
// JetStream, a cluster of three, and PostgreSQL databases with the library's
// tables, which start in milliseconds, belong to one test and end with it; and the
// assertions that its tests need: what was enqueued, handled, dead-lettered, and
// what a handler does with a message.
//
// # Usage
//
// The tests of two services: maskin provisions servers and says so in an event,
// plattform registers each as a node. What a producer enqueues is seen in its own
// database, and a handler runs on one message, both without a broker and in
// milliseconds; the last test goes the whole way.
//
//	func TestProvisionAnnouncesTheServer(t *testing.T) {
//		t.Parallel()
//		pool := newPool(t) // dvtest.Postgres(t) and the service's own tables
//
//		require.NoError(t, Provision(request(t), pool, "server-1", "db1.oslo.example"))
//		got := dvtest.RequireEnqueued(t, pool, ServerProvisioned, dvtest.ForResource("server-1"))
//		require.Equal(t, "db1.oslo.example", got.Data.Hostname)
//
//		require.Error(t, Provision(request(t), pool, "server-1", "again")) // the id is taken
//		dvtest.RequireEnqueued(t, pool, ServerProvisioned)                 // still exactly one
//	}
//
//	func TestServerIsRegisteredOnce(t *testing.T) {
//		t.Parallel()
//		pool := newPool(t)
//		route := RegisterNode(t, pool) // inbox.On(in, ServerProvisioned, …)
//
//		m := dvtest.DeliverTwice(t, route, ServerProvisioned.New("server-1", ServerProvisionedV1{Hostname: "db1"}))
//		require.Equal(t, 1, count(t, pool, "node"))
//		dvtest.RequireEnqueued(t, pool, NodeRegistered, dvtest.CausedBy(m.Envelope.ID))
//
//		err := dvtest.Deliver(t, route, ServerProvisioned.New("server-2", ServerProvisionedV1{}))
//		require.True(t, envelope.IsPermanent(err), "no retry gives it a hostname: %v", err)
//	}
//
//	func TestFromTransactionToEffectOrDeadLetter(t *testing.T) {
//		t.Parallel()
//		conn, pool := dvtest.NATS(t), newPool(t)
//		Serve(t, pool, conn.JetStream()) // relay and consumer, until the test ends
//
//		require.NoError(t, Provision(request(t), pool, "server-1", "db1"))
//		sent := dvtest.RequireEnqueued(t, pool, ServerProvisioned)
//		dvtest.RequireHandledOnce(t, pool, "node_registry", subject.Maskin, sent.Envelope.ID)
//
//		require.NoError(t, Provision(request(t), pool, "server-2", ""))
//		letter := dvtest.RequireDeadLettered(t, conn, subject.Plattform, dlq.Filter{Type: ServerProvisioned.Name()})
//		require.Equal(t, "server server-2 has no hostname", letter.Error)
//	}
//
// [RequireEnqueued] and [RequireNotEnqueued] look once, through a pool or through
// the test's own transaction; [RequireHandledOnce] and [RequireDeadLettered] wait
// for what happens in the background, 10 seconds at most unless [Within] says
// otherwise. [RequireHeaders] and [RequireHeadersOf] are for those who publish or
// read headers themselves. [Deliver] returns the handler's verdict, and
// [DeliverTwice] shows that a repeat does no harm.
//
// [Conform] is the suite that every service should run on its handlers: it
// delivers a few messages twice, at once, out of order, late, replayed, and with
// crashes before and after the commit, and compares what they add up to.
//
// # Sites
//
// [Sites] starts two datacenters with a link between them that the test cuts,
// swallows, slows or flaps:
//
//	s := dvtest.Sites(t, topology.Flow{
//		From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoEvents, Service: subject.Maskin,
//	})
//	a, b := s.A().Connect(t), s.B().Connect(t)
//	s.A().Ensure(t, a, maskinSet) // DV_MASKIN_EVT
//	s.B().Ensure(t, b, maskinSet) // and DV_MASKIN_EVT_FROM_DC1
//	s.Cut()
//	// … both sites go on
//	s.Heal()
//	s.AwaitFlows(t)
//
// A server that lost a question with the link waits up to 30 s for the answer, also
// after it was stopped: a test binary with goleak ignores its
// (*stream).trySetupSourceConsumer.func3 and tryDeleteSourcingConsumer.func1.
//
// # Guarantees
//
// What two tests get from here has nothing in common: tests may be parallel,
// and nothing needs to be cleaned up.
//
// Nothing is a mock. All tests of one test binary share one PostgreSQL server,
// which starts with the first call of [Postgres] and vanishes with the process,
// however that ends. Each database is a copy of a migrated template.
//
// A missing dependency fails the test and says which command installs it. The
// only skip is "go test -short": it leaves out what needs PostgreSQL or a
// cluster.
//
// A failed assertion says what is there instead, and how it differs: types,
// resources and ids, never the data of a message.
//
// # Concurrency
//
// All functions may be called by parallel tests, each from the goroutine that
// runs the test, because they may fail or skip it. The results may be used by any
// number of goroutines.
//
// # Configuration
//
// DVMSG_DATABASE_URL names a PostgreSQL server to use instead of one of our own;
// its role must be allowed to create databases. Test databases are called
// dvmsg_test_…, the template dvmsg_template_…; what a killed test left there is
// removed by a later run after a day. DVMSG_POSTGRES_BIN names the directory of
// the server binaries to start our own from.
//
// # Security
//
// Do not point DVMSG_DATABASE_URL at a server that matters: tests load it, and
// the role it needs can do more there than a service should.
package dvtest
