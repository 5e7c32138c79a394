package outbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/outbox"
)

// The sizes of the tests of plans. A statement may touch a few times planLimit
// rows of each stream that it asks for; the table has many times more.
const (
	planLimit = 50
	planLate  = 50 // transactions of one row per stream that the base "late" calls open
	planChunk = 50 // rows of each transaction of the load
)

// planTable is a table of events as the planner comes to know it.
type planTable struct {
	streams int
	rows    int
	before  string // what happens to it before the rows come
	after   string // and after, at once
}

// planTables are what autovacuum may leave behind. The third was found by
// search: its statistics say that no two rows are of one stream, and it has the
// size at which the index by xid is one level higher than the primary key, so
// that the planner prefers the latter by the cost of one comparison.
var planTables = map[string]planTable{
	"never analyzed":               {streams: 8, rows: 60_000},
	"analyzed when it was empty":   {streams: 8, rows: 60_000, before: "analyze messaging.outbox_events"},
	"analyzed when it had one row": {streams: 1, rows: 36_000, before: planRow + "; analyze messaging.outbox_events"},
	"emptied and vacuumed": {streams: 8, rows: 60_000, before: planRow + " from generate_series(1, 5000);" +
		"delete from messaging.outbox_events; vacuum (truncate off, analyze) messaging.outbox_events"},
	"analyzed": {streams: 8, rows: 60_000, after: "analyze"},
}

const planRow = `insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
select 'DV_S1_EVT', gen_random_uuid(), 'dv.maskin.evt.server.counted', 'key-1', '', '{}'`

// planCursor is where the cursors of all streams are.
type planCursor struct {
	base     string  // a mark: start, middle, late, end or now
	target   string  // a mark, or "" outside a walk
	position float64 // of the walk, as a share of the numbers
}

// planCase is a statement in a situation, and how much of the table it may touch.
type planCase struct {
	statement string
	cursor    planCursor
	arguments string // of EXECUTE; $streams are all, $stream is the first
	perStream int    // rows of the table that each stream may cost
	streams   bool   // all streams are asked for, not one
	ranges    int    // of an index that each stream may be searched for
}

func planCases() map[string]planCase {
	cases := map[string]planCase{
		"adopt":      {"adopt", planCursor{base: "end"}, "", 2, true, 2},
		"check":      {"check", planCursor{base: "end"}, "('h', 1)", 0, true, 2},
		"commitBase": {"commitBase", planCursor{base: "end"}, "('h', 1, $stream, pg_current_snapshot(), 1, null, true, 1, 1)", 0, false, 1},
		"beginWalk":  {"beginWalk", planCursor{base: "end"}, "('h', 1, $stream, 1)", 0, false, 1},
		"commitPage": {"commitPage", planCursor{"start", "end", 0.5}, "('h', 1, $stream, 1, 1, null, true, 1)", 0, false, 1},
		"endWalk":    {"endWalk", planCursor{"start", "end", 0.9}, "('h', 1, $stream, 1)", 0, false, 1},
		// 51 rows to be counted, and one of each other stream.
		"rest": {"rest", planCursor{base: "end"}, "(50, 50, 50)", 51 + 8, true, 3 + 8},
		"held page": {"held page", planCursor{base: "end"},
			"($stream, 'key-1', 20000, 20200, 50)", 200, false, 4},
	}
	for name, base := range map[string]string{"idle": "now", "few": "end", "backlog": "start", "half": "middle", "late": "late"} {
		cursor := planCursor{base: base}
		cases["observe, "+name] = planCase{"observe", cursor, "", 1 + planLate, true, 3 + planLate}
		cases["glance, "+name] = planCase{"glance", cursor, "($streams)", 1 + planLate, true, 3 + planLate}
		cases["poll, "+name] = planCase{"poll", cursor, "($streams, 50)", planLimit + planLate, true, 3 + planLate}
		cases["status, "+name] = planCase{"status", cursor, "(50)", planLimit + planLate + 1, true, 4 + planLate}
	}
	for name, base := range map[string]string{"all": "start", "half": "middle", "late": "late"} {
		for at, position := range map[string]float64{"first": 0, "middle": 0.7, "far": 0.9995} {
			cursor := planCursor{base, "end", position}
			cases[fmt.Sprintf("page, %s, %s", name, at)] = planCase{"page", cursor, "($stream, 50, 0)", planLimit + planLate + 2, false, 4 + planLate}
			cases[fmt.Sprintf("status, walk of %s, %s", name, at)] = planCase{"status", cursor, "(50)", 2 * (planLimit + planLate), true, 6 + planLate}
			cases[fmt.Sprintf("poll, walk of %s, %s", name, at)] = planCase{"poll", cursor, "($streams, 50)", 0, true, 3}
		}
	}
	return cases
}

// What the relay reads costs what is new, however many rows are retained, and
// whatever the planner believes of them: it reads ranges of an index in order,
// never the table, and sorts no more than a page. It was not so with "order by
// seq limit n" alone, which reads the primary key from its start; without pinned
// plans, when a bitmap of all that is new was made and sorted; and with one
// collation for both indexes, when the wrong one was taken for the right one.
func TestReadingCostsWhatIsNewWhateverTheStatisticsSay(t *testing.T) {
	t.Parallel()
	for name, table := range planTables {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := preparePlans(t, table)
			for name, c := range planCases() {
				for _, mode := range b.modes(c) {
					b.check(t, name+", "+mode.name, mode, c)
				}
			}
		})
	}
}

// The count walks ranges, for the same reason; it must come to what the
// definition says, which looks at every row.
func TestStatusCountsExactlyWhatIsNotPublished(t *testing.T) {
	t.Parallel()
	b := preparePlans(t, planTable{streams: 3, rows: 3000})
	execute(t, b.open, "commit") // later than all marks, with lower numbers than all else
	for name, c := range planCases() {
		if c.statement != "status" {
			continue
		}
		execute(t, b.pool, c.cursor.sql())
		want := map[string]int64{}
		rows, _ := b.pool.Query(t.Context(), `
select s.stream, count(*) from messaging.outbox_state s join messaging.outbox_events e using (stream)
 where not pg_visible_in_snapshot(e.xid, s.base)
   and (s.target is null or e.seq > s.position or not pg_visible_in_snapshot(e.xid, s.target))
 group by s.stream`)
		var stream string
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&stream, &n}, func() error { want[stream] = n; return nil })
		require.NoError(t, err)
		st, err := outbox.ReadStatus(t.Context(), b.pool, "")
		require.NoError(t, err)
		require.Len(t, st.Streams, 3)
		for _, s := range st.Streams {
			require.Equal(t, want[s.Stream], s.Unpublished, name)
		}
	}
}

// plans is a loaded table and connections that know the statements.
type plans struct {
	table  planTable
	pool   *pgxpool.Pool
	open   *pgx.Conn // in a transaction that has written, and is in every snapshot
	kept   *pgx.Conn // has kept the plans it made when there were no rows
	fresh  *pgx.Conn
	wanted map[string]outbox.Statement
}

// planMode is how the server comes by a plan.
type planMode struct {
	name string
	conn *pgx.Conn
	sql  string
}

func preparePlans(t *testing.T, table planTable) *plans {
	b := &plans{table: table, pool: dvtest.Postgres(t), wanted: outbox.Statements("messaging")}
	execute(t, b.pool, "create table mark (name text primary key, snapshot pg_snapshot, seq bigint)")
	execute(t, b.pool, "alter table messaging.outbox_events set (autovacuum_enabled = off)")
	execute(t, b.pool, "insert into messaging.outbox_lease (holder, term, expires_at) values ('h', 1, now() + interval '1 day')")
	execute(t, b.pool, "insert into messaging.outbox_alive (term) values (1)")
	execute(t, b.pool, "insert into messaging.outbox_state (stream) select 'DV_S' || n || '_EVT' from generate_series(1, $1::int) n", table.streams)
	for statement := range strings.SplitSeq(table.before, ";") {
		execute(t, b.pool, statement)
	}
	b.open = connect(t, b.pool)
	execute(t, b.open, "begin")
	execute(t, b.open, "insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope) "+
		"select stream, gen_random_uuid(), '', '', '', '' from messaging.outbox_state")
	b.kept, b.fresh = b.prepared(t), b.prepared(t)
	execute(t, b.pool, "insert into mark select name, '1:1:', 0 from unnest(array['start', 'middle', 'late', 'end', 'now']) name")
	for _, c := range planCases() {
		b.explain(t, planMode{conn: b.kept, sql: "set local plan_cache_mode = force_generic_plan"}, c)
	}
	execute(t, b.pool, "truncate mark")
	b.load(t)
	execute(t, b.pool, table.after)
	return b
}

// prepared returns a connection on which every statement is prepared.
func (b *plans) prepared(t *testing.T) *pgx.Conn {
	conn := connect(t, b.pool)
	for name, s := range b.wanted {
		execute(t, conn, fmt.Sprintf("prepare %q as %s", name, s.SQL))
	}
	return conn
}

// load fills the table and notes snapshots on the way, with the number that the
// sequence had come to.
func (b *plans) load(t *testing.T) {
	execute(t, b.pool, fmt.Sprintf(`
do $$
declare late pg_snapshot[]; opened text[]; chunks int := %d / %d;
begin
  insert into mark values ('start', '1:1:', 0);
  for chunk in 1..chunks loop
    insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
    select 'DV_S' || 1 + g %% %[3]d || '_EVT', gen_random_uuid(), 'dv.maskin.evt.server.counted', 'key-' || g %% 10, '', '{}'
      from generate_series(1, %[2]d) g;
    commit;
    for i in 1..case when chunk = chunks * 4 / 10 then %[4]d else 0 end loop
      insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
      select stream, gen_random_uuid(), 'dv.maskin.evt.server.counted', 'key-1', '', '{}' from messaging.outbox_state;
      opened := opened || pg_current_xact_id()::text;
      commit;
    end loop;
    if chunk = chunks / 2 then
      insert into mark select 'middle', pg_current_snapshot(), last_value from messaging.outbox_events_seq_seq;
      insert into mark
      select 'late', (pg_snapshot_xmin(m.snapshot) || ':' || pg_snapshot_xmax(m.snapshot) || ':' ||
                      (select string_agg(x, ',' order by x::bigint)
                         from (select x::text from pg_snapshot_xip(m.snapshot) x union select unnest(opened)) o))::pg_snapshot, m.seq
        from mark m where m.name = 'middle';
      commit;
    end if;
  end loop;
  insert into mark select 'end', pg_current_snapshot(), last_value from messaging.outbox_events_seq_seq;
  commit;
  insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
  select stream, gen_random_uuid(), 'dv.maskin.evt.server.counted', 'key-1', '', '{}' from messaging.outbox_state, generate_series(1, 5);
  commit;
  insert into mark select 'now', pg_current_snapshot(), last_value from messaging.outbox_events_seq_seq;
end $$`, b.table.rows, planChunk, b.table.streams, planLate))
}

// modes are the ways to a plan that a statement can meet. One that is not pinned
// is planned each time, as the relay sends it; a move touches one row.
func (b *plans) modes(c planCase) []planMode {
	custom := planMode{"custom plan", b.fresh, "set local plan_cache_mode = force_custom_plan"}
	if c.statement == "glance" || c.statement == "observe" {
		return []planMode{custom}
	}
	generic := "set local plan_cache_mode = force_generic_plan"
	return []planMode{custom, {"generic plan", b.fresh, generic}, {"plan kept since the table was empty", b.kept, generic}}
}

// explain runs a case and returns the plan it ran with.
func (b *plans) explain(t *testing.T, mode planMode, c planCase) explained {
	t.Helper()
	streams := "array[" + b.stream(1)
	for i := 2; i <= b.table.streams; i++ {
		streams += ", " + b.stream(i)
	}
	sql := strings.NewReplacer("$streams", streams+"]", "$stream", b.stream(1)).Replace(c.arguments)
	execute(t, mode.conn, "begin")
	defer execute(t, mode.conn, "rollback")
	execute(t, mode.conn, c.cursor.sql())
	if s := b.wanted[c.statement]; s.Pinned {
		execute(t, mode.conn, outbox.PinPlan)
		execute(t, mode.conn, "set local jit_above_cost = 0")
	}
	execute(t, mode.conn, mode.sql)
	var text []byte
	err := mode.conn.QueryRow(t.Context(), fmt.Sprintf("explain (analyze, buffers, format json) execute %q%s", c.statement, sql),
		pgx.QueryExecModeSimpleProtocol).Scan(&text)
	require.NoError(t, err, "%s%s", c.statement, sql)
	var plans []explained
	require.NoError(t, json.Unmarshal(text, &plans))
	return plans[0]
}

func (b *plans) stream(n int) string { return fmt.Sprintf("'DV_S%d_EVT'", n) }

// sql moves all cursors.
func (c planCursor) sql() string {
	at := `select snapshot, seq from mark where name = `
	sql := "update messaging.outbox_state set (base, floor) = (" + at + "'" + c.base + "')"
	if c.target == "" {
		sql += ", target = null, ceiling = null, position = null"
	} else {
		sql += fmt.Sprintf(", (target, ceiling) = (%s'%s'), position = (select %g * seq from mark where name = '%[2]s')", at, c.target, c.position)
	}
	return sql
}

// explained is what EXPLAIN tells.
type explained struct {
	Plan node
	JIT  any // what compiling took; absent without
}

type node struct {
	Type     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"`
	Loops    float64 `json:"Actual Loops"`
	Filtered float64 `json:"Rows Removed by Filter"`
	Hit      int     `json:"Shared Hit Blocks"`
	Read     int     `json:"Shared Read Blocks"`
	Plans    []node
}

func (n node) each(visit func(node)) {
	visit(n)
	for _, p := range n.Plans {
		p.each(visit)
	}
}

// check fails if a case touches more than it may, or in another way.
func (b *plans) check(t *testing.T, name string, mode planMode, c planCase) {
	t.Helper()
	e := b.explain(t, mode, c)
	streams := 1
	if c.streams {
		streams = b.table.streams
	}
	rows := 0.0
	e.Plan.each(func(n node) {
		if n.Type == "Seq Scan" && b.wanted[c.statement].Pinned {
			require.NotContains(t, []string{"outbox_parked", "outbox_discarded"}, n.Relation, name)
		}
		switch {
		case n.Relation == "outbox_events", strings.HasPrefix(n.Index, "outbox_events"):
			require.Contains(t, []string{"Index Scan", "Index Only Scan"}, n.Type, name)
			rows += (n.Rows + n.Filtered) * n.Loops
		case n.Type == "Sort":
			require.LessOrEqual(t, n.Plans[0].Rows*n.Plans[0].Loops, float64(2*planLimit+planLate), "%s: rows sorted", name)
		}
	})
	require.LessOrEqual(t, rows, float64(streams*c.perStream), "%s: rows touched", name)
	// A range is found by way of three pages or four; each row can cost a page.
	require.LessOrEqual(t, e.Plan.Hit+e.Plan.Read, 50+streams*(5*c.ranges+2*c.perStream), "%s: pages touched", name)
	require.Nil(t, e.JIT, "%s: compiled", name)
}

// connect opens a connection of its own, that ends with the test.
func connect(t *testing.T, pool *pgxpool.Pool) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), pool.Config().ConnConfig)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
	execute(t, conn, "set jit = on")
	return conn
}

func execute(t testing.TB, on interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, sql string, args ...any) {
	t.Helper()
	_, err := on.Exec(t.Context(), sql, args...)
	require.NoError(t, err, sql)
}
