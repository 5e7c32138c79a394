package main

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
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

// gatherStreams copies what lies in the site's streams. Whose a message is says the
// stream and not the message.
func (s *service) gatherStreams(ctx context.Context, check *pgxpool.Pool) error {
	for _, stream := range s.set.Streams {
		cargo, origin := event, s.Site
		switch stream.Class {
		case topology.ClassEvents:
		case topology.ClassEventCopy:
			origin = s.other()
		case topology.ClassOutgoing:
			cargo = command
		case topology.ClassCommands: // nobody here sends any
			cargo, origin = command, s.other()
		default:
			continue
		}
		messages, err := s.readStream(ctx, stream)
		if err != nil {
			return fmt.Errorf("stream %s: %w", stream.Name, err)
		}
		var rows [][]any
		for _, m := range messages {
			rows = append(rows, []any{s.Site, cargo, origin, int64(m.Sequence), m.id, m.server, m.Revision})
		}
		if err := insert(ctx, check, "stored", rows); err != nil {
			return err
		}
	}
	return nil
}

// message is what lies at one place of a stream.
type message struct {
	Sequence   uint64
	id, server string
	Revision   int `json:"revision"` // all messages of maskin have one
}

// readStream reads a stream from its first message to its last.
func (s *service) readStream(ctx context.Context, declared topology.Stream) ([]message, error) {
	stream, err := s.conn.JetStream().Stream(ctx, declared.Name)
	if err != nil {
		return nil, err
	}
	reader, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	all := make([]message, 0, stream.CachedInfo().State.Msgs)
	for len(all) < cap(all) {
		before := len(all)
		// Never more than there are: the server would wait for them.
		batch, err := reader.Fetch(min(500, cap(all)-len(all)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return nil, err
		}
		for stored := range batch.Messages() {
			m, err := decode(stored)
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		}
		if err := batch.Error(); err != nil || len(all) == before {
			return nil, fmt.Errorf("%d of %d messages came: %w", len(all), cap(all), cmp.Or(err, errSilent))
		}
	}
	return all, nil
}

var errSilent = errors.New("the broker is silent")

func decode(stored jetstream.Msg) (m message, err error) {
	meta, err := stored.Metadata()
	if err != nil {
		return m, err
	}
	e, err := envelope.Decode(stored.Data())
	if err != nil {
		return m, fmt.Errorf("message %d: %w", meta.Sequence.Stream, err)
	}
	m.Sequence, m.id, m.server = meta.Sequence.Stream, e.ID, e.Subject
	return m, json.Unmarshal(e.Data, &m)
}

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
