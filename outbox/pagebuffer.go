package outbox

import (
	"sync"

	"github.com/jackc/pgx/v5"
)

// pageBuffer collects the rows of a page in two pieces of memory, which are used
// again for other pages. Four new pieces per row would be most of what the relay
// allocates.
type pageBuffer struct {
	pool *sync.Pool

	text, data []byte
	rows       []row
	ends       []rowEnds

	// of the row that is being scanned
	one                             row
	subject, key, headers, envelope column
	targets                         []any
}

// rowEnds are the ends of a row's columns: in text, and envelope in data. Each
// begins where the one before ends.
type rowEnds struct{ subject, key, headers, envelope int }

// column takes one column of a row after the other.
type column struct {
	to  *[]byte
	end int
}

// ScanBytes implements pgtype.BytesScanner.
func (c *column) ScanBytes(src []byte) error {
	*c.to = append(*c.to, src...)
	c.end = len(*c.to)
	return nil
}

// newPageBuffer expects a number of rows. It takes a buffer from a pool, where
// free puts it back.
func newPageBuffer(pool *sync.Pool, rows int) *pageBuffer {
	b, used := pool.Get().(*pageBuffer)
	if !used {
		b = &pageBuffer{pool: pool}
		b.subject.to, b.key.to, b.headers.to, b.envelope.to = &b.text, &b.text, &b.text, &b.data
		b.targets = []any{&b.one.seq, &b.one.id, &b.subject, &b.key, &b.headers, &b.envelope}
	}
	b.text, b.data, b.ends, b.rows = b.text[:0], b.data[:0], b.ends[:0], make([]row, 0, rows)
	return b
}

// free lets the buffer be used again. The envelopes of its rows are void then.
func (b *pageBuffer) free() {
	b.rows = nil
	b.pool.Put(b)
}

// add takes the row that is to be scanned: rowColumns.
func (b *pageBuffer) add(rows pgx.Rows) error {
	if err := rows.Scan(b.targets...); err != nil {
		return err
	}
	b.rows = append(b.rows, b.one)
	b.ends = append(b.ends, rowEnds{b.subject.end, b.key.end, b.headers.end, b.envelope.end})
	return nil
}

// size is the number of bytes so far.
func (b *pageBuffer) size() int { return len(b.text) + len(b.data) }

// take returns the rows.
func (b *pageBuffer) take() []row {
	text := string(b.text)
	var before rowEnds
	for i, end := range b.ends {
		r := &b.rows[i]
		r.subject, r.key, r.headers = text[before.headers:end.subject], text[end.subject:end.key], text[end.key:end.headers]
		r.envelope = b.data[before.envelope:end.envelope:end.envelope]
		before = end
	}
	return b.rows
}
