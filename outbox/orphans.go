package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pass"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// Bounds of a search for orphans.
const (
	// orphanTimeout bounds each single request to the broker.
	orphanTimeout = 5 * time.Second
	// defaultOrphans is that of OrphanQuery.Max.
	defaultOrphans = 1_000
)

// OrphanQuery says whose messages are compared with an outbox, and which.
type OrphanQuery struct {
	// Service is whose outbox it is. Required.
	Service subject.Service
	// Since is the time at or after which they were stored, by the broker's clock:
	// that of the backup that the database was restored from, or earlier. Required.
	Since time.Time
	// Stream is the only stream that is read. Default: the service's events, the
	// commands of every service, those that wait for other sites, the task events, and
	// what the outbox publishes to.
	Stream string
	// Max is how many orphans are described; all are counted. Default: 1,000.
	Max int
}

// Orphan is a message that a service published and its outbox does not know: the
// transaction that it tells of is gone.
type Orphan struct {
	Stream   string    `json:"stream"`
	Sequence uint64    `json:"sequence"`
	StoredAt time.Time `json:"stored_at"` // by the broker's clock
	Subject  string    `json:"subject"`
	ID       string    `json:"id"`
	// The rest is of the envelope, and empty where it cannot be read any more.
	Type          string    `json:"type,omitempty"`
	Resource      string    `json:"resource,omitempty"` // the envelope's subject
	Time          time.Time `json:"time,omitzero"`
	Actor         string    `json:"actor,omitempty"`
	TenantID      string    `json:"tenant_id,omitempty"`
	CorrelationID string    `json:"correlation_id,omitempty"`
	CausationID   string    `json:"causation_id,omitempty"` // the message whose handling led to it; empty if a request did
}

// OrphanCount is what was found in one stream.
type OrphanCount struct {
	Stream  string `json:"stream"`
	Ours    int    `json:"ours"`    // messages of the service since then, each once
	Orphans int    `json:"orphans"` // that the outbox does not know
	// Unjudged is how many of them lie where retention may have deleted their rows:
	// whether the outbox knew them, nobody can tell.
	Unjudged int `json:"unjudged"`
	// Cut says that the stream holds more since then than is read at once, 2
	// million messages; Read is how far it was read.
	Cut  bool   `json:"cut"`
	Read uint64 `json:"read"`
}

// Orphans are the orphans of an outbox.
type Orphans struct {
	Orphans []Orphan      `json:"orphans"` // by stream and sequence, at most Max
	Streams []OrphanCount `json:"streams"` // that hold messages of the service, by name
	Limited bool          `json:"limited"` // there are more than Max
}

// FindOrphans lists the messages of a service that its streams hold and its outbox
// does not know, after the database was put back to an earlier moment. Others may
// have acted on them: the service has to do again what they tell of, or tell the
// others that it did not happen.
//
// It reads the headers of the streams and the whole table of the outbox, changes
// nothing, and may run while the service does; what is enqueued meanwhile is none.
// Run it soon: rows that retention deletes after the restore make messages before
// them unjudged. Messages that came from another site's stream are not the site's.
// schema as in Config; "" is the default.
func FindOrphans(ctx context.Context, pool *pgxpool.Pool, js jetstream.JetStream, schema string, q OrphanQuery) (Orphans, error) {
	const act = "find orphans"
	quoted, err := operatorArgs(act, schema)
	if !q.Service.Valid() {
		err = errors.Join(err, fmt.Errorf("outbox: %s: service is none; say whose outbox it is", act))
	}
	if q.Since.IsZero() {
		err = errors.Join(err, fmt.Errorf("outbox: %s: since is zero; say the time of the backup", act))
	}
	if js == nil {
		err = errors.Join(err, fmt.Errorf("outbox: %s: js is nil; pass the JetStream of natsconn.Conn", act))
	}
	if err != nil {
		return Orphans{}, err
	}
	s := orphanSearch{pool: pool, js: js, schema: quoted, OrphanQuery: q}
	s.Max = cmp.Or(s.Max, defaultOrphans)
	streams, err := s.streams(ctx)
	for i := 0; i < len(streams) && err == nil; i++ {
		err = s.search(ctx, streams[i])
	}
	if err != nil {
		return Orphans{}, fmt.Errorf("outbox: %s: %w", act, explain(err))
	}
	return s.found, nil
}

// orphanSearch is one search under way.
type orphanSearch struct {
	OrphanQuery
	pool   *pgxpool.Pool
	js     jetstream.JetStream
	schema string
	found  Orphans
}

// streams are those that may hold messages of the service.
func (s *orphanSearch) streams(ctx context.Context) ([]string, error) {
	if s.Stream != "" {
		return []string{s.Stream}, nil
	}
	rows, err := s.pool.Query(ctx, inSchema(s.schema, `select stream from {{schema}}.outbox_state`))
	if err != nil {
		return nil, err
	}
	// A restored outbox may not know yet what it published to.
	names := []string{topology.StreamName(s.Service, topology.ClassEvents), topology.StreamName(s.Service, topology.ClassTaskEvents)}
	for _, service := range subject.Services() {
		names = append(names, topology.StreamName(service, topology.ClassCommands))
	}
	known, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	outgoing, err := s.outgoing(ctx)
	names = slices.Concat(names, known, outgoing)
	slices.Sort(names)
	return slices.Compact(names), err
}

// outgoing are the streams in which commands wait for other sites. Which sites there
// are, only the server knows here.
func (s *orphanSearch) outgoing(ctx context.Context) (names []string, err error) {
	bounded, cancel := context.WithTimeout(ctx, orphanTimeout)
	defer cancel()
	list := s.js.StreamNames(bounded, jetstream.WithStreamListSubject("dv.xdc.>"))
	for name := range list.Name() {
		if strings.Contains(name, "_CMD_TO_") {
			names = append(names, name)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list the streams of commands to other sites: %w", err)
	}
	return names, nil
}

// sent is a message of the service in a stream.
type sent struct {
	known
	at      time.Time
	subject string
}

// search compares one stream with the outbox.
func (s *orphanSearch) search(ctx context.Context, name string) error {
	bounded, cancel := context.WithTimeout(ctx, orphanTimeout)
	defer cancel()
	stream, err := s.js.Stream(bounded, name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && s.Stream == "":
		return nil // not every service takes commands
	case err != nil:
		return fmt.Errorf("look up stream %s: %w", name, err)
	}
	count := OrphanCount{Stream: name}
	all, err := s.read(ctx, stream, &count)
	if err != nil || len(all) == 0 {
		return err
	}
	orphans, err := s.compare(ctx, &count, all)
	if err != nil {
		return fmt.Errorf("compare %s with the outbox: %w", name, err)
	}
	s.found.Streams = append(s.found.Streams, count)
	for _, o := range orphans {
		if s.found.Limited = len(s.found.Orphans) >= s.Max; s.found.Limited {
			return nil
		}
		described, err := s.describe(ctx, stream, o)
		if err != nil {
			return err
		}
		s.found.Orphans = append(s.found.Orphans, described)
	}
	return nil
}

// read returns the messages of the service, each once, in the order of the stream.
func (s *orphanSearch) read(ctx context.Context, stream jetstream.Stream, count *OrphanCount) (all []sent, err error) {
	seen := map[[16]byte]bool{}
	read := 0
	err = pass.Pass{
		Stream: stream, Purpose: "orphans", HeadersOnly: true, Timeout: orphanTimeout,
		Policy: jetstream.DeliverByStartTimePolicy, Since: s.Since,
	}.Run(ctx, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		if count.Cut = read == tailLimit; count.Cut {
			return false, nil
		}
		read++
		count.Read = meta.Sequence.Stream
		id, ours := idOf(m.Headers(), s.Service.String())
		if !ours || seen[id.Bytes] {
			return true, nil
		}
		seen[id.Bytes] = true
		all = append(all, sent{known{id.Bytes, int64(meta.Sequence.Stream)}, meta.Timestamp.UTC(), m.Subject()})
		return true, nil
	})
	count.Ours = len(all)
	return all, err
}

// compare returns those that the outbox does not know. There is no index by id:
// this reads the table.
func (s *orphanSearch) compare(ctx context.Context, count *OrphanCount, all []sent) (orphans []sent, err error) {
	ids := make([]pgtype.UUID, len(all))
	for i, m := range all {
		ids[i] = pgtype.UUID{Bytes: m.id, Valid: true}
	}
	var missing []int64
	var deleted int64
	err = s.pool.QueryRow(ctx, inSchema(s.schema, `
select (select coalesce(array_agg(i.n order by i.n), '{}')
          from unnest($2::uuid[]) with ordinality i (id, n)
          left join (select distinct id from {{schema}}.outbox_events where stream = $1 and id = any($2::uuid[])) e using (id)
         where e.id is null),
       coalesce((select deleted_through from {{schema}}.outbox_state where stream = $1), 0)`), count.Stream, ids).Scan(&missing, &deleted)
	if err != nil {
		return nil, err
	}
	for _, n := range missing {
		if m := all[n-1]; m.sequence <= deleted {
			count.Unjudged++
		} else {
			orphans = append(orphans, m)
		}
	}
	count.Orphans = len(orphans)
	return orphans, nil
}

// describe reads what an orphan says of itself.
func (s *orphanSearch) describe(ctx context.Context, stream jetstream.Stream, m sent) (Orphan, error) {
	o := Orphan{
		Stream: stream.CachedInfo().Config.Name, Sequence: uint64(m.sequence), StoredAt: m.at, Subject: m.subject,
		ID: (&row{id: pgtype.UUID{Bytes: m.id, Valid: true}}).uuid(),
	}
	ctx, cancel := context.WithTimeout(ctx, orphanTimeout)
	defer cancel()
	raw, err := stream.GetMsg(ctx, o.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) { // it has aged meanwhile
		return o, nil
	}
	if err != nil {
		return o, fmt.Errorf("read message %d of %s: %w", o.Sequence, o.Stream, err)
	}
	if e, err := envelope.Decode(raw.Data); err == nil {
		o.Type, o.Resource, o.Time, o.Actor = e.Type, e.Subject, e.Time, string(e.Actor)
		o.TenantID, o.CorrelationID, o.CausationID = e.TenantID, e.CorrelationID, e.CausationID
	}
	return o, nil
}

// idOf returns the id of a message that a service published to this very stream.
func idOf(h nats.Header, service string) (id pgtype.UUID, ours bool) {
	if oneValue(h, envelope.HeaderSource) != service || len(h[sourceHeader]) > 0 {
		return id, false
	}
	err := id.Scan(oneValue(h, envelope.HeaderMsgID))
	return id, err == nil && id.Valid
}

// oneValue returns the one value of a header, "" where there is none or more.
func oneValue(h nats.Header, name string) string {
	if values := h[name]; len(values) == 1 {
		return values[0]
	}
	return ""
}
