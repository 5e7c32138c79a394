package outbox

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// AcceptStream lets the relay go on with a stream that was deleted and created
// anew (see RecreatedError): an operator says that the new one is meant to take
// the place of the old. It works on the database alone; the relay that leads
// notices within seconds.
//
// The new stream holds nothing of what the old one acknowledged, and who had
// read how much of the old one is unknown. So the cursor goes back to the very
// beginning: every row that is still in the outbox is published again, with its
// id, in order. Consumers' inboxes absorb what they had handled. Anchors of the
// old stream are dropped.
//
// by ("operator:ola") and reason are required and recorded in
// outbox_accepted. schema as in Config; "" is the default. ErrNothingToAccept
// where no relay found such a stream.
func AcceptStream(ctx context.Context, pool *pgxpool.Pool, schema, stream, by, reason string) error {
	quoted, err := operatorArgs("accept stream", schema, arg{"stream", stream}, arg{"by", by}, arg{"reason", reason})
	if err != nil {
		return err
	}
	tag, err := pool.Exec(ctx, strings.ReplaceAll(acceptSQL, "{{schema}}", quoted), stream, by, reason)
	switch {
	case err != nil:
		return fmt.Errorf("outbox: accept stream %s: %w", stream, explain(err))
	case tag.RowsAffected() != 1:
		return fmt.Errorf("outbox: accept stream %s: %w", stream, ErrNothingToAccept)
	}
	return nil
}

// acceptSQL needs no fence: only a stream that its relay holds has a creation
// time in recreated, so no cursor of it is being moved. Floors of zero bound
// nothing and are always valid.
const acceptSQL = `
with waiting as (
  select stream, stream_created, recreated from {{schema}}.outbox_state
   where stream = $1 and recreated is not null for update
), noted as (
  insert into {{schema}}.outbox_accepted (stream, created_before, created_after, accepted_by, reason)
  select stream, stream_created, recreated, $2, $3 from waiting
), dropped as (
  delete from {{schema}}.outbox_anchors a using waiting w where a.stream = w.stream
)
update {{schema}}.outbox_state s
   set base = '1:1:', floor = 0, next_floor = 0, target = null, ceiling = null, position = null,
       acked_sequence = 0, acked_id = null, tail_after = 0, deleted_through = 0, stream_created = w.recreated, recreated = null,
       updated_at = clock_timestamp()
  from waiting w where s.stream = w.stream
` + durable
