package topology

import (
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/subject"
)

type streamConfig = jetstream.StreamConfig

const (
	recreateStream = "no update can: let its consumers finish, delete the stream and let Ensure create it anew"
	removeByHand   = "another setting feeds on it: decide by hand, with nats stream edit"
)

// streamFields are all settings of a stream that the contract covers. Of those
// that nats.go knows, these are left out because the platform works whatever
// they are: description, metadata, placement, compression, first_seq and
// template_owner.
func streamFields(class Class) []field[streamConfig] {
	return slices.Concat(declaredFields(class), []field[streamConfig]{sourcesField(class)}, policyFields(), absentFields())
}

// declaredFields are those that a Stream declares.
func declaredFields(class Class) []field[streamConfig] {
	return []field[streamConfig]{
		{
			name:  "subjects",
			show:  func(c streamConfig) string { return showList(c.Subjects) },
			fits:  func(want, got streamConfig) bool { return holdsAll(got.Subjects, want.Subjects) },
			loses: func(from, to streamConfig) bool { return !holdsAll(to.Subjects, from.Subjects) },
		},
		{
			// Exactly: longer is no superset, since the inbox horizon and the
			// legal reasons for an age count on it.
			name:  "max_age",
			show:  func(c streamConfig) string { return showAge(c.MaxAge) },
			loses: func(from, to streamConfig) bool { return !atLeast(from.MaxAge, to.MaxAge) },
		},
		{
			name: "max_bytes",
			show: func(c streamConfig) string { return showLimit(c.MaxBytes) },
			// No limit does not fit: then the disk is the limit, of everybody.
			fits:  func(want, got streamConfig) bool { return got.MaxBytes > 0 && got.MaxBytes >= want.MaxBytes },
			loses: func(from, to streamConfig) bool { return !atLeast(from.MaxBytes, to.MaxBytes) },
		},
		{
			name:  "max_msgs",
			show:  func(c streamConfig) string { return showLimit(c.MaxMsgs) },
			fits:  func(want, got streamConfig) bool { return atLeast(want.MaxMsgs, got.MaxMsgs) },
			loses: func(from, to streamConfig) bool { return !atLeast(from.MaxMsgs, to.MaxMsgs) },
		},
		{
			name: "max_msg_size",
			show: func(c streamConfig) string { return showLimit(c.MaxMsgSize) },
			fits: func(want, got streamConfig) bool { return atLeast(want.MaxMsgSize, got.MaxMsgSize) },
		},
		{
			name:  "num_replicas",
			show:  func(c streamConfig) string { return showLimit(c.Replicas) },
			fits:  func(want, got streamConfig) bool { return got.Replicas >= want.Replicas },
			loses: func(from, to streamConfig) bool { return to.Replicas < from.Replicas },
		},
		{
			name: "duplicate_window",
			show: func(c streamConfig) string { return c.Duplicates.String() },
		},
		denial("deny_delete", class, func(c streamConfig) bool { return c.DenyDelete }),
		denial("deny_purge", class, func(c streamConfig) bool { return c.DenyPurge }),
	}
}

// denial is a setting that can be turned on and never off again. On is more
// than was declared, except for dead letters, which an operator removes.
func denial(name string, class Class, is func(streamConfig) bool) field[streamConfig] {
	f := field[streamConfig]{
		name:  name,
		show:  func(c streamConfig) string { return showBool(is(c)) },
		fits:  func(want, got streamConfig) bool { return is(got) == is(want) || is(got) && !class.dead() },
		loses: func(_, to streamConfig) bool { return is(to) },
	}
	return f
}

// policyFields are the same for all streams.
func policyFields() []field[streamConfig] {
	return []field[streamConfig]{
		{name: "retention", fixed: recreateStream, show: func(c streamConfig) string { return c.Retention.String() }},
		{name: "storage", fixed: recreateStream, show: func(c streamConfig) string { return c.Storage.String() }},
		{name: "persist_mode", fixed: recreateStream, show: func(c streamConfig) string { return c.PersistMode.String() }},
		{name: "discard", show: func(c streamConfig) string { return c.Discard.String() }},
		{name: "discard_new_per_subject", show: func(c streamConfig) string { return showBool(c.DiscardNewPerSubject) }},
		{name: "max_msgs_per_subject", show: func(c streamConfig) string { return showLimit(c.MaxMsgsPerSubject) }},
		{name: "max_consumers", show: func(c streamConfig) string { return showLimit(c.MaxConsumers) }},
		{name: "no_ack", show: func(c streamConfig) string { return showBool(c.NoAck) }},
		{name: "allow_direct", show: func(c streamConfig) string { return showBool(c.AllowDirect) }},
		{name: "mirror_direct", show: func(c streamConfig) string { return showBool(c.MirrorDirect) }},
	}
}

// absentFields are never used, each for a reason: they bring messages from
// elsewhere or send them elsewhere, change or remove them, or acknowledge what
// is not stored.
func absentFields() []field[streamConfig] {
	return []field[streamConfig]{
		{name: "mirror", fixed: removeByHand, show: func(c streamConfig) string { return showSet(c.Mirror != nil) }},
		{name: "subject_transform", show: func(c streamConfig) string { return showSet(c.SubjectTransform != nil) }},
		{name: "republish", show: func(c streamConfig) string { return showSet(c.RePublish != nil) }},
		{name: "sealed", fixed: recreateStream, show: func(c streamConfig) string { return showBool(c.Sealed) }},
		{name: "allow_rollup_hdrs", show: func(c streamConfig) string { return showBool(c.AllowRollup) }},
		{name: "allow_msg_ttl", fixed: recreateStream, show: func(c streamConfig) string { return showBool(c.AllowMsgTTL) }},
		{name: "subject_delete_marker_ttl", show: func(c streamConfig) string { return showSet(c.SubjectDeleteMarkerTTL != 0) }},
		{name: "allow_msg_counter", fixed: recreateStream, show: func(c streamConfig) string { return showBool(c.AllowMsgCounter) }},
		{name: "allow_msg_schedules", fixed: recreateStream, show: func(c streamConfig) string { return showBool(c.AllowMsgSchedules) }},
		{name: "allow_atomic", show: func(c streamConfig) string { return showBool(c.AllowAtomicPublish) }},
		{name: "allow_batched", show: func(c streamConfig) string { return showBool(c.AllowBatchPublish) }},
		{name: "consumer_limits", show: func(c streamConfig) string { return showSet(c.ConsumerLimits != jetstream.StreamConsumerLimits{}) }},
	}
}

// holdsAll reports whether each of the wanted filters is covered by one of got.
func holdsAll(got, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(want string) bool {
		return !slices.ContainsFunc(got, func(have string) bool { return covers(have, want) })
	})
}

// covers compares filters as the server gives them, which need not be ours.
func covers(have, want string) bool {
	if have == want || have == ">" {
		return true
	}
	h, err := subject.ParseFilter(have)
	w, werr := subject.ParseFilter(want)
	return err == nil && werr == nil && h.Covers(w)
}
