package main

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/dlq"
)

// factsSQL is constant: the tables that the facts are copied into.
//
//go:embed facts.sql
var factsSQL string

// facts are what databases, streams and dead letters say, copied into one
// database.
type facts struct {
	pool     *pgxpool.Pool
	messages []message // of both streams, with all they hold
}

// gatherFacts copies everything, when nothing moves any more.
func (s *supervisor) gatherFacts(ctx context.Context) (*facts, error) {
	f := &facts{pool: s.infra.pools[checkDatabase]}
	if _, err := f.pool.Exec(ctx, factsSQL); err != nil {
		return nil, fmt.Errorf("make tables for the facts: %w", err)
	}
	for _, gather := range []func(context.Context, *facts) error{
		s.gatherInput, s.gatherTables, s.gatherStreams, s.gatherLetters, s.gatherDeliveries,
	} {
		if err := gather(ctx, f); err != nil {
			return nil, fmt.Errorf("gather facts: %w", err)
		}
	}
	return f, nil
}

// gatherInput writes down what was asked for.
func (s *supervisor) gatherInput(ctx context.Context, f *facts) error {
	servers, err := readServers(inputFile, s.opts.servers)
	if err != nil {
		return err
	}
	var rows [][]any
	for _, r := range requestsFor(servers, s.opts.seed) {
		rows = append(rows, []any{r.ID, r.Revision, r.Hostname, r.Site, r.Size})
	}
	return f.insert(ctx, "wanted", rows)
}

// gatherTables copies the tables of the services.
func (s *supervisor) gatherTables(ctx context.Context, f *facts) error {
	const ledger = `select place, message_id, server_id, revision, attempt from ledger`
	for _, t := range []struct{ into, database, query string }{
		{"sites", "sentral", `select name from sites`},
		{"requests", "sentral", `select server_id, revision, size, correlation_id from requests`},
		{"sizes", "maskin", `select name from sizes where name <> '` + repairedSize + `'`},
		{"handled", "maskin", ledger},
		{"servers", "maskin", `select id, hostname, size from servers`},
		{"applied", "plattform", ledger},
		{"nodes", "plattform", `select server_id, hostname, size from nodes`},
	} {
		found, err := s.infra.pools[t.database].Query(ctx, t.query)
		if err != nil {
			return err
		}
		rows, err := pgx.CollectRows(found, func(row pgx.CollectableRow) ([]any, error) { return row.Values() })
		if err != nil {
			return err
		}
		if err := f.insert(ctx, t.into, rows); err != nil {
			return err
		}
	}
	return nil
}

// gatherStreams copies what lies in the streams of commands and of events.
func (s *supervisor) gatherStreams(ctx context.Context, f *facts) error {
	for table, stream := range map[string]string{"commands": maskinDurable.Stream.Name, "events": plattformDurable.Stream.Name} {
		stored, err := readStream(ctx, s.infra.js, stream)
		if err != nil {
			return err
		}
		f.messages = append(f.messages, stored...)
		var rows [][]any
		for _, m := range stored {
			revision, err := m.revision()
			if err != nil {
				return err
			}
			rows = append(rows, []any{int64(m.sequence), m.envelope.ID, m.envelope.Subject, revision, m.envelope.CorrelationID})
		}
		if err := f.insert(ctx, table, rows); err != nil {
			return err
		}
	}
	return nil
}

// gatherLetters copies the dead letters of both services.
func (s *supervisor) gatherLetters(ctx context.Context, f *facts) error {
	var rows [][]any
	for _, service := range consumingServices {
		dead, err := s.deadLetters(ctx, service)
		if err != nil {
			return err
		}
		for l, err := range dead.List(ctx, dlq.Filter{State: dlq.StateAny}) {
			if err != nil {
				return err
			}
			replayed := l.Mark != nil && l.Mark.Round > 0
			rows = append(rows, []any{l.ID, l.CorrelationID, l.Attempts, l.State.Closed(), replayed})
		}
	}
	return f.insert(ctx, "letters", rows)
}

// gatherDeliveries copies the broker's own count of what it delivered.
func (s *supervisor) gatherDeliveries(ctx context.Context, f *facts) error {
	var rows [][]any
	for stream, durable := range map[string]string{
		maskinDurable.Stream.Name:    maskinDurable.Durable,
		plattformDurable.Stream.Name: plattformDurable.Durable,
	} {
		c, err := s.infra.js.Consumer(ctx, stream, durable)
		if err != nil {
			return err
		}
		// Both durables read all of their stream from its first message on.
		delivered := c.CachedInfo().Delivered
		rows = append(rows, []any{durable, int64(delivered.Consumer), int64(delivered.Stream)})
	}
	return f.insert(ctx, "deliveries", rows)
}

// insert fills a table of facts.
func (f *facts) insert(ctx context.Context, table string, rows [][]any) error {
	columns, err := f.columns(ctx, table)
	if err != nil {
		return err
	}
	_, err = f.pool.CopyFrom(ctx, pgx.Identifier{"facts", table}, columns, pgx.CopyFromRows(rows))
	return err
}

// columns returns the columns of a table of facts, in their order.
func (f *facts) columns(ctx context.Context, table string) ([]string, error) {
	rows, err := f.pool.Query(ctx, `select attname::text from pg_attribute
		where attrelid = ('facts.' || $1)::regclass and attnum > 0 order by attnum`, table)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
