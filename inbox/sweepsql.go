package inbox

import (
	"strconv"
	"strings"
)

// sweepStatements are what a Janitor sends.
type sweepStatements struct {
	acquire, renew, release string
	look                    string
	stale                   [2]staleStatements              // of tables beside the partitions
	of                      [allBuckets]partitionStatements // by bucket
}

// partitionStatements are those about one partition.
type partitionStatements struct{ partition, empty, read, delete string }

// staleStatements are those about a table whose rows go by when they were last
// touched.
type staleStatements struct{ table, size, delete string }

func newSweepStatements(schema string) (all sweepStatements) {
	fill := strings.NewReplacer("{{schema}}", schema).Replace
	all.acquire, all.renew, all.release = fill(acquireText), fill(renewText), fill(releaseText)
	looks := make([]string, allBuckets)
	for bucket := range all.of {
		name := partition(schema, bucket)
		fill := strings.NewReplacer("{{partition}}", name, "{{bucket}}", strconv.Itoa(bucket)).Replace
		looks[bucket] = fill(lookText)
		all.of[bucket] = partitionStatements{
			partition: name, empty: fill(emptyText), read: fill(readText), delete: fill(deleteText),
		}
	}
	for i, name := range []string{attempts: "inbox_attempts", versions: "inbox_versions"} {
		fill := strings.NewReplacer("{{table}}", schema+"."+name).Replace
		all.stale[i] = staleStatements{table: schema + "." + name, size: fill(sizeText), delete: fill(staleText)}
	}
	all.look = strings.Join(looks, "union all")
	return all
}

const (
	// acquireText takes the lease from nobody, from one who let it expire, or from
	// ourselves, unless a pass ended less than $3 ago.
	acquireText = `
insert into {{schema}}.inbox_janitor as j (holder, expires_at)
values ($1, clock_timestamp() + $2::interval)
on conflict (singleton) do update set holder = excluded.holder, expires_at = excluded.expires_at
 where (j.holder = excluded.holder or j.expires_at <= clock_timestamp())
   and (j.swept_at is null or j.swept_at <= clock_timestamp() - $3::interval)`

	renewText = `
update {{schema}}.inbox_janitor set expires_at = clock_timestamp() + $2::interval
 where holder = $1`

	// releaseText lets the lease expire now. $2 says that the pass was complete.
	releaseText = `
update {{schema}}.inbox_janitor
   set expires_at = clock_timestamp(), swept_at = case when $2 then clock_timestamp() else swept_at end
 where holder = $1`

	lookText = `
select statement_timestamp(), {{bucket}},
       (select min(handled_at) from {{partition}}), (select max(handled_at) from {{partition}})
`

	// emptyText truncates a partition unless something in it was handled since
	// {{cutoff}}, and tells whether it is empty now. It is one message and so one
	// transaction, in which the server waits for nobody on this side: a process
	// that dies or hangs meanwhile keeps no lock.
	//
	// Whoever writes to the partition queues behind the lock that is waited for,
	// so that is given up soon. What is asked under it is the newest row and not
	// whether there is a young one: without statistics the planner would guess
	// that a third of the rows are young, and look for one from the front.
	emptyText = `
set transaction isolation level read committed;
set local lock_timeout = '20ms';
set local statement_timeout = '10s';
lock table {{partition}} in access exclusive mode;
do $$ begin
	if (select max(handled_at) from {{partition}}) < '{{cutoff}}' then
		truncate {{partition}};
	end if;
end $$;
select max(handled_at) is null from {{partition}}`

	// sizeText counts the blocks of a table, without reading it.
	sizeText = `select pg_relation_size('{{table}}') / current_setting('block_size')::int`

	// staleText deletes from a range of blocks what nobody touched since $3.
	staleText = `delete from {{table}} where ctid >= $1::text::tid and ctid < $2::text::tid and last_at < $3`

	// pinToBlocks makes staleText read its range alone.
	pinToBlocks = `set local enable_seqscan = off`

	// readText walks the index on handled_at; the rest of the key decides among
	// rows of one moment.
	readText = `
select ctid::text, consumer, source, message_id, handled_at, letter_id
  from {{partition}}
 where handled_at < $1 and (handled_at, consumer, source, message_id) > ($2, $3, $4, $5)
 order by handled_at, consumer, source, message_id
 limit $6`

	deleteText = `
delete from {{partition}} where ctid = any($1::text[]::tid[]) and handled_at < $2`

	// pinToOrder makes readText walk the index. Without statistics all rows that
	// follow look few enough to read and sort them for each batch.
	pinToOrder = `set local enable_bitmapscan = off`

	// pinToPlaces makes deleteText go straight to the rows. A thousand places look
	// dearer than a walk through a table of a few pages, or through the index,
	// which would be made for each batch.
	pinToPlaces = `select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_indexscan', 'off', true)`
)
