package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
)

// taskAge finds the ages of tasks.
var taskAge = regexp.MustCompile(`(?m)^([0-9a-f-]{36}  )[0-9dhms]+`) // constant

// tell projects an event of a task: what it says, minute minutes after the first.
func (b parkedBundle) tell(t testing.TB, id string, minute int, typ envelope.Type[task.EventV1], say task.EventV1) {
	t.Helper()
	p, err := task.NewProjection(b.pool, task.ProjectionConfig{})
	require.NoError(t, err)
	say.Kind, say.Resource = "maskin.server.provision.requested", "srv-1"
	m, err := envelope.New(envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:kari", "tenant-1")), subject.Maskin, typ.New(id, say))
	require.NoError(t, err)
	m.Envelope.ID = fmt.Sprintf("%s%02d", anID[:len(anID)-2], minute+50)
	m.Envelope.CorrelationID = "corr-1"
	m.Envelope.Time = time.Date(2026, 3, 4, 5, minute, 7, 0, time.UTC)
	require.NoError(t, pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		return p.Apply(t.Context(), tx, envelope.Received[task.EventV1]{Delivery: &envelope.Delivery{Envelope: m.Envelope}, Data: say})
	}))
}

// lives projects three tasks: one under way, one that failed, one that is done.
func (b parkedBundle) lives(t testing.TB) {
	t.Helper()
	half := 50
	b.tell(t, idOf(1), 1, task.Created, task.EventV1{Version: 1, Title: "Provision db1"})
	b.tell(t, idOf(1), 2, task.Started, task.EventV1{Version: 3, Attempt: 1})
	b.tell(t, idOf(1), 3, task.Progress, task.EventV1{Version: 4, Attempt: 1, Percent: &half, Message: "copying\x1b[31m the image"})
	b.tell(t, idOf(1), 4, task.Updated, task.EventV1{Cancel: &task.CancelV1{By: "user:kari", Reason: "wrong rack"}})
	b.tell(t, idOf(2), 5, task.Created, task.EventV1{Version: 1})
	b.tell(t, idOf(2), 6, task.Started, task.EventV1{Version: 5, Attempt: 2})
	b.tell(t, idOf(2), 7, task.Failed, task.EventV1{Version: 6, Attempt: 2, Error: &task.FailureV1{
		Class: envelope.ClassPoison, Code: "no_rack", Text: "rack is dark", LetterID: "l" + strings.Repeat("a", 40),
	}})
	b.tell(t, idOf(3), 8, task.Succeeded, task.EventV1{Version: 4, Attempt: 1, Result: &envelope.Artifact{ObjectID: "image-1"}})
}

func TestTaskOutputsAreAsRecorded(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	requireGolden(t, "task-none.golden", b.dvmsg(t, "task", "list").ok(t).out)
	requireGolden(t, "task-none.json", b.dvmsg(t, "task", "list", "--json").ok(t).out)
	b.lives(t)
	requireGolden(t, "task-list.golden", masked(taskAge.ReplaceAllString(b.dvmsg(t, "task", "list").ok(t).out, "${1}AGE")))
	requireGolden(t, "task-show.golden", masked(b.dvmsg(t, "task", "show", idOf(1)).ok(t).out))
	requireGolden(t, "task-show-failed.golden", masked(b.dvmsg(t, "task", "show", idOf(2)).ok(t).out))
	requireGolden(t, "task-show.json", b.dvmsg(t, "task", "show", idOf(2), "--json").ok(t).out)
	requireGolden(t, "help-follow.golden", b.dvmsg(t, "task", "follow", "-h").ok(t).out)
}

func TestTasksAreSelected(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	b.lives(t)
	for args, want := range map[string]int{
		"": 3, "--state failed": 1, "--state failed,started": 2, "--state queued": 0, "--resource srv-1": 3, "--resource x": 0,
		"--correlation corr-1": 3, "--tenant x": 0, "--kind maskin.server.provision.requested": 3, "--limit 2": 2,
		"--since 2026-03-04T05:06:00Z": 2,
	} {
		r := decode[taskListResult](t, b.dvmsg(t, append([]string{"task", "list", "--json"}, strings.Fields(args)...)...).ok(t))
		require.Len(t, r.Tasks, want, args)
		require.Equal(t, args == "--limit 2", r.Limited, args)
	}
	require.Contains(t, b.dvmsg(t, "task", "list", "--limit", "2").ok(t).out, "there may be more")
	b.dvmsg(t, "task", "show", idOf(9)).failed(t, exitFailure, "no such task: "+idOf(9))
	for args, want := range map[string]string{
		"task list --state odd":              `--state: "odd" is none of created, queued`,
		"task list --limit 0":                `--limit: 0 is out of range`,
		"task list --since x":                `--since: "x" is neither`,
		"task show l1234":                    `ID: "l1234" is no task id`,
		"task follow":                        `ID is missing`,
		"task follow x --interval 1ms":       `--interval: 1ms is out of range; use 10ms to 1m0s`,
		"task list --schema Bad --state odd": `--schema: "Bad" is no schema name`,
	} {
		b.dvmsg(t, strings.Fields(args)...).failed(t, exitUsage, want)
	}
}

// A script waits for a task and learns by the exit code how it ended.
func TestFollowEndsWithTheTaskAndTellsHow(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	b.lives(t)
	require.Contains(t, b.dvmsg(t, "task", "follow", idOf(3)).ok(t).out, "Z  succeeded\n")
	r := decode[taskFollowResult](t, b.dvmsg(t, "task", "follow", idOf(3), "--json").ok(t))
	require.Equal(t, task.StateSucceeded, r.Task.State)

	failed := b.dvmsg(t, "task", "follow", idOf(2))
	failed.failed(t, exitFailure, "failed: rack is dark; see dvmsg dlq show l"+strings.Repeat("a", 40))
	require.Contains(t, failed.out, "Z  failed (attempt 2)    rack is dark\n")

	live := b.following(t, t.Context(), idOf(1))
	live.shows(t, "started, to be cancelled  50%  copying [31m the image")
	b.tell(t, idOf(1), 20, task.Cancelled, task.EventV1{Version: 5, Attempt: 1})
	require.Equal(t, exitFailure, <-live.code)
	require.Equal(t, 2, strings.Count(live.String(), "\n"), "one line for each change: %s", live)
	require.Contains(t, live.String(), "Z  cancelled\n")
	require.Contains(t, live.errors.String(), "was cancelled")
}

// The projection may be behind whoever has just opened a task; a wrong id is not
// waited for.
func TestFollowWaitsForATaskThatIsNotKnownYet(t *testing.T) {
	t.Parallel()
	b := setupParked(t)
	ctx, interrupt := context.WithCancel(t.Context())
	live := b.following(t, ctx, idOf(1))
	live.shows(t, "not known")
	interrupt()
	require.Equal(t, exitFailure, <-live.code)
	require.Contains(t, live.errors.String(), "interrupted")

	clock := time.Now()
	a := silent()
	a.now = func() time.Time { clock = clock.Add(unknownPatience); return clock }
	a.env = b.get
	var complaint bytes.Buffer
	a.stderr = &complaint
	require.Equal(t, exitFailure, a.run(t.Context(), []string{"task", "follow", idOf(1), "--interval", "10ms"}))
	require.Contains(t, complaint.String(), "no such task")
}

// live is a task follow that runs.
type live struct {
	mu     sync.Mutex
	out    bytes.Buffer
	errors bytes.Buffer
	code   chan int
}

func (l *live) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(p)
}

func (l *live) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.String()
}

// shows waits until it said something.
func (l *live) shows(t testing.TB, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(l.String(), text) }, time.Minute, 5*time.Millisecond)
}

// following runs task follow until the task or ctx ends.
func (b parkedBundle) following(t testing.TB, ctx context.Context, id string) *live {
	t.Helper()
	l := &live{code: make(chan int, 1)}
	go func() {
		l.code <- run(ctx, []string{"task", "follow", id, "--interval", "10ms"}, strings.NewReader(""), l, &l.errors, b.get)
	}()
	return l
}

// terminal is an output that somebody looks at.
type terminal struct{ bytes.Buffer }

func (*terminal) Stat() (fs.FileInfo, error) { return console{}, nil }

type console struct{ fs.FileInfo }

func (console) Mode() fs.FileMode { return os.ModeDevice | os.ModeCharDevice }

func TestOnATerminalOneLineMoves(t *testing.T) {
	t.Parallel()
	out := &terminal{}
	c := newCall(silent(), requireCommand(t, "task follow"))
	c.app.stdout = out
	show := newTicker(c)
	half := 50
	under := task.Task{State: task.StateStarted, Attempt: 1, Percent: &half, Message: "copying\n" + strings.Repeat("x", 100)}
	for range 3 {
		show.show(under)
	}
	under.State, under.Message = task.StateSucceeded, ""
	show.show(under)
	show.end()
	require.Equal(t, clearsLine+"[############............]  50%  started  copying "+strings.Repeat("x", 21)+"…"+
		clearsLine+"[########################]  50%  succeeded\n", out.String())
	require.False(t, isTerminal(&bytes.Buffer{}))
	file, err := os.Open(os.Args[0])
	require.NoError(t, err)
	defer file.Close()
	require.False(t, isTerminal(file))
}
