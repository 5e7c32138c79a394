// Package dvtest gives the tests of a service real parts: a NATS server with
// JetStream, a cluster of three, and PostgreSQL databases with the library's
// tables. They start in milliseconds, belong to one test and end with it.
//
// # Usage
//
//	func TestProvisioning(t *testing.T) {
//		t.Parallel()
//		conn := dvtest.NATS(t)     // a broker of its own
//		pool := dvtest.Postgres(t) // a database of its own, migrated
//		…
//	}
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
// # Concurrency
//
// All functions may be called from parallel tests, also for the same test. The
// results may be used by any number of goroutines.
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
