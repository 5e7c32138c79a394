// Package pgserver runs a throw-away PostgreSQL server from the server binaries
// that are installed on the machine: for tests, examples and trying things out,
// never for data that anybody wants to keep.
//
// # Usage
//
//	server, err := pgserver.Start(ctx, pgserver.Options{})
//	if err != nil {
//		return err // says which command installs PostgreSQL when it is missing
//	}
//	defer server.Stop()
//	pool, err := pgxpool.New(ctx, server.URL("postgres"))
//
// # Guarantees
//
// The server listens on a unix socket in a directory of its own and on no port,
// so that any number of servers run beside each other and beside the machine's
// own. The directory is closed to other users, because the superuser logs in
// without a password.
//
// Server and directory vanish with the process that started them, however it
// ends, SIGKILL included: a small shell process (the janitor) holds the reading
// end of a pipe whose only writing end is ours. When that end closes, the
// janitor shuts PostgreSQL down and removes the directory. Nothing needs to be
// stopped at the end of a test binary, and no descriptor of ours is inherited,
// so that "go test" never waits for a left-over child.
//
// PostgreSQL refuses to run as root. As root, the server runs as user postgres
// or, where that user does not exist, as uid 65534 (nobody).
//
// By default nothing is forced to disk: a killed server ([Server.Kill9]) loses
// no commit, a machine without power may. [Options].Durable turns on what a
// production server does.
//
// # Concurrency
//
// All functions and methods are safe for concurrent use, also by several
// processes. A running server costs its process no goroutine, so that leak
// checks see none.
//
// # Errors
//
// [ErrNotInstalled] when no server binaries are found; the text ends with the
// one command that installs them. A server that does not come up is reported
// with the end of its log.
//
// # Configuration
//
// The environment variable DVMSG_POSTGRES_BIN names the directory with initdb
// and postgres and ends every search. DVMSG_POSTGRES_SEARCH replaces the list
// of usual places (places.txt) and PATH by its own patterns, separated by
// colons; a directory that does not exist makes a test see a machine without
// PostgreSQL.
package pgserver
