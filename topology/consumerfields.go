package topology

import (
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

type consumerConfig = jetstream.ConsumerConfig

const recreateConsumer = "no update can: read its position, delete the durable, and declare that position as its Start"

// consumerFields are all settings of a durable that the contract covers. Left
// out are description and metadata, and pause_until, which is an operator's
// action and no drift.
func consumerFields() []field[consumerConfig] {
	return append(consumerDeclared(), consumerAbsent()...)
}

func consumerDeclared() []field[consumerConfig] {
	return []field[consumerConfig]{
		{name: "durable_name", fixed: recreateConsumer, show: func(c consumerConfig) string { return c.Durable }},
		{
			name:  "filter_subject",
			also:  []string{"filter_subjects"},
			show:  func(c consumerConfig) string { return showFilter(c) },
			loses: func(from, to consumerConfig) bool { return !holdsAll(filtersOf(to), filtersOf(from)) },
		},
		{name: "ack_policy", fixed: recreateConsumer, show: func(c consumerConfig) string { return c.AckPolicy.String() }},
		{name: "ack_wait", show: func(c consumerConfig) string { return c.AckWait.String() }},
		{name: "max_ack_pending", show: func(c consumerConfig) string { return showLimit(c.MaxAckPending) }},
		{name: "max_deliver", show: func(c consumerConfig) string { return showLimit(c.MaxDeliver) }},
		{name: "deliver_policy", fixed: recreateConsumer, show: func(c consumerConfig) string { return c.DeliverPolicy.String() }},
		{name: "opt_start_seq", fixed: recreateConsumer, show: func(c consumerConfig) string { return showStartSeq(c) }},
		{name: "opt_start_time", fixed: recreateConsumer, show: func(c consumerConfig) string { return showStartTime(c) }},
		{name: "replay_policy", fixed: recreateConsumer, show: func(c consumerConfig) string { return c.ReplayPolicy.String() }},
		{name: "max_waiting", fixed: recreateConsumer, show: func(c consumerConfig) string { return showLimit(c.MaxWaiting) }},
	}
}

// consumerAbsent are settings that the platform leaves off.
func consumerAbsent() []field[consumerConfig] {
	return []field[consumerConfig]{
		{name: "deliver_subject", fixed: recreateConsumer, show: func(c consumerConfig) string { return showSet(c.DeliverSubject != "") }},
		{name: "deliver_group", fixed: recreateConsumer, show: func(c consumerConfig) string { return showSet(c.DeliverGroup != "") }},
		{name: "flow_control", fixed: recreateConsumer, show: func(c consumerConfig) string { return showBool(c.FlowControl) }},
		{name: "idle_heartbeat", fixed: recreateConsumer, show: func(c consumerConfig) string { return showSet(c.IdleHeartbeat != 0) }},
		{name: "mem_storage", fixed: recreateConsumer, show: func(c consumerConfig) string { return showBool(c.MemoryStorage) }},
		{name: "backoff", show: func(c consumerConfig) string { return showSet(len(c.BackOff) > 0) }},
		{name: "num_replicas", show: func(c consumerConfig) string { return showInherited(c.Replicas) }},
		{name: "inactive_threshold", show: func(c consumerConfig) string { return showSet(c.InactiveThreshold != 0) }},
		{name: "headers_only", show: func(c consumerConfig) string { return showBool(c.HeadersOnly) }},
		{name: "rate_limit_bps", show: func(c consumerConfig) string { return showLimit(c.RateLimit) }},
		{name: "sample_freq", show: func(c consumerConfig) string { return showSet(c.SampleFrequency != "") }},
		{name: "max_batch", show: func(c consumerConfig) string { return showLimit(c.MaxRequestBatch) }},
		{name: "max_expires", show: func(c consumerConfig) string { return showAge(c.MaxRequestExpires) }},
		{name: "max_bytes", show: func(c consumerConfig) string { return showLimit(c.MaxRequestMaxBytes) }},
		{name: "priority_policy", also: []string{"priority_groups", "priority_timeout"}, show: func(c consumerConfig) string { return showPriority(c) }},
	}
}

// filtersOf returns what a consumer asks for; nothing means everything.
func filtersOf(c consumerConfig) []string {
	switch {
	case len(c.FilterSubjects) > 0:
		return c.FilterSubjects
	case c.FilterSubject != "":
		return []string{c.FilterSubject}
	}
	return []string{">"}
}

func showFilter(c consumerConfig) string { return strings.Join(filtersOf(c), ", ") }

func showStartSeq(c consumerConfig) string {
	if c.OptStartSeq == 0 {
		return "none"
	}
	return showLimit(c.OptStartSeq)
}

func showStartTime(c consumerConfig) string {
	if c.OptStartTime == nil {
		return "none"
	}
	return c.OptStartTime.UTC().Format(time.RFC3339Nano)
}

// showInherited: a durable with fewer replicas than its stream is lost first.
func showInherited(replicas int) string {
	if replicas == 0 {
		return "those of the stream"
	}
	return showLimit(replicas)
}

func showPriority(c consumerConfig) string {
	return showSet(c.PriorityPolicy != jetstream.PriorityPolicyNone || len(c.PriorityGroups) > 0 || c.PinnedTTL != 0)
}
