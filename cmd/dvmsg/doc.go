// Command dvmsg is what an operator has in hand: it creates the tables, compares
// and applies streams and consumers, says what the outbox waits for, decides about
// parked keys and rewinds, and looks after dead letters: it lists, groups, shows,
// replays, edits, discards and removes them. It also lists what streams hold,
// hands a durable its stream once more, compares the contracts of messages, and
// shows tasks.
//
// # Usage
//
//	dvmsg COMMAND [ARGUMENTS] [FLAGS]
//
//	export DVMSG_NATS_URL=nats://broker:4222
//	dvmsg dlq list --since 2h
//	dvmsg dlq show l3f9a2c17b
//	dvmsg dlq replay l3f9a2c17b --by operator:ola --reason "hostname fixed, DV-412"
//
// Flags may stand before or after the arguments. "dvmsg help" lists everything,
// "dvmsg dlq replay -h" explains one command with an example.
//
// # Guarantees
//
// A command that cannot reach what it needs fails at once and says what to set;
// it never waits longer than --timeout. Every mutation has --dry-run, which makes
// the checks of the real run, ends with the same exit code, and changes nothing.
// With --json the standard output is exactly one JSON document; messages for
// people go to the standard error output.
//
// # Errors
//
// Exit code 0 is success, 1 a failure, 2 wrong usage (nothing was contacted), 3
// a difference that was found by a command which looks for differences.
//
// # Configuration
//
// DVMSG_DATABASE_URL, DVMSG_NATS_URL, DVMSG_NATS_CREDS and DVMSG_OPERATOR stand
// in for --database, --nats, --creds and --by. A flag wins. PostgreSQL's own
// variables (PGPASSWORD, PGSSLROOTCERT …) and password file are honoured.
//
// # Security
//
// Other users of the machine can read a command line: give passwords by the
// environment or a file. No password is ever printed. The data of a dead letter or
// a parked message is printed only on request (--data), and control characters of
// foreign texts never reach the terminal.
package main
