package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
	"codeberg.org/dataverket/messaging/subject"
)

// repairedSize is what the catalogue lacks and gets in the demo.
const repairedSize = "gpu_large"

// Who repairs, and why: both stay with the letter.
const (
	operator     = "operator:ola.nordmann"
	repairReason = "size " + repairedSize + " added to the catalogue, DV-412"
)

// consumingServices is constant: who can have dead letters.
var consumingServices = []subject.Service{subject.Maskin, subject.Plattform}

// letter is a dead letter in the report.
type letter struct {
	ID     string `json:"id"`
	Server string `json:"server"`
	Tenant string `json:"tenant"`
	Class  string `json:"class"`
	Cause  string `json:"cause"`
	State  string `json:"state"`
	// Fingerprint is equal on letters that failed alike.
	Fingerprint   string `json:"fingerprint"`
	CorrelationID string `json:"correlation_id"`
}

// replay is what became of the letter that was repaired.
type replay struct {
	LetterID string  `json:"letter_id"`
	Server   string  `json:"server"`
	By       string  `json:"by"`
	Reason   string  `json:"reason"`
	State    string  `json:"state"`
	Hostname string  `json:"node"`
	Took     seconds `json:"seconds"`
}

// deadLetters opens the dead letters of a service, as an operator.
func (s *supervisor) deadLetters(ctx context.Context, service subject.Service) (*dlq.Queue, error) {
	return dlq.Open(ctx, s.infra.js, service, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
}

// repair lists maskin's dead letters, mends what one of them failed of, and
// replays that one. The others stay where they can be seen.
func (s *supervisor) repair(ctx context.Context, r *report) error {
	dead, err := s.deadLetters(ctx, subject.Maskin)
	if err != nil {
		return err
	}
	var chosen *letter
	for l, err := range dead.List(ctx, dlq.Filter{}) {
		if err != nil {
			return err
		}
		seen, wantsSize, err := describe(ctx, dead, l)
		if err != nil {
			return err
		}
		r.DeadLetters = append(r.DeadLetters, seen)
		if chosen == nil && wantsSize {
			chosen = &seen
		}
	}
	if chosen == nil {
		return nil
	}
	s.progress.Say("all requests have gone their way; repairing one of %d dead letters and replaying it", len(r.DeadLetters))
	_, err = s.infra.pools["maskin"].Exec(ctx, `insert into sizes values ($1, 32, 256)`, repairedSize)
	if err != nil {
		return err
	}
	r.Replay, err = s.replay(ctx, dead, *chosen)
	return err
}

// describe reads which server a letter is about, and whether it failed for the
// size that is going to be repaired.
func describe(ctx context.Context, dead *dlq.Queue, l dlq.Letter) (seen letter, wantsSize bool, err error) {
	full, err := dead.Show(ctx, l.ID)
	if err != nil {
		return letter{}, false, err
	}
	e, err := envelope.Decode(full.Data)
	if err != nil {
		return letter{}, false, fmt.Errorf("read dead letter %s: %w", l.ID, err)
	}
	// A letter of another command decodes to nothing, and is not the one.
	order, _ := maskinevents.Provision.Decode(e)
	return letter{
		ID: l.ID, Server: e.Subject, Tenant: l.TenantID, Class: string(l.Class), Cause: l.Error,
		State: string(l.State), Fingerprint: l.Fingerprint, CorrelationID: l.CorrelationID,
	}, order.Size == repairedSize, nil
}

// replay hands a letter to its consumer once more, and waits until the whole
// workflow behind it is done.
func (s *supervisor) replay(ctx context.Context, dead *dlq.Queue, l letter) (*replay, error) {
	began := time.Now()
	if _, err := dead.Replay(ctx, l.ID, dlq.Request{By: operator, Reason: repairReason}); err != nil {
		return nil, err
	}
	done := &replay{LetterID: l.ID, Server: l.Server, By: operator, Reason: repairReason}
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, fmt.Errorf("replay of %s: no node after 30s", l.Server))
	defer cancel()
	err := poll(ctx, 20*time.Millisecond, func() (bool, error) {
		now, err := dead.Show(ctx, l.ID)
		if err != nil {
			return false, err
		}
		done.State = string(now.State)
		nodes, err := s.count(ctx, "plattform", `select count(*) from nodes where server_id = $1`, l.Server)
		return now.State == dlq.StateResolved && nodes > 0, err
	})
	if err != nil {
		return nil, err
	}
	done.Took = seconds(time.Since(began))
	return done, s.infra.pools["plattform"].QueryRow(ctx, `select hostname from nodes where server_id = $1`, l.Server).Scan(&done.Hostname)
}
