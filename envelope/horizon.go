package envelope

import "time"

// DefaultHorizon is how long the memory of a handled message lasts by default:
// package inbox keeps it at least so long after the message was handled, and a
// repeat that comes later is handled once more. Whoever repeats a message on
// purpose, such as an operator who replays a dead letter for the second time, has
// to ask first whether the first time is longer ago.
const DefaultHorizon = 45 * 24 * time.Hour
