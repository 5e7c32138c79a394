package dlq

import "time"

// State is where a letter stands. It is derived from the newest copy of the
// letter and the last mark on it; the package documentation has the diagram.
type State string

// The states of a letter. All but unknown are also what a [Mark] can say; open is
// mostly derived, and said only of a letter that was restored.
const (
	// StateOpen: nobody acts on it, its last replay failed again, or it was
	// discarded and restored.
	StateOpen State = "open"
	// StateClaimed: somebody is about to replay it.
	StateClaimed State = "claimed"
	// StateReplayed: a replay is outstanding; its durable has not said yet that
	// it was handled.
	StateReplayed State = "replayed"
	// StateResolved: a replay was handled.
	StateResolved State = "resolved"
	// StateDiscarded: an operator gave the message up.
	StateDiscarded State = "discarded"
	// StateRemoved: it was closed long ago and is being removed by
	// [Queue.Purge]; nobody can act on it any more.
	StateRemoved State = "removed"
	// StateUnknown: the last mark cannot be read, for example because a newer
	// version wrote it. Such a letter stays visible and is not replayed.
	StateUnknown State = "unknown"
	// StateAny is for a [Filter]: all letters, closed ones included.
	StateAny State = "any"
)

// Closed reports whether nothing is left to do about the letter: it is resolved,
// discarded or being removed.
func (s State) Closed() bool {
	return s == StateResolved || s == StateDiscarded || s == StateRemoved
}

// markable reports whether a mark can say s.
func (s State) markable() bool {
	return s == StateOpen || s == StateClaimed || s == StateReplayed || s.Closed()
}

// filterable reports whether a filter can ask for s; "" is its zero value.
func (s State) filterable() bool {
	return s == "" || s == StateUnknown || s == StateAny || s.markable()
}

// stored identifies one copy of a letter in its stream. The sequence alone does
// not: after a loss the server gives the same number out again, and a mark on
// the lost copy would then close a letter that nobody has seen.
type stored struct {
	sequence uint64
	at       time.Time
}

// is reports whether both are the same stored message.
func (s stored) is(other stored) bool {
	return s.sequence == other.sequence && s.at.Equal(other.at)
}

// derive returns the state of a letter whose newest copy is c, when last is the
// last mark on it, nil for none.
//
// A copy that the mark does not know, and that is no older than the mark's
// round, is a failure that came after the decision the mark records: the letter
// is open again. A copy of an earlier round is a failure that the mark already
// answers; and so is one of the resolved round that was stored before the mark:
// its replay failed, came again because terminating it was lost, and was handled
// then.
func derive(c place, last *Mark) State {
	switch {
	case last == nil:
		return StateOpen
	case last.State == StateUnknown:
		return StateUnknown
	case last.State == StateResolved && c.round <= last.Round && c.at.Before(last.StoredAt):
		return StateResolved
	case c.round >= last.Round && !c.is(last.letter()):
		return StateOpen
	}
	return last.State
}
