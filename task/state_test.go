package task_test

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/task"
)

// Every pair of state and verb, so that no transition is there by accident.
func TestOnlyTheseTransitionsAreLegal(t *testing.T) {
	t.Parallel()
	legal := map[task.State]string{
		task.StateUnknown:   "created queued started",
		task.StateCreated:   "queued failed cancelled",
		task.StateQueued:    "started failed cancelled",
		task.StateStarted:   "started progress queued succeeded failed cancelled",
		task.StateFailed:    "queued started cancelled",
		task.StateSucceeded: "",
		task.StateCancelled: "",
	}
	require.Len(t, legal, len(task.States())+1)
	for from, verbs := range legal {
		for _, v := range []task.Verb{
			task.VerbCreated, task.VerbQueued, task.VerbStarted, task.VerbProgress,
			task.VerbSucceeded, task.VerbFailed, task.VerbCancelled,
		} {
			next, err := from.Next(v, "task-1")
			if slices.Contains(strings.Fields(verbs), string(v)) {
				require.NoError(t, err)
				want := task.State(v)
				if v == task.VerbProgress {
					want = task.StateStarted
				}
				require.Equal(t, want, next)
				continue
			}
			refused, ok := errors.AsType[*task.TransitionError](err)
			require.True(t, ok, "%s after %s", v, from)
			require.Equal(t, task.TransitionError{Task: "task-1", From: from, To: v}, *refused)
			require.Equal(t, from, next)
		}
		same, err := from.Next(task.VerbUpdated, "task-1")
		require.NoError(t, err)
		require.Equal(t, from, same)
		require.Equal(t, verbs == "", from.Final())
		require.Equal(t, verbs == "" || from == task.StateFailed, from.Ended())
	}
	_, err := task.StateUnknown.Next(task.VerbFailed, "task-1")
	require.EqualError(t, err, "task: task task-1 is not known: failed cannot follow")
}

// The meaning of a version never changes: what was published once must be read for
// ever, and be written so.
func TestTheDataOfAnEventIsAsRecorded(t *testing.T) {
	t.Parallel()
	half := 50
	e := task.EventV1{
		Version: 4, Kind: "maskin.server.provision.requested", Resource: "srv-1", Title: "Provision db1", Attempt: 2,
		Percent: &half, Message: "copying", Result: &envelope.Artifact{ObjectID: "image-1"},
		Error:  &task.FailureV1{Class: envelope.ClassPoison, Code: "no_rack", Text: "rack is dark", LetterID: letter},
		Cancel: &task.CancelV1{By: "user:kari", Reason: "wrong rack"},
	}
	recorded, err := os.ReadFile("testdata/event-v1.json")
	require.NoError(t, err)
	written, err := json.MarshalIndent(e, "", "  ")
	require.NoError(t, err)
	require.Equal(t, strings.TrimSpace(string(recorded)), string(written))
	var read task.EventV1
	require.NoError(t, json.Unmarshal(recorded, &read))
	require.Equal(t, e, read)
	least, err := json.Marshal(task.EventV1{})
	require.NoError(t, err)
	require.JSONEq(t, `{"version":0}`, string(least))
}

func TestACodeChangesNeitherTextNorVerdict(t *testing.T) {
	t.Parallel()
	require.NoError(t, task.Coded("x", nil))
	err := task.Coded("no_rack", envelope.Permanent(errBroken))
	require.EqualError(t, err, "rack is dark")
	require.True(t, envelope.IsPermanent(err))
	require.ErrorIs(t, err, errBroken)
}

// Whatever an error or a handler says becomes one line that can be stored and shown.
func FuzzOneLine(f *testing.F) {
	for _, seed := range []string{"", "a\nb", "\x00\xff", strings.Repeat("é", 40), strings.Repeat("\xf0\x9f\x98\x80", 9), "\u2028\u009b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		const n = 32
		line := task.OneLine(text, n)
		require.LessOrEqual(t, len(line), n)
		require.True(t, utf8.ValidString(line))
		require.False(t, strings.ContainsFunc(line, unicode.IsControl))
		require.Equal(t, line, task.OneLine(line, n))
	})
}
