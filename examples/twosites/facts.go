package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/history"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// factsSQL is constant: the tables that the facts are copied into.
//
//go:embed facts.sql
var factsSQL string

// gatherFacts copies what databases, streams and dead letters of both sites say into
// one database, when nothing moves any more.
func (d *demo) gatherFacts(ctx context.Context) error {
	check := d.infra.check
	if _, err := check.Exec(ctx, factsSQL); err != nil {
		return err
	}
	for _, s := range d.services {
		// A site changes as much for the other one as it leaves to it.
		if err := insert(ctx, check, "sites", [][]any{{s.Site, d.opts.events, orders(d.opts.events)}}); err != nil {
			return err
		}
		for _, gather := range []func(context.Context, *pgxpool.Pool) error{s.gatherTables, s.gatherStreams, s.gatherLetters} {
			if err := gather(ctx, check); err != nil {
				return fmt.Errorf("%s: %w", s.Site, err)
			}
		}
	}
	var faults [][]any
	for i, f := range d.faults {
		faults = append(faults, []any{i + 1, f.kind, f.began, f.healed})
	}
	if err := insert(ctx, check, "faults", faults); err != nil {
		return err
	}
	return insert(ctx, check, "traffic", [][]any{{d.began, d.ended}})
}

// gatherTables copies the site's database.
func (s *service) gatherTables(ctx context.Context, check *pgxpool.Pool) error {
	for table, query := range map[string]string{
		"changes": `select $1::text, cargo, server_id, revision, made_at from changes`,
		"effects": `select $1::text, cargo, origin, place, message_id, server_id, revision, applied_at from ledger`,
	} {
		found, err := s.pool.Query(ctx, query, s.Site)
		if err != nil {
			return err
		}
		rows, err := pgx.CollectRows(found, func(row pgx.CollectableRow) ([]any, error) { return row.Values() })
		if err != nil {
			return err
		}
		if err := insert(ctx, check, table, rows); err != nil {
			return err
		}
	}
	return nil
}

// gatherStreams copies what lies in the site's streams of events and commands. Whose a
// message is says the stream and not the message.
func (s *service) gatherStreams(ctx context.Context, check *pgxpool.Pool) error {
	for _, stream := range s.set.Streams {
		cargo, origin, filter := event, s.Site, subject.EventsOf(subject.Maskin)
		switch stream.Class {
		case topology.ClassEvents:
		case topology.ClassEventCopy:
			origin = s.other()
		case topology.ClassCommands: // nobody here sends any
			cargo, origin, filter = command, s.other(), subject.CommandsOf(subject.Maskin)
		default:
			continue
		}
		var rows [][]any
		for m, err := range history.Read(ctx, s.conn.JetStream(), history.Query{
			Filter: filter, Stream: stream.Name, Max: most, MaxRead: most, Timeout: 10 * time.Minute,
		}) {
			if err != nil {
				return err
			}
			var data struct {
				Revision int `json:"revision"` // all messages of maskin have one
			}
			if err := json.Unmarshal(m.Envelope.Data, &data); err != nil {
				return fmt.Errorf("message %d of stream %s: %w", m.Sequence, stream.Name, err)
			}
			rows = append(rows, []any{s.Site, cargo, origin, int64(m.Sequence), m.Envelope.ID, m.Envelope.Subject, data.Revision})
		}
		if err := insert(ctx, check, "stored", rows); err != nil {
			return err
		}
	}
	return nil
}

// most is more than any stream of the demo holds.
const most = 10_000_000

// gatherLetters copies the dead letters. There are to be none.
func (s *service) gatherLetters(ctx context.Context, check *pgxpool.Pool) error {
	dead, err := dlq.Open(ctx, s.conn.JetStream(), subject.Maskin, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	var rows [][]any
	for l, err := range dead.List(ctx, dlq.Filter{State: dlq.StateAny}) {
		if err != nil {
			return err
		}
		rows = append(rows, []any{s.Site, l.ID})
	}
	return insert(ctx, check, "letters", rows)
}

// insert fills a table of facts.
func insert(ctx context.Context, check *pgxpool.Pool, table string, rows [][]any) error {
	found, err := check.Query(ctx, `select attname::text from pg_attribute
		where attrelid = ('facts.' || $1)::regclass and attnum > 0 order by attnum`, table)
	if err != nil {
		return err
	}
	columns, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil {
		return err
	}
	_, err = check.CopyFrom(ctx, pgx.Identifier{"facts", table}, columns, pgx.CopyFromRows(rows))
	return err
}
