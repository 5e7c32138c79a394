package inbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// archiveTimeout bounds one call of the archive.
const archiveTimeout = 5 * time.Minute

// keptRow is a row of a partition, and where it lies.
type keptRow struct {
	ArchivedMessage
	place string // ctid
	id    pgtype.UUID
}

func scanKept(row pgx.CollectableRow) (r keptRow, err error) {
	var letter *string
	err = row.Scan(&r.place, &r.Consumer, &r.Source, &r.id, &r.HandledAt, &letter)
	if letter != nil {
		r.LetterID = *letter
	}
	r.MessageID = r.id.String()
	return r, err
}

// archive shows rows to the hook, if there is one.
func (s *sweep) archive(ctx context.Context, rows []keptRow) error {
	if s.cfg.Archive == nil {
		return nil
	}
	messages := make([]ArchivedMessage, len(rows))
	for i, r := range rows {
		messages[i] = r.ArchivedMessage
	}
	ctx, cancel := context.WithTimeout(ctx, archiveTimeout)
	defer cancel()
	if err := callArchive(ctx, s.cfg.Archive, messages); err != nil {
		return fmt.Errorf("archive of %d messages: %w", len(messages), err)
	}
	s.done.Archived += int64(len(messages))
	return nil
}

// callArchive calls the hook; a panic is an error, since cleaning must not end the
// process.
func callArchive(ctx context.Context, hook func(context.Context, []ArchivedMessage) error, messages []ArchivedMessage) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("it panicked: %v", v)
		}
	}()
	return hook(ctx, messages)
}
