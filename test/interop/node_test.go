package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
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

// nodeModules is where the packages of node/ are. A missing Node.js fails the run.
var nodeModules = sync.OnceValues(func() (string, error) {
	install := exec.Command("node/install.sh")
	var stderr bytes.Buffer
	install.Stderr = &stderr
	out, err := install.Output()
	if err != nil {
		return "", fmt.Errorf("node/install.sh: %w: %s", err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
})

// program is a running program of node/.
type program struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	lines  chan map[string]any
}

// nodeCommand runs a script beside the installed packages: modules are looked up
// from where a file is, and the tree holds none.
func nodeCommand(t *testing.T, script string, args ...string) *exec.Cmd {
	t.Helper()
	modules, err := nodeModules()
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(modules, filepath.Join(dir, "node_modules")))
	require.NoError(t, os.CopyFS(filepath.Join(dir, "node"), os.DirFS("node")))
	return exec.CommandContext(context.WithoutCancel(t.Context()), "node", append([]string{filepath.Join(dir, "node", script)}, args...)...)
}

// startNode starts a script, which is killed with the test if it still runs.
func startNode(t *testing.T, env []string, script string, args ...string) *program {
	t.Helper()
	p := &program{lines: make(chan map[string]any, 64), cmd: nodeCommand(t, script, args...)}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = &p.stderr
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			line := map[string]any{}
			if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
				line["text"] = scanner.Text()
			}
			p.lines <- line
		}
	}()
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	return p
}

// wait returns the lines that are left when the program has ended well.
func (p *program) wait(t *testing.T) (lines []map[string]any) {
	t.Helper()
	deadline := time.After(soon)
	for {
		select {
		case line, more := <-p.lines:
			if more {
				lines = append(lines, line)
				continue
			}
			require.NoError(t, p.cmd.Wait(), p.stderr.String())
			return lines
		case <-deadline:
			require.Fail(t, "the program does not end", "%v %s", lines, p.stderr.String())
		}
	}
}

// await returns the first line that says a verdict about a hostname or a letter;
// what came before it is of no interest.
func (p *program) await(t *testing.T, verdict, about string) map[string]any {
	t.Helper()
	var seen []map[string]any
	deadline := time.After(soon)
	for {
		select {
		case line, more := <-p.lines:
			require.True(t, more, "the program ended: %s", &p.stderr)
			seen = append(seen, line)
			if line["verdict"] == verdict && (about == "" || line["hostname"] == about || line["letter"] == about) {
				return line
			}
		case <-deadline:
			require.Fail(t, "no line "+verdict+" "+about, "seen: %v", seen)
		}
	}
}

// stop asks a program to end, and waits.
func (p *program) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	p.wait(t)
}

// platform is a broker with the streams of maskin and plattform, and the durable
// by which plattform reads maskin's events.
type platform struct {
	url     string
	js      jetstream.JetStream
	durable topology.Consumer
	dead    *dlq.Queue
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	server := dvtest.Server(t)
	p := &platform{url: server.URL(), js: server.Connect(t).JetStream()}
	small := topology.Limits{MaxBytes: 16 << 20}
	events := topology.Events(subject.Maskin, small)
	name, err := topology.DurableFrom(subject.Plattform, subject.Maskin)
	require.NoError(t, err)
	p.durable = topology.Consumer{Durable: name, Stream: events, Filter: subject.EventsOf(subject.Maskin),
		Start: topology.StartFirst(), AckWait: 30 * time.Second}
	require.NoError(t, topology.Ensure(t.Context(), p.js, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}}))
	require.NoError(t, topology.Ensure(t.Context(), p.js, topology.Set{
		Service: subject.Plattform, Consumers: []topology.Consumer{p.durable},
		Streams: []topology.Stream{events, topology.DeadLetters(subject.Plattform, small), topology.DeadLetterOps(subject.Plattform, small)},
	}))
	p.dead, err = dlq.Open(t.Context(), p.js, subject.Plattform, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return p
}

// env tells a program where the broker is.
func (p *platform) env(more ...string) []string { return append(more, "NATS_URL="+p.url) }

// settled waits until nothing is left to deliver or to acknowledge.
func (p *platform) settled(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		c, err := p.js.Consumer(t.Context(), p.durable.Stream.Name, p.durable.Durable)
		if err != nil {
			return false
		}
		info := c.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0
	}, soon, tick)
}

func TestOurConsumerHandlesWhatAProducerInAnotherLanguagePublishes(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	got := make(chan envelope.Received[serverV1], 8)
	c, err := consumer.New(p.js, p.dead, consumer.Config{Consumer: p.durable, Logger: slog.New(slog.DiscardHandler)},
		consumer.On(provisioned, func(_ context.Context, m envelope.Received[serverV1]) error {
			got <- m
			return nil
		}))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-ended
	})

	said := startNode(t, p.env(), "producer.mjs", "web-1", "blåbær-2").wait(t)
	require.Len(t, said, 2)
	for range said {
		select {
		case m := <-got:
			line := said[0]
			if line["id"] != m.Envelope.ID {
				line = said[1]
			}
			requirePublished(t, line, m)
		case <-time.After(soon):
			require.Fail(t, "not handled")
		}
	}
	p.settled(t)
	require.Empty(t, got, "what was published twice with one message id is stored once")
	for _, err := range p.dead.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		require.Fail(t, "there is a dead letter")
	}
}

// requirePublished compares what the producer said with what was handled.
func requirePublished(t *testing.T, line map[string]any, m envelope.Received[serverV1]) {
	t.Helper()
	e := m.Envelope
	require.Equal(t, line["id"], e.ID)
	require.Equal(t, line["hostname"], m.Data.Hostname)
	require.Equal(t, line["correlation"], e.CorrelationID)
	require.Equal(t, line["time"], e.Time.Format("2006-01-02T15:04:05.000Z"))
	require.Equal(t, line["traceparent"], m.Header.Get("traceparent"))
	require.InDelta(t, line["sequence"], m.Sequence, 0)
	require.Equal(t, true, line["duplicate"])
	want := envelope.Message{Envelope: e, Traceparent: m.Header.Get("traceparent")}.Header()
	want["Dv-Site"] = []string{"osl1"}
	require.Equal(t, want, m.Header, "exactly the headers that our own producer writes")
	names := 0
	for name, raw := range e.Unknown() {
		require.Equal(t, `x_from "node"`, name+" "+string(raw))
		names++
	}
	require.Equal(t, 1, names, "what this version does not know is kept")
}

// publish stores an event for the durable, changed by the given function.
func (p *platform) publish(t *testing.T, hostname string, change func(*nats.Msg)) {
	t.Helper()
	ctx := envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:42", "tenant-42"))
	m, err := envelope.New(ctx, subject.Maskin, provisioned.New("server/"+hostname, serverV1{Hostname: hostname}))
	require.NoError(t, err)
	encoded, err := m.Envelope.Encode()
	require.NoError(t, err)
	msg := &nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: encoded}
	if change != nil {
		change(msg)
	}
	_, err = p.js.PublishMsg(t.Context(), msg)
	require.NoError(t, err)
}

// letters returns the open letters by their ids.
func (p *platform) letters(t *testing.T) map[string]dlq.Letter {
	t.Helper()
	all := map[string]dlq.Letter{}
	for l, err := range p.dead.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err, "our queue reads the letters of others")
		all[l.ID] = l
	}
	return all
}

func TestAConsumerInAnotherLanguageComesToTheSameVerdicts(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	node := startNode(t, p.env(), "consumer.mjs")
	node.await(t, "ready", "")

	p.publish(t, "web-1", nil)
	require.InDelta(t, 1, node.await(t, "handled", "web-1")["attempt"], 0)
	p.publish(t, "web-2", func(m *nats.Msg) { m.Header = nil }) // absent headers are fine
	node.await(t, "handled", "web-2")
	p.publish(t, "busy-1", nil)
	require.InDelta(t, 2, node.await(t, "handled", "busy-1")["attempt"], 0, "after a nak with a delay")

	p.publish(t, "poison-1", nil)
	p.requireLetter(t, node, envelope.ClassPoison)
	var first []byte // a message that repeats the id of another has a letter of its own
	p.publish(t, "poison-2", func(m *nats.Msg) { first = m.Data })
	usual := p.requireLetter(t, node, envelope.ClassPoison)
	p.publish(t, "poison-3", func(m *nats.Msg) {
		m.Header, m.Data = nil, bytes.Replace(first, []byte("poison-2"), []byte("poison-3"), 1)
	})
	require.NotEqual(t, usual.ID, p.requireLetter(t, node, envelope.ClassPoison).ID)
	p.publish(t, "web-3", func(m *nats.Msg) { m.Header.Set("tenant-id", "other"); m.Header.Set("X-Foreign", "kept") })
	l := p.requireLetter(t, node, envelope.ClassSecurity)
	require.Equal(t, envelope.Header{"tenant-id": {"other"}, "X-Foreign": {"kept"}}, l.OriginalHeader)
	require.Equal(t, "tenant-42", l.TenantID, "as the envelope says it")
	p.publish(t, "web-4", func(m *nats.Msg) { m.Subject = "dv.maskin.evt.server.renamed"; m.Data = m.Data[:len(m.Data)-1] })
	l = p.requireLetter(t, node, envelope.ClassDecode)
	require.Equal(t, []string{"dv.maskin.evt.server.renamed", "maskin.server.provisioned", "tenant-42"},
		[]string{l.Subject, l.Type, l.TenantID}, "as its headers say it")
	require.Empty(t, l.OriginalHeader)
	node.stop(t)
	p.settled(t)
}

// requireLetter waits until the program has buried a message of that class, and
// returns the letter as our queue shows it.
func (p *platform) requireLetter(t *testing.T, node *program, class envelope.Class) dlq.Letter {
	t.Helper()
	line := node.await(t, "buried", "")
	require.Equal(t, string(class), line["failure"])
	l, err := p.dead.Show(t.Context(), line["letter"].(string))
	require.NoError(t, err)
	require.Contains(t, p.letters(t), l.ID)
	require.Equal(t, class, l.Class)
	require.Equal(t, dlq.StateOpen, l.State)
	require.Equal(t, p.durable.Durable, l.Durable)
	require.Equal(t, p.durable.Stream.Name, l.Stream)

	// It is the letter that our own consumer would have written: the queue, given
	// the same failure, finds it there.
	stored, err := p.js.Stream(t.Context(), l.Stream)
	require.NoError(t, err)
	raw, err := stored.GetMsg(t.Context(), l.Sequence)
	require.NoError(t, err)
	require.Equal(t, raw.Data, l.Data)
	require.Equal(t, raw.Subject, l.Subject)
	require.True(t, raw.Time.Equal(l.OriginalStoredAt), "to the nanosecond")
	e, _ := envelope.Decode(raw.Data)
	id, err := p.dead.DeadLetter(t.Context(), &envelope.Failure{
		Durable: l.Durable, Stream: l.Stream, Sequence: l.Sequence, StoredAt: raw.Time, Subject: raw.Subject,
		Header: envelope.Header(raw.Header), Data: raw.Data, Envelope: e, Class: class, LastAt: time.Now(),
	})
	require.NoError(t, err)
	require.Equal(t, l.ID, id)
	return l
}

// The life of a letter of another language: replayed in vain, replayed after the
// fix, and resolved by the consumer itself.
func TestALetterOfAnotherLanguageIsReplayedAndResolved(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	node := startNode(t, p.env(), "consumer.mjs")
	p.publish(t, "poison-1", nil)
	letter := node.await(t, "buried", "")["letter"].(string)

	_, err := p.dead.Replay(t.Context(), letter, dlq.Request{By: "operator:ola", Reason: "try"})
	require.NoError(t, err)
	require.Equal(t, "poison", node.await(t, "buried", letter)["failure"])
	l, err := p.dead.Show(t.Context(), letter)
	require.NoError(t, err)
	require.Equal(t, dlq.StateOpen, l.State)
	require.Equal(t, 1, l.Round)
	require.Len(t, l.Copies, 2)
	require.Equal(t, "dv.maskin.evt.server.provisioned", l.Subject)
	node.stop(t)

	node = startNode(t, p.env("FIXED=1"), "consumer.mjs")
	_, err = p.dead.Replay(t.Context(), letter, dlq.Request{By: "operator:ola", Reason: "fixed"})
	require.NoError(t, err)
	require.Equal(t, "poison-1", node.await(t, "handled", letter)["hostname"])
	l, err = p.dead.Show(t.Context(), letter)
	require.NoError(t, err)
	require.Equal(t, dlq.StateResolved, l.State)
	require.Equal(t, "service:plattform", l.Mark.By)
	node.stop(t)
}

// Two readers of docs/WIRE.md that accept different bytes are an attack. The files
// are those that our own reader is held against.
func TestAReaderInAnotherLanguageAcceptsWhatOursAccepts(t *testing.T) {
	t.Parallel()
	var files []string
	for _, dir := range []string{"valid/v1", "bad"} {
		found, err := filepath.Glob("../../envelope/testdata/" + dir + "/*.json")
		require.NoError(t, err)
		require.NotEmpty(t, found)
		for _, name := range found {
			name, err = filepath.Abs(name)
			require.NoError(t, err)
			files = append(files, name)
		}
	}
	lines := startNode(t, nil, "decode.mjs", files...).wait(t)
	require.Len(t, lines, len(files))
	for i, line := range lines {
		require.Equal(t, files[i], line["file"])
		data, err := os.ReadFile(files[i])
		require.NoError(t, err)
		e, err := envelope.Decode(data)
		if err != nil {
			require.NotNil(t, line["refused"], files[i])
			continue
		}
		require.Nil(t, line["refused"], files[i])
		want := map[string]any{}
		for name, values := range (envelope.Message{Envelope: e}).Header() {
			want[name] = values[0]
		}
		require.Equal(t, want, line["headers"])
	}
}
