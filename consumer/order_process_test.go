package consumer_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

const orderedEnv = "CONSUMER_TEST_ORDERED"

// orderedChild is a replica of a service with an ordered consumer, until it is
// killed or told to stop. Its handler takes a few milliseconds, so that a signal
// meets it with messages in its hands.
func orderedChild() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	nc, err := nats.Connect(os.Getenv("CONSUMER_TEST_NATS"), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, os.Getenv("CONSUMER_TEST_POSTGRES"))
	if err != nil {
		return err
	}
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	if err != nil {
		return err
	}
	queue, err := dlq.Open(ctx, js, subject.Plattform, dlq.Config{})
	if err != nil {
		return err
	}
	route := applyTo(in, func(ctx context.Context, m envelope.Received[numberV1]) error {
		if m.Envelope.Subject == "killer" {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return pauseFor(3 * time.Millisecond)
	})
	c, err := consumer.New(js, queue, consumer.Config{
		Consumer: orderedDurable(), Store: in, Concurrency: 8, Order: &consumer.Order{LeaseTTL: time.Second},
		RetryInitial: 10 * time.Millisecond, RetryMax: 50 * time.Millisecond, MassFailure: -1,
	}, route)
	if err != nil {
		return err
	}
	err = c.Run(ctx)
	nc.Close()
	return errors.Join(err, ctx.Err()) // exits with 1 either way
}

// orderedDurable waits long for acks: what is held by an instance that died must
// not need AckWait to come again.
func orderedDurable() topology.Consumer {
	return topology.Consumer{
		Durable: "plattform__from_maskin", Stream: topology.Events(subject.Maskin, topology.Limits{MaxBytes: 64 << 20}),
		Filter: subject.EventsOf(subject.Maskin), AckWait: 2 * time.Minute, MaxAckPending: 200, Start: topology.StartFirst(),
	}
}

// fleet are replicas of a service with an ordered consumer.
type fleet struct {
	*ledger
	server   *dvtest.NATSServer
	children map[int]chan error // by process, its end
}

func setupFleet(t *testing.T, replicas int) *fleet {
	t.Helper()
	server := dvtest.Server(t)
	f := &fleet{server: server, children: map[int]chan error{}, ledger: ledgerOn(t,
		setupOn(t, server.Connect(t).JetStream(), func(c *topology.Consumer) { *c = orderedDurable() }))}
	t.Cleanup(func() {
		for pid := range f.children {
			f.kill(t, pid)
		}
	})
	for range replicas {
		f.start(t)
	}
	return f
}

func (f *fleet) start(t *testing.T) int {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), orderedEnv+"=1", "CONSUMER_TEST_NATS="+f.server.URL(), "CONSUMER_TEST_POSTGRES="+connString(f.pool))
	child.Stdout, child.Stderr = t.Output(), t.Output()
	require.NoError(t, child.Start())
	exited := make(chan error, 1)
	go func() { exited <- child.Wait() }()
	f.children[child.Process.Pid] = exited
	return child.Process.Pid
}

// signal sends a signal to a child. gone waits for its end, and kill does both.
func (f *fleet) signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, s))
}

func (f *fleet) kill(t *testing.T, pid int) {
	t.Helper()
	_ = syscall.Kill(pid, syscall.SIGKILL)
	_ = f.gone(t, pid)
}

func (f *fleet) gone(t *testing.T, pid int) error {
	t.Helper()
	select {
	case err := <-f.children[pid]:
		delete(f.children, pid)
		return err
	case <-time.After(soon):
		t.Fatal("a process does not end")
		return nil
	}
}

// active waits until one of the children holds the lease, other than not, and
// returns its process.
func (f *fleet) active(t *testing.T, not int) (pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		var holder string
		err := f.pool.QueryRow(context.Background(), `select holder from messaging.inbox_leases where expires_at > clock_timestamp()`).Scan(&holder)
		parts := strings.Split(holder, "/")
		if err != nil || len(parts) != 3 {
			return false
		}
		pid, err = strconv.Atoi(parts[1])
		return err == nil && pid != not && f.children[pid] != nil
	}, soon, tick)
	return pid
}

func (f *fleet) total() (n int) {
	if f.pool.QueryRow(context.Background(), `select count(*) from effect`).Scan(&n) != nil {
		return -1
	}
	return n
}

// reaches waits for a number of effects.
func (f *fleet) reaches(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return f.total() >= n }, 2*soon, tick, "%d effects", n)
}

// The active instance is killed again and again while it holds messages. The
// standby takes over in the time of a lease, not of AckWait; each effect is there
// once, and each key in its order.
//
// A row of docs/DELIVERY.md.
func TestActiveInstanceIsKilledWhileItHoldsMessages(t *testing.T) {
	t.Parallel()
	f := setupFleet(t, 2)
	f.publishKeys(t, 100, 15)
	for i := range 3 {
		active := f.active(t, 0)
		f.reaches(t, 200+300*i)
		f.kill(t, active)
		f.start(t)
		require.NotEqual(t, active, f.active(t, active))
	}
	f.reaches(t, 1500)
	f.settled(t)
	f.requireOrder(t, 100, 15)
}

// An instance that is stopped beyond its lease and wakes is overtaken: it has
// messages in its hands, transactions open and a request at the server, and none
// of that has an effect out of order. It then stands by, and can take over.
//
// A row of docs/DELIVERY.md.
func TestStoppedInstanceThatWakesHasNoEffectOutOfOrder(t *testing.T) {
	t.Parallel()
	f := setupFleet(t, 2)
	f.publishKeys(t, 100, 20)
	first := f.active(t, 0)
	f.reaches(t, 300)
	f.signal(t, first, syscall.SIGSTOP)
	second := f.active(t, first)
	f.reaches(t, 900)
	f.signal(t, first, syscall.SIGCONT)
	f.reaches(t, 1500)
	f.signal(t, second, syscall.SIGSTOP)
	require.Equal(t, first, f.active(t, second))
	f.reaches(t, 1700)
	f.signal(t, second, syscall.SIGCONT)
	f.reaches(t, 2000)
	f.settled(t)
	f.requireOrder(t, 100, 20)
}

// Two replicas are replaced one after the other under load, as a deployment does:
// each drains, and hands over before its lease runs out.
//
// A row of docs/DELIVERY.md.
func TestRollingRestartHandsOverAtOnce(t *testing.T) {
	t.Parallel()
	f := setupFleet(t, 2)
	f.publishKeys(t, 100, 15)
	for i := range 4 {
		f.reaches(t, 100+300*i)
		leaving := f.active(t, 0)
		f.signal(t, leaving, syscall.SIGTERM)
		require.ErrorContains(t, f.gone(t, leaving), "exit status 1")
		f.start(t)
	}
	f.reaches(t, 1500)
	f.settled(t)
	f.requireOrder(t, 100, 15)
	var longest float64
	require.NoError(t, f.pool.QueryRow(t.Context(), `select max(extract(epoch from gap)) from (select at - lag(at) over (order by at) as gap from effect) g`).Scan(&longest))
	t.Logf("longest pause %.2f s", longest)
}

// A reset makes the server count deliveries from 1 again. A message that kills
// its process is found out all the same.
func TestCrashPoisonIsFoundOutAlthoughTheServerForgetsItsDeliveries(t *testing.T) {
	t.Parallel()
	f := setupFleet(t, 0)
	f.count(t, "good", 1, 2, 3)
	f.count(t, "killer", 1)
	f.count(t, "good", 4, 5, 6)
	deaths := 0
	for ; ; deaths++ {
		require.LessOrEqual(t, deaths, 6, "the message kills on and on")
		if !f.dies(t, f.start(t)) {
			break
		}
	}
	require.GreaterOrEqual(t, deaths, 3)
	require.Equal(t, []int{1, 2, 3, 4, 5, 6}, f.effects("good"))
}

// dies waits until the child was killed by a message, or is through.
func (f *fleet) dies(t *testing.T, pid int) bool {
	t.Helper()
	through := false
	require.Eventually(t, func() bool {
		info, err := f.info()
		through = err == nil && info.AckFloor.Stream == 7
		return through || len(f.children[pid]) > 0
	}, 2*soon, 5*time.Millisecond)
	if !through {
		require.ErrorContains(t, f.gone(t, pid), "killed")
	}
	return !through
}
