package task

import (
	"strings"
	"time"
	"unicode"

	"codeberg.org/dataverket/messaging/envelope"
)

// EventV1 is the data of every task event: what is known of the task once the verb
// has happened, so that the newest event alone tells the state. The envelope's
// subject is the task's id; the time, who asked, the tenant and the workflow are the
// envelope's too.
type EventV1 struct {
	// Version orders the events of a task, whatever order they come in: 1 for
	// created, 2 for the first queued, and counted on from there by the service that
	// handles the command. 0 in updated, which stands beside that order.
	Version int64 `json:"version"`
	// Kind is the type of the command, such as "maskin.server.provision.requested".
	// Absent where a task is reported on by its id alone.
	Kind string `json:"kind,omitempty"`
	// Resource is what the command is about, its envelope's subject; absent as Kind.
	Resource string `json:"resource,omitempty"`
	// Title says for people what the task is. In created, if at all.
	Title string `json:"title,omitempty"`
	// Attempt counts the starts, from 1; 0 before the first.
	Attempt int `json:"attempt,omitempty"`
	// Percent is how far the attempt is, 0 to 100; absent if nobody said.
	Percent *int `json:"percent,omitempty"`
	// Message is the last that the attempt had to say, for people.
	Message string `json:"message,omitempty"`
	// Result refers to what the task made. In succeeded, if at all.
	Result *envelope.Artifact `json:"result,omitempty"`
	// Error is why the task failed, or in queued why the attempt before did.
	Error *FailureV1 `json:"error,omitempty"`
	// Cancel is who asked to cancel and why: in cancelled, and in updated.
	Cancel *CancelV1 `json:"cancel,omitempty"`
}

// FailureV1 says why a task, or an attempt, failed.
type FailureV1 struct {
	// Class is that of the dead letter, or ClassHandler where the handler itself
	// ended the task; absent in queued.
	Class envelope.Class `json:"class,omitempty"`
	// Code is for programs: what [Coded] or [Run.Fail] gave. Absent if nothing did.
	Code string `json:"code,omitempty"`
	// Text is the error's, for people, on one line of at most 1,024 bytes.
	Text string `json:"text"`
	// LetterID names the dead letter that an operator may replay; absent if there
	// is none.
	LetterID string `json:"letter_id,omitempty"`
}

// ClassHandler is the class of a failure that is no dead letter: the handler said
// so and its effects are kept.
const ClassHandler envelope.Class = "handler"

// CancelV1 says who wants a task to be cancelled, and why.
type CancelV1 struct {
	// By is the actor who asked.
	By envelope.Actor `json:"by,omitempty"`
	// Reason is for people, on one line of at most 512 bytes.
	Reason string `json:"reason"`
}

// The task events, version 1.
var (
	// Created is dv.task.evt.created.
	Created = envelope.MustTaskEvent[EventV1](envelope.TaskSpec{Verb: string(VerbCreated), Version: 1})
	// Queued is dv.task.evt.queued.
	Queued = envelope.MustTaskEvent[EventV1](envelope.TaskSpec{Verb: string(VerbQueued), Version: 1})
	// Started is dv.task.evt.started.
	Started = envelope.MustTaskEvent[EventV1](envelope.TaskSpec{Verb: string(VerbStarted), Version: 1})
	// Progress is dv.task.evt.progress.
	Progress = envelope.MustTaskEvent[EventV1](envelope.TaskSpec{Verb: string(VerbProgress), Version: 1})
	// Succeeded is dv.task.evt.succeeded.
	Succeeded = envelope.MustTaskEvent[EventV1](envelope.TaskSpec{Verb: string(VerbSucceeded), Version: 1})
	// Failed is dv.task.evt.failed.
	Failed = envelope.MustTaskEvent[EventV1](envelope.TaskSpec{Verb: string(VerbFailed), Version: 1})
	// Cancelled is dv.task.evt.cancelled.
	Cancelled = envelope.MustTaskEvent[EventV1](envelope.TaskSpec{Verb: string(VerbCancelled), Version: 1})
	// Updated is dv.task.evt.updated.
	Updated = envelope.MustTaskEvent[EventV1](envelope.TaskSpec{Verb: string(VerbUpdated), Version: 1})
)

// types is constant: the type of each verb's event.
var types = map[Verb]envelope.Type[EventV1]{
	VerbCreated: Created, VerbQueued: Queued, VerbStarted: Started, VerbProgress: Progress,
	VerbSucceeded: Succeeded, VerbFailed: Failed, VerbCancelled: Cancelled, VerbUpdated: Updated,
}

// Versions of the events that whoever opens a task sends.
const (
	versionCreated = 1
	versionQueued  = 2
)

// Bounds of what people read, in bytes.
const (
	maxMessage = 512 // also of titles and reasons
	maxError   = 1024
	maxCode    = 64
)

// endTimeout bounds what is reported when nobody waits for a context any more.
const endTimeout = 10 * time.Second

// oneLine makes text fit to be stored and shown: one line of valid UTF-8 of at most
// n bytes.
func oneLine(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) <= n {
		return text
	}
	const more = "…"
	for n -= len(more); n > 0 && text[n]&0xC0 == 0x80; n-- { // not inside a rune
	}
	return text[:n] + more
}
