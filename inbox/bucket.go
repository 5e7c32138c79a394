package inbox

import (
	"fmt"
	"time"
)

// Messages are kept in a ring of partitions. The bucket of a message follows from
// its id alone, so that all copies of a message meet in one partition, whatever
// time it is when they come. Migration 0008 makes the partitions and knows the
// same rule.
const (
	// ringSize is how many buckets there are for ids that begin with their time.
	ringSize = 16
	// bucketBits is how long a bucket is in use before the next one is, as a power
	// of two in milliseconds: 6.2 days. The ring comes round after 99 days.
	bucketBits = 29
	// otherBucket is that of ids which tell no time.
	otherBucket = ringSize
	// allBuckets counts both.
	allBuckets = ringSize + 1
)

// bucketOf returns the bucket of a message id. An id of version 7 begins with 48
// bits of milliseconds; the four from bucketBits on are the bucket.
func bucketOf(id [16]byte) int {
	if id[6]>>4 != 7 {
		return otherBucket
	}
	return int(id[1]&1)<<3 | int(id[2]>>5)
}

// bucketAt returns the bucket of the ids that are made at a moment.
func bucketAt(t time.Time) int { return int(t.UnixMilli()>>bucketBits) % ringSize }

// inUse tells whether the ids that are made now have the bucket, or will soon.
func inUse(bucket int, now time.Time) bool {
	at := bucketAt(now)
	return bucket == at || bucket == (at+1)%ringSize
}

// partition is the table of a bucket in a quoted schema.
func partition(schema string, bucket int) string {
	if bucket == otherBucket {
		return schema + ".inbox_messages_other"
	}
	return fmt.Sprintf("%s.inbox_messages_%02d", schema, bucket)
}
