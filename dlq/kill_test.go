package dlq_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// The environment of an operator in a process of its own, which the test binary
// becomes: the server, what it does, and where it hangs until it is killed, as
// <begin>|<part>|<n>.
const (
	operatorURL  = "DLQ_TEST_OPERATOR_URL"
	operatorAct  = "DLQ_TEST_OPERATOR_ACT"
	operatorHang = "DLQ_TEST_OPERATOR_HANG"
)

// staged is the real thing that calls at before and after each change it makes
// and before it reads: "before publish <subject>", "after delete <stream>",
// "before purge <stream>", "before read <stream>".
type staged struct {
	jetstream.JetStream
	at func(point string)
}

func (s *staged) PublishMsg(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	s.at("before publish " + m.Subject)
	ack, err := s.JetStream.PublishMsg(ctx, m, opts...)
	s.at("after publish " + m.Subject)
	return ack, err
}

func (s *staged) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	stream, err := s.JetStream.Stream(ctx, name)
	return &stagedStream{stream, s.at}, err
}

type stagedStream struct {
	jetstream.Stream
	at func(point string)
}

func (s *stagedStream) CreateConsumer(ctx context.Context, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	s.at("before read " + s.CachedInfo().Config.Name)
	return s.Stream.CreateConsumer(ctx, cfg)
}

func (s *stagedStream) DeleteMsg(ctx context.Context, sequence uint64) error {
	s.at("before delete " + s.CachedInfo().Config.Name)
	err := s.Stream.DeleteMsg(ctx, sequence)
	s.at("after delete " + s.CachedInfo().Config.Name)
	return err
}

func (s *stagedStream) Purge(ctx context.Context, opts ...jetstream.StreamPurgeOpt) error {
	s.at("before purge " + s.CachedInfo().Config.Name)
	err := s.Stream.Purge(ctx, opts...)
	s.at("after purge " + s.CachedInfo().Config.Name)
	return err
}

// nth returns what calls do at the n-th point that begins and goes on so.
func nth(n int, begin, part string, do func()) func(string) {
	return func(point string) {
		if !strings.HasPrefix(point, begin) || !strings.Contains(point, part) {
			return
		}
		if n--; n == 0 {
			do()
		}
	}
}

// hang does nothing for ever, and says so.
func hang() {
	fmt.Println("hanging")
	select {}
}

// operate is the operator's process.
func operate(url string) error {
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	at := strings.Split(os.Getenv(operatorHang), "|")
	n, err := strconv.Atoi(at[2])
	if err != nil {
		return err
	}
	q, err := dlq.Open(context.Background(), &staged{js, nth(n, at[0], at[1], hang)}, service, dlq.Config{Logger: quiet()})
	if err != nil {
		return err
	}
	switch os.Getenv(operatorAct) {
	case "replay":
		_, err = q.ReplayAll(context.Background(), openOnes, swift("killed"))
	case "purge":
		_, err = q.Purge(context.Background(), dlq.PurgeRequest{OlderThan: 1})
	}
	return errors.Join(err, errors.New("ended instead of hanging"))
}

// killed runs an operator's process until it hangs, and kills it with SIGKILL.
func killed(t *testing.T, url, act, hang string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), operatorURL+"="+url, operatorAct+"="+act, operatorHang+"="+hang)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, errors.Join(err, cmd.Process.Kill()), "Kill sends SIGKILL")
	require.Equal(t, "hanging\n", line)
	_, _ = io.Copy(io.Discard, out)
	require.ErrorContains(t, cmd.Wait(), "killed")
}

// setupServer is setup with an address for other processes.
func setupServer(t *testing.T) (*bundle, string) {
	t.Helper()
	server := dvtest.Server(t)
	conn := server.Connect(t)
	b := &bundle{js: conn.JetStream(), nc: conn.NATS()}
	createStreams(t, b.js, topology.Limits{})
	b.queue = b.open(t, dlq.Config{})
	return b, server.URL()
}

// handling runs a consumer that counts how often each message has an effect.
func (b *bundle) handling(t *testing.T) func() map[string]int {
	t.Helper()
	events := topology.Events(subject.Maskin, topology.Limits{})
	declared := topology.Consumer{
		Durable: durable, Stream: events, Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(),
	}
	require.NoError(t, topology.Ensure(t.Context(), b.js, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}}))
	require.NoError(t, topology.Ensure(t.Context(), b.js, topology.Set{
		Service: service, Consumers: []topology.Consumer{declared},
		Streams: []topology.Stream{events, topology.DeadLetters(service, topology.Limits{}), topology.DeadLetterOps(service, topology.Limits{})},
	}))
	var mu sync.Mutex
	effects := map[string]int{}
	c, err := consumer.New(b.js, b.queue, consumer.Config{Consumer: declared, Logger: quiet()},
		consumer.On(serverProvisioned(), func(_ context.Context, m envelope.Received[provisioned]) error {
			mu.Lock()
			defer mu.Unlock()
			effects[m.Envelope.ID]++
			return nil
		}))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() { stop(); require.NoError(t, <-ended) })
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(effects)
	}
}

// An operator's process is killed in the middle of a batch, at the worst moments:
// after a claim whose replay was never published, and after a replay whose
// publication was never marked. Two others do it again at once, as they would from
// their shell's history: every open letter is meant. Each message has
// its effect once, although the handler here has no inbox.
//
// A row of docs/DELIVERY.md.
func TestABatchThatWasKilledIsFinishedByTwoOthersOnce(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"before|.replay.|4", "after|.replay.|4", "after|.dlqmark.|8"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			testKilledBatch(t, at)
		})
	}
}

func testKilledBatch(t *testing.T, at string) {
	b, url := setupServer(t)
	effects := b.handling(t)
	letters := b.all(t, 12)
	killed(t, url, "replay", at)
	require.LessOrEqual(t, b.replays(t), 4, "killed in the middle")

	// The lease ends by the server's clock; what is still claimed is done again.
	lease := dlq.Config{ClaimLease: 300 * time.Millisecond}
	others := []*dlq.Queue{b.open(t, lease), b.open(t, lease)}
	require.Eventually(t, func() bool {
		var both sync.WaitGroup
		for i, q := range others {
			both.Go(func() {
				if _, err := q.ReplayAll(t.Context(), openOnes, swift([]string{"ola", "kari"}[i])); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		return len(b.list(t, dlq.Filter{State: dlq.StateOpen}))+len(b.list(t, dlq.Filter{State: dlq.StateClaimed})) == 0
	}, 30*time.Second, 50*time.Millisecond)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	followed, err := b.queue.Follow(ctx, letters, nil)
	require.NoError(t, err)
	require.Equal(t, sorted(letters...), sorted(followed.Resolved...))
	require.Len(t, b.replayedIDs(t), 12)
	require.Len(t, effects(), 12)
	for id, n := range effects() {
		require.Equal(t, 1, n, id)
	}
}
