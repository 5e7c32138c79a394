package consumer_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/topology"
)

// Where a process of these tests kills itself.
const (
	killAfterPark = "after park" // committed, not acknowledged
	killInHandler = "in handler" // of a parked message, after its effect
	killAnywhere  = "anywhere"   // by somebody else
)

// mortalStore dies when it has parked a message.
type mortalStore struct{ *inbox.Inbox }

func (s mortalStore) Park(ctx context.Context, p *envelope.Parked, delay time.Duration) error {
	if err := s.Inbox.Park(ctx, p, delay); err != nil {
		return err
	}
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// parkingChild parks each message at its first start, and dies as it is told.
func parkingChild(kill string) error {
	nc, err := nats.Connect(os.Getenv("CONSUMER_TEST_NATS"))
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(context.Background(), os.Getenv("CONSUMER_TEST_POSTGRES"))
	if err != nil {
		return err
	}
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	if err != nil {
		return err
	}
	cfg := consumer.Config{Consumer: crashDurable(), Store: in, ParkAfter: time.Millisecond, MassFailure: -1}
	if kill == killAfterPark {
		cfg.Store = mortalStore{in}
	}
	c, err := consumer.New(js, &graves{}, cfg, inbox.On(in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
		if _, err := tx.Exec(ctx, `insert into node values ($1)`, m.Data.Hostname); err != nil {
			return err
		}
		switch {
		case m.Attempt == 1:
			return envelope.RetryAfter(5*time.Millisecond, nil)
		case kill == killAnywhere:
			return nil
		}
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}))
	return errors.Join(err, c.Run(context.Background()))
}

// child starts a process that consumes.
func (p *parkSetup) child(t *testing.T, server *dvtest.NATSServer, role string) *exec.Cmd {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), crashEnv+"="+role, "CONSUMER_TEST_NATS="+server.URL(), "CONSUMER_TEST_POSTGRES="+connString(p.pool))
	if role != killAnywhere { // which parks a lot
		child.Stdout, child.Stderr = t.Output(), t.Output()
	}
	require.NoError(t, child.Start())
	return child
}

// kill runs a child until it has killed itself.
func (p *parkSetup) kill(t *testing.T, server *dvtest.NATSServer, role string) {
	t.Helper()
	child := p.child(t, server, role)
	exited := make(chan error, 1)
	go func() { exited <- child.Wait() }()
	select {
	case err := <-exited:
		require.ErrorContains(t, err, "killed")
	case <-time.After(soon):
		_ = child.Process.Kill()
		<-exited
		t.Fatal("the child does not die")
	}
}

func setupParkCrash(t *testing.T) (*parkSetup, *dvtest.NATSServer) {
	t.Helper()
	server, pool := dvtest.Server(t), dvtest.Postgres(t)
	_, err := pool.Exec(t.Context(), `create table node (host text)`)
	require.NoError(t, err)
	b := setupOn(t, server.Connect(t).JetStream(), func(c *topology.Consumer) { *c = crashDurable() })
	return &parkSetup{bundle: b, pool: pool, in: newInbox(t, pool)}, server
}

// The message is in both places. What the server brings again is acknowledged,
// and the handler runs when the parked one is due, which the test decides.
//
// A row of docs/DELIVERY.md.
func TestCrashBetweenParkingAndAckLeavesOneMessage(t *testing.T) {
	t.Parallel()
	p, server := setupParkCrash(t)
	p.publish(t, "a")
	p.kill(t, server, killAfterPark)
	require.Equal(t, 1, p.rows(t, "inbox_parked"))
	p.due(t, "1 hour")

	r := p.run(t, p.config(), p.inTx(func(string, int) error { return nil }))
	p.acknowledged(t)
	require.Equal(t, uint64(1), r.Stats().Duplicates)
	require.Empty(t, p.starts.names(), "a message that is parked was handled")
	r.SetSurvey(10 * time.Millisecond)
	p.due(t, "0")
	p.empty(t)
	require.Equal(t, [2]int{1, 1}, p.effects(t))
	require.Equal(t, []string{"a"}, p.starts.names())
}

// due moves what is parked.
func (p *parkSetup) due(t *testing.T, in string) {
	t.Helper()
	_, err := p.pool.Exec(t.Context(), `update messaging.inbox_parked set due_at = clock_timestamp() + $1::text::interval`, in)
	require.NoError(t, err)
}

// SIGKILL in the handler of a parked message, after its effect and before the
// commit: another process takes over when the claim has run out.
//
// A row of docs/DELIVERY.md.
func TestProcessKilledInTheHandlerOfAParkedMessageLeavesOneEffect(t *testing.T) {
	t.Parallel()
	p, server := setupParkCrash(t)
	p.publish(t, "a")
	p.kill(t, server, killInHandler)
	require.Equal(t, [2]int{0, 0}, p.effects(t))
	require.Equal(t, 1, p.rows(t, "inbox_parked"))
	p.run(t, p.config(), p.inTx(func(string, int) error { return nil }))
	p.empty(t)
	p.acknowledged(t)
	require.Equal(t, [2]int{1, 1}, p.effects(t))
	require.Eventually(t, func() bool { return p.rows(t, "inbox_attempts") == 0 }, soon, tick)
}

// One that kills every process is found out also where it was parked.
func TestParkedMessageThatKillsItsProcessBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	p, server := setupParkCrash(t)
	p.publish(t, "a")
	for range 3 {
		p.kill(t, server, killInHandler)
	}
	p.run(t, p.config(), p.inTx(func(string, int) error { return nil }))
	require.Equal(t, envelope.ClassCrash, p.graves.await(t, 1)[0].Class)
	p.empty(t)
	require.Empty(t, p.starts.names())
	require.Equal(t, [2]int{0, 0}, p.effects(t))
}

// Two replicas park every message once, and one of them is killed again and again,
// wherever it is.
func TestReplicasThatAreKilledWhileTheyParkApplyEachEffectOnce(t *testing.T) {
	t.Parallel()
	const messages = 300
	p, server := setupParkCrash(t)
	p.publish(t, numbered(messages)...)
	children := []*exec.Cmd{p.child(t, server, killAnywhere), p.child(t, server, killAnywhere)}
	defer func() {
		for _, child := range children {
			_ = child.Process.Kill()
			_ = child.Wait()
		}
	}()
	for _, share := range []int{5, 20, 40, 60, 80} { // per cent that have their effect
		require.Eventually(t, func() bool { return p.effects(t)[0] >= share*messages/100 }, 3*soon, tick)
		victim := children[0]
		require.NoError(t, victim.Process.Kill())
		_ = victim.Wait()
		children = []*exec.Cmd{children[1], p.child(t, server, killAnywhere)}
	}
	require.Eventually(t, func() bool { return p.effects(t)[1] == messages }, 3*soon, tick)
	p.empty(t)
	p.acknowledged(t)
	require.Equal(t, [2]int{messages, messages}, p.effects(t))
	require.Equal(t, messages, p.rows(t, "inbox_messages"))
}
