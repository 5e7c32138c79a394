package task

import "fmt"

// State is where a task stands.
type State string

// The states of a task.
const (
	// StateUnknown is that of a task of which no event of its life was seen yet.
	StateUnknown State = ""
	// StateCreated: somebody asked for it.
	StateCreated State = "created"
	// StateQueued: its command waits for a handler, for the first time or, with an
	// attempt above 0, again.
	StateQueued State = "queued"
	// StateStarted: a handler works on it, or left it open.
	StateStarted State = "started"
	// StateSucceeded is final: its effect is there.
	StateSucceeded State = "succeeded"
	// StateFailed: it was given up. The replay of its dead letter moves it on.
	StateFailed State = "failed"
	// StateCancelled is final: it ended before its effect, on request.
	StateCancelled State = "cancelled"
)

// States returns all states in the order of a task's life.
func States() []State {
	return []State{StateCreated, StateQueued, StateStarted, StateSucceeded, StateFailed, StateCancelled}
}

// Final reports whether nothing can follow s.
func (s State) Final() bool { return s == StateSucceeded || s == StateCancelled }

// Ended reports whether nobody works on a task in s, nor will by itself: s is
// final, or failed.
func (s State) Ended() bool { return s.Final() || s == StateFailed }

// Verb is what happened to a task: the last token of its event's subject.
type Verb string

// The verbs. All but progress and updated are also the state that they lead to.
const (
	// VerbCreated opens a task.
	VerbCreated Verb = "created"
	// VerbQueued: its command is on its way, or an attempt failed and the command
	// waits for the next.
	VerbQueued Verb = "queued"
	// VerbStarted: an attempt begins.
	VerbStarted Verb = "started"
	// VerbProgress: how far the attempt is.
	VerbProgress Verb = "progress"
	// VerbSucceeded: the effect is there.
	VerbSucceeded Verb = "succeeded"
	// VerbFailed: the command became a dead letter, or its handler gave the task up.
	VerbFailed Verb = "failed"
	// VerbCancelled: the task ended on request.
	VerbCancelled Verb = "cancelled"
	// VerbUpdated: something beside the life of the task, so that it may follow
	// everything and changes no state. Now that is a request to cancel.
	VerbUpdated Verb = "updated"
)

// transitions is constant: which verb may follow in which state, and the state it
// leads to. What is not here is a TransitionError.
//
//	created ─▶ queued ─▶ started ⟲ progress ─▶ succeeded
//	              ▲         │ ├───────────────▶ cancelled
//	              └─────────┘ └─▶ failed ─▶ started (a replay)
var transitions = map[State]map[Verb]State{
	StateUnknown: {
		VerbCreated: StateCreated,
		VerbQueued:  StateQueued,
		VerbStarted: StateStarted, // a command that nobody opened a task for
	},
	StateCreated: {
		VerbQueued:    StateQueued,
		VerbFailed:    StateFailed,
		VerbCancelled: StateCancelled,
	},
	StateQueued: {
		VerbStarted:   StateStarted,
		VerbFailed:    StateFailed, // a dead letter before any attempt
		VerbCancelled: StateCancelled,
	},
	StateStarted: {
		VerbStarted:   StateStarted, // the attempt before died with its process
		VerbProgress:  StateStarted,
		VerbQueued:    StateQueued, // it failed, and another will follow
		VerbSucceeded: StateSucceeded,
		VerbFailed:    StateFailed,
		VerbCancelled: StateCancelled,
	},
	StateFailed: {
		VerbQueued:    StateQueued,
		VerbStarted:   StateStarted,
		VerbCancelled: StateCancelled, // cancelled before its replay began
	},
}

// Next returns the state that a verb leads to from s, or a [*TransitionError] that
// names the task id.
func (s State) Next(v Verb, id string) (State, error) {
	if v == VerbUpdated {
		return s, nil
	}
	if next, legal := transitions[s][v]; legal {
		return next, nil
	}
	return s, &TransitionError{Task: id, From: s, To: v}
}

// TransitionError says that an event cannot follow in the state of its task.
// Nothing was stored.
type TransitionError struct {
	// Task is the task's id.
	Task string
	// From is its state.
	From State
	// To is the verb that was refused.
	To Verb
}

// Error names the task, where it stands and what was refused.
func (e *TransitionError) Error() string {
	from := string(e.From)
	if e.From == StateUnknown {
		from = "not known"
	}
	return fmt.Sprintf("task: task %s is %s: %s cannot follow", e.Task, from, e.To)
}
