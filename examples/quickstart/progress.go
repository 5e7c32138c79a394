package main

import (
	"context"
	"fmt"
)

// counts are how far the work is, as databases and streams say.
type counts struct {
	Requested int // requests that sentral has accepted or refused
	Stored    int // commands in the stream
	Handled   int // commands that maskin is done with
	Events    int // events in the stream
	Nodes     int // nodes that plattform has registered
	Kills     int
}

// String is the line that is shown.
func (c counts) String() string {
	return fmt.Sprintf("requested %d · commands stored %d · handled %d · events %d · nodes %d · kills %d",
		c.Requested, c.Stored, c.Handled, c.Events, c.Nodes, c.Kills)
}

// inboxCount counts what a service has handled or given up.
const inboxCount = `select count(*) from messaging.inbox_messages`

// sample looks at everything once.
func (s *supervisor) sample(ctx context.Context) (c counts, err error) {
	for _, look := range []struct {
		into       *int
		where, sql string
	}{
		{&c.Requested, "sentral", `select (select count(*) from requests) + (select count(*) from refusals)`},
		{&c.Handled, "maskin", inboxCount},
		{&c.Nodes, "plattform", `select count(*) from nodes`},
	} {
		if *look.into, err = s.count(ctx, look.where, look.sql); err != nil {
			return c, err
		}
	}
	if c.Stored, err = s.messages(ctx, maskinDurable.Stream.Name); err != nil {
		return c, err
	}
	c.Events, err = s.messages(ctx, plattformDurable.Stream.Name)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Kills = len(s.kills)
	return c, err
}

// count runs a query that yields one number.
func (s *supervisor) count(ctx context.Context, database, sql string, args ...any) (n int, err error) {
	err = s.infra.pools[database].QueryRow(ctx, sql, args...).Scan(&n)
	return n, err
}

// messages is how many messages a stream holds.
func (s *supervisor) messages(ctx context.Context, stream string) (int, error) {
	found, err := s.infra.js.Stream(ctx, stream)
	if err != nil {
		return 0, err
	}
	return int(found.CachedInfo().State.Msgs), nil
}
