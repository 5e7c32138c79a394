package errorindex_test

import (
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/cloudevents"
	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/edge"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/history"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
	"codeberg.org/dataverket/messaging/tenant"
	"codeberg.org/dataverket/messaging/topology"
)

// letter and stored are constant: what the examples are about.
const letter = "l5147ed7e17a0b4ca867c5773bb1358f19ee6e26f"

var (
	at        = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	errBroken = errors.New("rack 7 is full")
)

// examples are errors as they come, by the name of their type or variable. Those
// that a few lines provoke are provoked.
func examples() map[string]error {
	all := map[string]error{}
	for _, group := range []map[string]error{
		ofDeclarations(), ofEnvelopes(), ofConnections(), ofOutbox(), ofConsumers(), ofLetters(), ofCalls(), ofSites(), ofTasks(),
	} {
		for name, err := range group {
			all[name] = err
		}
	}
	return all
}

func ofDeclarations() map[string]error {
	_, badSubject := subject.Evt(subject.Maskin, "Server", "provisioned")
	return map[string]error{
		"subject.Error":       badSubject,
		"topology.FieldError": &topology.FieldError{Field: "Set.Streams[DV_MASKIN_EVT].MaxBytes", Reason: "must not be negative"},
		"topology.DriftError": &topology.DriftError{Object: "stream DV_MASKIN_EVT", Field: "max_age", Want: "168h0m0s", Got: "24h0m0s"},
		"topology.MissingError": &topology.MissingError{
			Object: "stream DV_MASKIN_EVT", Remedy: "start maskin, which creates it"},
		"topology.OverlapError":    &topology.OverlapError{Stream: "DV_MASKIN_CMD", Durable: "maskin__commands", Other: "maskin__old"},
		"topology.UndeclaredError": &topology.UndeclaredError{Subject: subject.Must(subject.Cmd(subject.Maskin, "provision"))},
		"topology.NoFlowError": &topology.NoFlowError{Subject: subject.Must(subject.Cmd(subject.Maskin, "provision")), From: "osl1", To: "trd1",
			Reason: "no flow of such commands is declared",
			Remedy: `add Flow{From: "osl1", To: "trd1", Cargo: CargoCommands, Service: maskin} to Network.Flows, and let both sites apply it`},
		"topology.ImpossibleError":  &topology.ImpossibleError{Object: "stream DV_MASKIN_EVT", Field: "storage", From: "memory", To: "file", Remedy: "make another stream"},
		"topology.DestructiveError": &topology.DestructiveError{Changes: []topology.Change{{Object: "stream DV_MASKIN_EVT", Field: "max_age", From: "168h0m0s", To: "24h0m0s", Destructive: true}}},
		"topology.SiteError": &topology.SiteError{Fault: topology.FaultNoDomain, Field: "Network.Sites[osl]",
			Reason: "has no domain", Remedy: "give it one of its own"},
		"contract.BreakingError": &contract.BreakingError{Service: "maskin", Next: map[string]int{"maskin.server.resized": 2},
			Changes: []contract.Change{{Type: "maskin.server.resized", Version: 1, Path: "size", Verdict: contract.Breaking, Rule: "required-property-removed", Text: "readers need it"}}},
		"migrate.VersionError":  &migrate.VersionError{Schema: "messaging", Have: 3, Want: 4},
		"migrate.ChecksumError": &migrate.ChecksumError{Schema: "messaging", Version: 1, Name: "outbox", Have: "0123456789abcdef", Want: "fedcba9876543210"},
	}
}

func ofEnvelopes() map[string]error {
	_, malformed := envelope.Decode([]byte("not JSON"))
	_, notCloud := cloudevents.Decode(envelope.Header{"Content-Type": {"application/cloudevents+json"}}, []byte("not JSON"))
	return map[string]error{
		"envelope.ErrMalformed":        malformed,
		"envelope.ErrTooLarge":         envelope.ErrTooLarge,
		"envelope.ErrAlreadyProcessed": envelope.ErrAlreadyProcessed,
		"envelope.ErrFenced":           envelope.ErrFenced,
		"envelope.ErrParked":           envelope.ErrParked,
		"envelope.FieldError":          envelope.Origin{Actor: "user:kari", TenantID: "tenant-1"}.Validate(),
		"envelope.MismatchError":       &envelope.MismatchError{Field: "tenant-id", Reason: "the header contradicts the envelope"},
		"envelope.RetryAfterError":     envelope.RetryAfter(time.Minute, errBroken),
		"envelope.DecodeError": &envelope.DecodeError{Fault: envelope.FaultVersion, Type: "maskin.server.provisioned", Version: 2,
			Reason: "no handler of this version; this consumer handles v1: deploy a release that handles the newer one, then replay"},
		"cloudevents.ErrMalformed":   notCloud,
		"cloudevents.ErrTooLarge":    cloudevents.ErrTooLarge,
		"cloudevents.AttributeError": &cloudevents.AttributeError{Name: "actor", Reason: "is required"},
	}
}

func ofConnections() map[string]error {
	var conn *natsconn.Conn
	return map[string]error{
		"natsconn.ErrBreakerOpen":   natsconn.ErrBreakerOpen,
		"natsconn.BreakerOpenError": &natsconn.BreakerOpenError{RetryAfter: 5 * time.Second, Failures: 3, Err: nats.ErrTimeout},
		"natsconn.NotReadyError":    conn.Ready(),
		"edge.ErrForbidden":         edge.ErrForbidden,
		"edge.ErrUnavailable":       edge.ErrUnavailable,
		"tenant.ErrNoTenant":        tenant.ErrNoTenant,
	}
}

func ofOutbox() map[string]error {
	return map[string]error{
		"outbox.ErrNotMigrated":     outbox.ErrNotMigrated,
		"outbox.ErrSequenceCache":   outbox.ErrSequenceCache,
		"outbox.ErrDrainTimeout":    outbox.ErrDrainTimeout,
		"outbox.ErrNothingToAccept": outbox.ErrNothingToAccept,
		"outbox.ErrNothingToRewind": outbox.ErrNothingToRewind,
		"outbox.ErrNotParked":       outbox.ErrNotParked,
		"outbox.ErrHeadChanged":     outbox.ErrHeadChanged,
		"outbox.LagError":           &outbox.LagError{Stream: "DV_MASKIN_EVT", Age: 2 * time.Minute, Bound: time.Minute, Still: 2 * time.Minute},
		"outbox.BackpressureError":  &outbox.BackpressureError{Stream: "DV_MASKIN_EVT", Age: 6 * time.Minute, Bound: 5 * time.Minute},
		"outbox.RecreatedError":     &outbox.RecreatedError{Stream: "DV_MASKIN_EVT", Recorded: at, Found: at.Add(time.Hour)},
		"outbox.RewindPendingError": &outbox.RewindPendingError{Rewind: outbox.Rewind{Stream: "DV_MASKIN_EVT", By: "operator:ola", RequestedAt: at, Reason: "restored, DV-412"}},
		"outbox.ParkedError": &outbox.ParkedError{Parked: outbox.Parked{Stream: "DV_MASKIN_EVT", Key: "server-1", State: outbox.ParkedReleased,
			ReleasedBy: "operator:ola", ReleasedAt: at, Reason: "limit raised, DV-412"}},
	}
}

func ofConsumers() map[string]error {
	missing := &pgconn.PgError{Severity: "ERROR", Code: "42P01", Message: `relation "messaging.inbox_messages" does not exist`}
	_, horizon := inbox.NewJanitor(nil, 14*24*time.Hour, inbox.JanitorConfig{Horizon: 24 * time.Hour})
	short, _ := errors.AsType[*inbox.HorizonError](horizon)
	return map[string]error{
		"consumer.ErrNotRunning":        consumer.ErrNotRunning,
		"consumer.ErrAlreadyRun":        consumer.ErrAlreadyRun,
		"consumer.ErrConnectionClosed":  consumer.ErrConnectionClosed,
		"consumer.DurableMissingError":  &consumer.DurableMissingError{Stream: "DV_MASKIN_EVT", Durable: "plattform__from_maskin", Err: errors.New("consumer not found")},
		"consumer.NotReadyError":        &consumer.NotReadyError{Stream: "DV_MASKIN_EVT", Durable: "plattform__from_maskin", Err: errors.New("disconnected")},
		"consumer.DrainError":           &consumer.DrainError{Unfinished: 2},
		"consumer.PanicError":           &consumer.PanicError{Value: "index out of range [3]", Location: "plattform.register:41"},
		"consumer.UnreadAgeError":       &consumer.UnreadAgeError{Stream: "DV_MASKIN_EVT", Durable: "plattform__from_maskin", Sequence: 7, Age: 84 * time.Hour, Limit: 168 * time.Hour},
		"inbox.ErrDeadUnderOtherLetter": inbox.ErrDeadUnderOtherLetter,
		"inbox.ErrNotParked":            inbox.ErrNotParked,
		"inbox.ErrNothingToRelease":     inbox.ErrNothingToRelease,
		"inbox.ErrSweeping":             inbox.ErrSweeping,
		"inbox.MigrationError":          &inbox.MigrationError{Consumer: "plattform", Err: missing},
		"inbox.HorizonError":            short,
	}
}

func ofLetters() map[string]error {
	return map[string]error{
		"dlq.ErrNoStream":      dlq.ErrNoStream,
		"dlq.ErrFull":          dlq.ErrFull,
		"dlq.ErrNotFound":      dlq.ErrNotFound,
		"dlq.ErrDuplicate":     dlq.ErrDuplicate,
		"dlq.ErrForgotten":     dlq.ErrForgotten,
		"dlq.ErrNoDurable":     dlq.ErrNoDurable,
		"dlq.ErrNoData":        dlq.ErrNoData,
		"dlq.ConflictError":    &dlq.ConflictError{LetterID: letter, State: dlq.StateReplayed, By: "operator:ola", At: at},
		"dlq.ResolvedError":    &dlq.ResolvedError{LetterID: letter, State: dlq.StateResolved, By: "plattform", At: at},
		"dlq.SecurityError":    &dlq.SecurityError{LetterID: letter, Reason: "header tenant-id contradicts the envelope"},
		"dlq.AddressError":     &dlq.AddressError{LetterID: letter, Err: errors.New("its durable is no name of a durable")},
		"dlq.EditError":        &dlq.EditError{LetterID: letter, Err: errors.New("the new data is no JSON object")},
		"dlq.TooManyError":     &dlq.TooManyError{Matched: 1200, Max: 1000},
		"dlq.MalformedError":   &dlq.MalformedError{Sequence: 7, Err: errors.New("it has no letter id")},
		"dlq.FieldError":       &dlq.FieldError{Field: "Request.Reason", Reason: "is required"},
		"history.ErrNoStream":  history.ErrNoStream,
		"history.ErrNoDurable": history.ErrNoDurable,
		"history.ErrNothing":   history.ErrNothing,
		"history.LimitError":   &history.LimitError{Limit: "MaxRead", Stream: "DV_MASKIN_EVT", Next: 100_001},
		"history.MessageError": &history.MessageError{Stream: "DV_MASKIN_EVT", Sequence: 7, Err: envelope.ErrMalformed},
		"history.HorizonError": &history.HorizonError{Durable: "plattform__from_maskin", StoredAt: at, Horizon: envelope.DefaultHorizon},
		"history.StartError":   &history.StartError{Durable: "plattform__from_maskin", Declared: "new", From: 7},
		"history.SkipError":    &history.SkipError{Durable: "plattform__from_maskin", From: 70, Floor: 7},
		"history.FieldError":   &history.FieldError{Field: "Query.Filter", Reason: "is required"},
	}
}

func ofCalls() map[string]error {
	return map[string]error{
		"rpc.Error":             rpc.Errorf(rpc.CodeNotFound, "server srv-9 does not exist"),
		"rpc.ErrNoDeadline":     rpc.ErrNoDeadline,
		"rpc.ErrDeadlineTooFar": rpc.ErrDeadlineTooFar,
		"rpc.ErrTooLarge":       rpc.ErrTooLarge,
		"rpc.ErrNotRunning":     rpc.ErrNotRunning,
		"rpc.ErrAlreadyRun":     rpc.ErrAlreadyRun,
		"rpc.DrainError":        &rpc.DrainError{Unfinished: 2},
	}
}

func ofSites() map[string]error {
	return map[string]error{
		"sites.ErrAlreadyRun":       sites.ErrAlreadyRun,
		"sites.ErrConnectionClosed": sites.ErrConnectionClosed,
		"sites.SiteError":           &sites.SiteError{Domain: "trd1", Site: "osl1"},
		"sites.NoAnswerError":       &sites.NoAnswerError{Site: "osl1", Stream: "DV_MASKIN_EVT", Err: nats.ErrNoResponders},
		"sites.RefusedError": &sites.RefusedError{Site: "osl1", Stream: "DV_MASKIN_EVT", Why: sites.RefusedFlow,
			Reason: "no flow begins in DV_MASKIN_EVT and ends at the site that asks"},
		"sites.VersionError":   &sites.VersionError{Site: "trd1", Asked: 2, Known: 1},
		"sites.MalformedError": &sites.MalformedError{Site: "osl1", Stream: "DV_MASKIN_EVT", Reason: "byte 0: an object is expected here"},
	}
}

func ofTasks() map[string]error {
	const id = "0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01"
	_, refused := task.StateSucceeded.Next(task.VerbProgress, id)
	return map[string]error{
		"task.ErrCancelRequested": task.ErrCancelRequested,
		"task.ErrNotFound":        task.ErrNotFound,
		"task.ErrNotMigrated":     task.ErrNotMigrated,
		"task.TransitionError":    refused,
		"task.CancelError":        &task.CancelError{Task: id, Cancel: task.CancelV1{By: "user:kari", Reason: "wrong rack"}},
	}
}
