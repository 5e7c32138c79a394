package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// step is a node of a workflow's tree: a request, a message or a handler.
type step struct {
	Kind   string    `json:"kind"` // request, command, event, handler
	Name   string    `json:"name"`
	Detail string    `json:"detail,omitempty"`
	At     time.Time `json:"at"`
	Steps  []*step   `json:"steps,omitempty"`
}

// workflow rebuilds one workflow from its correlation id alone: from what lies in
// the streams and from the inboxes of the services.
func (s *supervisor) workflow(ctx context.Context, f *facts) (*step, error) {
	var correlation string
	// One that was interrupted by a kill shows more, so it is preferred.
	err := f.pool.QueryRow(ctx, `select correlation_id from facts.applied
		join facts.events using (message_id) join facts.commands using (correlation_id)
		join facts.handled on handled.message_id = commands.message_id
		order by handled.attempt desc, handled.place limit 1`).Scan(&correlation)
	if err != nil {
		return nil, fmt.Errorf("choose a workflow: %w", err)
	}
	root, err := s.requestStep(ctx, correlation)
	if err != nil {
		return nil, err
	}
	messages := slices.DeleteFunc(slices.Clone(f.messages), func(m message) bool {
		return m.envelope.CorrelationID != correlation
	})
	root.Steps, err = s.caused(ctx, messages, "", "sentral")
	return root, err
}

// requestStep is where the workflow began.
func (s *supervisor) requestStep(ctx context.Context, correlation string) (*step, error) {
	root := &step{Kind: "request"}
	var server, tenant string
	var revision int
	err := s.infra.pools["sentral"].QueryRow(ctx, `select server_id, revision, tenant_id, requested_at
		from requests where correlation_id = $1`, correlation).Scan(&server, &revision, &tenant, &root.At)
	root.Name = fmt.Sprintf("%s, request %d", server, revision)
	root.Detail = fmt.Sprintf("sentral, tenant %s, correlation %s", tenant, correlation)
	return root, err
}

// caused returns the messages that source sent because of the message parent,
// each with what followed from it.
func (s *supervisor) caused(ctx context.Context, messages []message, parent, source string) ([]*step, error) {
	var steps []*step
	for _, m := range messages {
		if m.envelope.CausationID != parent || m.envelope.Source.String() != source {
			continue
		}
		kind := "event"
		if strings.Contains(m.subject, ".cmd.") {
			kind = "command"
		}
		at := &step{Kind: kind, Name: m.subject, At: m.storedAt, Detail: fmt.Sprintf("%s #%d", m.stream, m.sequence)}
		for _, service := range consumingServices {
			handler, err := s.handlerStep(ctx, m, service.String())
			if err != nil {
				return nil, err
			}
			if handler == nil {
				continue
			}
			if handler.Steps, err = s.caused(ctx, messages, m.envelope.ID, service.String()); err != nil {
				return nil, err
			}
			at.Steps = append(at.Steps, handler)
		}
		steps = append(steps, at)
	}
	return steps, nil
}

// handlerStep is what a service did with a message, nil for nothing.
func (s *supervisor) handlerStep(ctx context.Context, m message, service string) (*step, error) {
	handler := &step{Kind: "handler"}
	var attempt int
	rows, err := s.infra.pools[service].Query(ctx, `select consumer, handled_at, coalesce(attempt, 0)
		from messaging.inbox_messages left join ledger using (message_id) where message_id = $1`, m.envelope.ID)
	if err != nil {
		return nil, err
	}
	_, err = pgx.ForEachRow(rows, []any{&handler.Name, &handler.At, &attempt}, func() error { return nil })
	if err != nil || handler.Name == "" {
		return nil, err
	}
	handler.Detail = fmt.Sprintf("attempt %d", attempt)
	return handler, nil
}

// write draws the tree, with times from the beginning of the workflow.
func (s *step) write(w io.Writer, began time.Time, first, rest string) {
	fmt.Fprintf(w, "%s%-7s %s  (%s)  +%s\n", first, s.Kind, s.Name, s.Detail, s.At.Sub(began).Round(time.Millisecond))
	for i, next := range s.Steps {
		branch, below := "├─ ", "│  "
		if i == len(s.Steps)-1 {
			branch, below = "└─ ", "   "
		}
		next.write(w, began, rest+branch, rest+below)
	}
}
