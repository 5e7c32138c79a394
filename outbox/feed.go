package outbox

import "context"

// page is a part of what is to be published.
type page struct {
	rows    []row  // in seq order
	through int64  // where the next page begins
	last    bool   // nothing follows
	free    func() // gives the memory of the rows back; nil if there is nothing to give
}

// readResult is a page, or why there is none.
type readResult struct {
	page
	err error
}

// feed reads pages from a position on.
type feed struct {
	from int64
	read func(ctx context.Context, after int64) (page, error)
}

// pages reads one page more than its receiver has taken. The channel is closed
// after the last page, an error or the end of ctx.
func (f feed) pages(ctx context.Context) <-chan readResult {
	pages := make(chan readResult)
	go func() {
		defer close(pages)
		for after := f.from; ; {
			p, err := f.read(ctx, after)
			if after = p.through; err == nil && !p.last && len(p.rows) == 0 {
				continue
			}
			select {
			case pages <- readResult{p, err}:
			case <-ctx.Done():
				return
			}
			if err != nil || p.last {
				return
			}
		}
	}()
	return pages
}

// whole is the feed of rows that are there already.
func whole(rows []row) feed {
	return feed{read: func(context.Context, int64) (page, error) {
		return page{rows: rows, last: true}, nil
	}}
}
