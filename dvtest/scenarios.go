package dvtest

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// twice delivers each message again as soon as it was handled.
func (t *trial) twice() {
	for _, m := range t.messages {
		t.settle(m)
		t.settle(m)
	}
}

// atOnce gives each message to two processes at the same time, and again to one
// of them if both want a retry.
func (t *trial) atOnce() {
	own, other := t.routes, t.c.Routes(t.TB, t.pool)
	for _, m := range t.messages {
		verdicts := make(chan error, 2)
		for _, routes := range [][]envelope.Route{own, other} {
			t.routes = routes
			route, d := t.delivery(m, "")
			go attempt(t.Context(), route, d, verdicts)
		}
		<-verdicts
		<-verdicts
		t.settle(m)
	}
}

// outOfOrder delivers the last message first; in ordered mode the last key.
func (t *trial) outOfOrder() {
	order := slices.Clone(t.messages)
	slices.Reverse(order)
	if t.c.KeyOrder {
		order = t.lastKeyFirst()
	}
	t.settle(order...)
}

func (t *trial) lastKeyFirst() (order []envelope.Message) {
	seen := map[string]bool{}
	for _, last := range slices.Backward(t.messages) {
		if seen[last.OrderingKey] {
			continue
		}
		seen[last.OrderingKey] = true
		for _, m := range t.messages {
			if m.OrderingKey == last.OrderingKey {
				order = append(order, m)
			}
		}
	}
	return order
}

// crashAfterCommit has another process deliver each message again: the first one
// died before it acknowledged.
func (t *trial) crashAfterCommit() {
	for _, m := range t.messages {
		t.settle(m)
		t.restart()
		t.settle(m)
	}
}

// late delivers everything a second time, after all is done, as a republished
// backlog or a copy from another site does.
func (t *trial) late() {
	t.settle(t.messages...)
	t.restart()
	t.settle(t.messages...)
}

// replayed gives each message up, and has it replayed.
func (t *trial) replayed() {
	for _, m := range t.messages {
		letter := letterID(m)
		route, d := t.delivery(m, "")
		if route.MarkDead != nil {
			if err := route.MarkDead(t.Context(), d, letter); err != nil {
				t.Fatalf("dvtest: mark %s dead: %v", name(m), err)
			}
			t.settle(m) // a late repeat, which must do nothing
		}
		for range 2 {
			route, d := t.delivery(m, letter)
			if err := route.Handle(d.Context(t.Context()), d); !done(err) {
				t.Fatalf("dvtest: the replay of %s fails: %v", name(m), err)
			}
		}
	}
}

// letterID is an id of the form that dead letters have.
func letterID(m envelope.Message) string {
	sum := sha256.Sum256([]byte(m.Envelope.ID))
	return "l" + hex.EncodeToString(sum[:20])
}

// crashBeforeCommit kills the connection in the commit of each message's
// transaction, when the handler has done all its work, and delivers it again.
func (t *trial) crashBeforeCommit() {
	t.arm()
	for _, m := range t.messages {
		err := t.withTrap(m)
		if route := t.route(m); route.MarkDead != nil && done(err) {
			t.Fatalf("dvtest: %s was handled although its transaction died in the commit: the effect is not in the inbox's transaction", name(m))
		}
		t.settle(m)
	}
}

// trap is the advisory lock that is held while commits are to die.
const trap = 7205759403

// arm lets commits that write to the inbox die while somebody holds the trap.
func (t *trial) arm() {
	t.Helper()
	for _, sql := range []string{
		`create function dvtest_trap() returns trigger language plpgsql as $$ begin
			if not pg_try_advisory_xact_lock_shared(7205759403) then perform pg_terminate_backend(pg_backend_pid()); end if;
			return null;
		end $$`,
		`create constraint trigger dvtest_trap after insert or update on messaging.inbox_messages
			deferrable initially deferred for each row execute function dvtest_trap()`,
	} {
		if _, err := t.pool.Exec(t.Context(), sql); err != nil {
			t.Fatalf("dvtest: prepare the crash: %v", err)
		}
	}
}

// withTrap delivers a message while the trap is held.
func (t *trial) withTrap(m envelope.Message) (verdict error) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), t.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "select pg_advisory_xact_lock($1)", trap); err != nil {
			return err
		}
		verdict = t.deliver(m)
		return nil
	})
	if err != nil {
		t.Fatalf("dvtest: hold the trap: %v", err)
	}
	return verdict
}
