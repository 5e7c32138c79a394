package topology_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// jsonKeys lists the keys of a configuration struct of the client.
func jsonKeys(v any) []string {
	var keys []string
	for f := range reflect.TypeOf(v).Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		keys = append(keys, key)
	}
	return keys
}

// A setting that a later client adds must be decided about, not overlooked:
// this test fails then.
func TestEverySettingOfTheClientIsUnderContractOrLeftOutOnPurpose(t *testing.T) {
	t.Parallel()
	streamLeftOut := []string{"name", "description", "placement", "compression", "first_seq", "metadata", "template_owner"}
	require.ElementsMatch(t, jsonKeys(jetstream.StreamConfig{}), append(topology.StreamFieldNames(), streamLeftOut...))
	consumerLeftOut := []string{"name", "description", "metadata", "pause_until"}
	require.ElementsMatch(t, jsonKeys(jetstream.ConsumerConfig{}), append(topology.ConsumerFieldNames(), consumerLeftOut...))
}

// streamCase is one setting that is not as declared.
type streamCase struct {
	field  string
	change func(*jetstream.StreamConfig)
	// unit: the server refuses to create it so, or not without more drift.
	unit bool
}

func streamCases() []streamCase {
	type cfg = jetstream.StreamConfig
	return []streamCase{
		{field: "subjects", change: func(c *cfg) { c.Subjects = []string{"dv.maskin.evt.server.*"} }},
		{field: "retention", change: func(c *cfg) { c.Retention = jetstream.InterestPolicy }},
		{field: "retention", change: func(c *cfg) { c.Retention = jetstream.WorkQueuePolicy }},
		{field: "max_consumers", change: func(c *cfg) { c.MaxConsumers = 10 }},
		{field: "max_msgs", change: func(c *cfg) { c.MaxMsgs = 1000 }},
		{field: "max_bytes", change: func(c *cfg) { c.MaxBytes = 1 << 20 }},
		{field: "max_bytes", change: func(c *cfg) { c.MaxBytes = -1 }},
		{field: "discard", change: func(c *cfg) { c.Discard = jetstream.DiscardOld }},
		{field: "max_age", change: func(c *cfg) { c.MaxAge = time.Hour }},
		{field: "max_age", change: func(c *cfg) { c.MaxAge *= 2 }},
		{field: "max_age", change: func(c *cfg) { c.MaxAge = 0 }},
		{field: "max_msgs_per_subject", change: func(c *cfg) { c.MaxMsgsPerSubject = 5 }},
		{field: "max_msg_size", change: func(c *cfg) { c.MaxMsgSize = 1 << 10 }},
		{field: "storage", change: func(c *cfg) { c.Storage = jetstream.MemoryStorage }},
		{field: "no_ack", change: func(c *cfg) { c.NoAck = true }},
		{field: "duplicate_window", change: func(c *cfg) { c.Duplicates = time.Minute }},
		{field: "duplicate_window", change: func(c *cfg) { c.Duplicates = time.Hour }},
		{field: "sources", change: func(c *cfg) { c.Sources = []*jetstream.StreamSource{{Name: "OTHER"}} }},
		{field: "allow_rollup_hdrs", change: func(c *cfg) { c.AllowRollup = true }},
		{field: "subject_transform", change: func(c *cfg) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "dv.maskin.evt.>", Destination: "x.>"}
		}},
		{field: "republish", change: func(c *cfg) { c.RePublish = &jetstream.RePublish{Source: ">", Destination: "copy.>"} }},
		{field: "allow_direct", change: func(c *cfg) { c.AllowDirect = true }},
		{field: "consumer_limits", change: func(c *cfg) { c.ConsumerLimits.MaxAckPending = 10 }},
		{field: "allow_msg_ttl", change: func(c *cfg) { c.AllowMsgTTL = true }},
		{field: "allow_atomic", change: func(c *cfg) { c.AllowAtomicPublish = true }},
		{field: "allow_batched", change: func(c *cfg) { c.AllowBatchPublish = true }},
		{field: "persist_mode", change: func(c *cfg) { c.PersistMode = jetstream.AsyncPersistMode }},

		{field: "num_replicas", unit: true, change: func(c *cfg) { c.Replicas = 0 }},
		{field: "deny_delete", unit: true, change: func(c *cfg) { c.DenyDelete = false }},
		{field: "deny_purge", unit: true, change: func(*cfg) {}}, // see TestDenials
		{field: "discard_new_per_subject", unit: true, change: func(c *cfg) { c.DiscardNewPerSubject = true }},
		{field: "mirror", unit: true, change: func(c *cfg) { c.Mirror = &jetstream.StreamSource{Name: "X"} }},
		{field: "mirror_direct", unit: true, change: func(c *cfg) { c.MirrorDirect = true }},
		{field: "sealed", unit: true, change: func(c *cfg) { c.Sealed = true }},
		{field: "subject_delete_marker_ttl", unit: true, change: func(c *cfg) { c.SubjectDeleteMarkerTTL = time.Hour }},
		{field: "allow_msg_counter", unit: true, change: func(c *cfg) { c.AllowMsgCounter = true }},
		{field: "allow_msg_schedules", unit: true, change: func(c *cfg) { c.AllowMsgSchedules = true }},
	}
}

func TestEveryDriftedStreamSettingIsReported(t *testing.T) {
	t.Parallel()
	var covered []string
	for _, c := range streamCases() {
		covered = append(covered, c.field)
		if c.unit && c.field != "deny_purge" {
			s := maskinEvents()
			s.DenyDelete = true
			got := s.Config()
			c.change(&got)
			require.Contains(t, drifted(joined(topology.StreamDrift(s, got))), c.field)
			continue
		}
		t.Run(c.field, func(t *testing.T) {
			t.Parallel()
			if c.unit {
				return
			}
			js := server(t)
			cfg := maskinEvents().Config()
			c.change(&cfg)
			_, err := js.CreateStream(t.Context(), cfg)
			require.NoError(t, err)
			err = topology.Verify(t.Context(), js, maskin())
			require.Equal(t, "stream DV_MASKIN_EVT", drifted(err)[c.field], "%v", err)
			require.Len(t, drifted(err), 1, "and nothing else: %v", err)
		})
	}
	for _, field := range topology.StreamFieldNames() {
		require.Contains(t, covered, field)
	}
}

// What nobody may remove must stay removable from dead letters.
func TestDenials(t *testing.T) {
	t.Parallel()
	events, letters := maskinEvents(), topology.DeadLetters(subject.Maskin, topology.Limits{})
	for _, s := range []topology.Stream{events, letters} {
		got := s.Config()
		got.DenyDelete, got.DenyPurge = true, true
		want := map[string]string{}
		if s.Class == topology.ClassDeadLetters {
			want = map[string]string{"deny_delete": "stream " + s.Name, "deny_purge": "stream " + s.Name}
		}
		require.Equal(t, want, drifted(joined(topology.StreamDrift(s, got))))
	}
}

func TestEveryDriftedConsumerSettingIsReported(t *testing.T) {
	t.Parallel()
	type cfg = jetstream.ConsumerConfig
	now := time.Now()
	cases := map[string]func(*cfg){
		"durable_name":       func(c *cfg) { c.Durable = "other" },
		"deliver_policy":     func(c *cfg) { c.DeliverPolicy = jetstream.DeliverLastPolicy },
		"opt_start_seq":      func(c *cfg) { c.OptStartSeq = 7 },
		"opt_start_time":     func(c *cfg) { c.OptStartTime = &now },
		"ack_policy":         func(c *cfg) { c.AckPolicy = jetstream.AckAllPolicy },
		"ack_wait":           func(c *cfg) { c.AckWait = time.Second },
		"max_deliver":        func(c *cfg) { c.MaxDeliver = 20 },
		"backoff":            func(c *cfg) { c.BackOff = []time.Duration{time.Second} },
		"filter_subject":     func(c *cfg) { c.FilterSubject = "dv.maskin.evt.server.>" },
		"filter_subjects":    func(c *cfg) { c.FilterSubjects = []string{"dv.maskin.evt.a.*", "dv.maskin.evt.b.*"} },
		"replay_policy":      func(c *cfg) { c.ReplayPolicy = jetstream.ReplayOriginalPolicy },
		"rate_limit_bps":     func(c *cfg) { c.RateLimit = 1000 },
		"sample_freq":        func(c *cfg) { c.SampleFrequency = "100" },
		"max_waiting":        func(c *cfg) { c.MaxWaiting = 1 },
		"max_ack_pending":    func(c *cfg) { c.MaxAckPending = 1000 },
		"headers_only":       func(c *cfg) { c.HeadersOnly = true },
		"max_batch":          func(c *cfg) { c.MaxRequestBatch = 10 },
		"max_expires":        func(c *cfg) { c.MaxRequestExpires = time.Second },
		"max_bytes":          func(c *cfg) { c.MaxRequestMaxBytes = 1 << 10 },
		"inactive_threshold": func(c *cfg) { c.InactiveThreshold = time.Hour },
		"num_replicas":       func(c *cfg) { c.Replicas = 1 },
		"mem_storage":        func(c *cfg) { c.MemoryStorage = true },
		"priority_policy":    func(c *cfg) { c.PriorityPolicy = jetstream.PriorityPolicyPinned },
		"priority_groups":    func(c *cfg) { c.PriorityGroups = []string{"g"} },
		"priority_timeout":   func(c *cfg) { c.PinnedTTL = time.Second },
		"deliver_subject":    func(c *cfg) { c.DeliverSubject = "push.here" },
		"deliver_group":      func(c *cfg) { c.DeliverGroup = "g" },
		"flow_control":       func(c *cfg) { c.FlowControl = true },
		"idle_heartbeat":     func(c *cfg) { c.IdleHeartbeat = time.Second },
	}
	partOf := map[string]string{"filter_subjects": "filter_subject", "priority_groups": "priority_policy", "priority_timeout": "priority_policy"}
	c := plattform().Consumers[1]
	require.Empty(t, topology.ConsumerDrift(c, c.Config()))
	for _, name := range topology.ConsumerFieldNames() {
		change, ok := cases[name]
		require.True(t, ok, name)
		got := c.Config()
		change(&got)
		field := name
		if whole, ok := partOf[name]; ok {
			field = whole
		}
		require.Equal(t, map[string]string{field: "consumer DV_MASKIN_EVT/plattform__from_maskin"},
			drifted(joined(topology.ConsumerDrift(c, got))), name)
	}
}

// The same on a server, for one setting of each kind, and for a push consumer,
// which the client refuses to show.
func TestDriftedDurablesOnAServerAreReported(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*jetstream.ConsumerConfig){
		"ack_wait":        func(c *jetstream.ConsumerConfig) { c.AckWait = time.Second },
		"deliver_policy":  func(c *jetstream.ConsumerConfig) { c.DeliverPolicy = jetstream.DeliverAllPolicy },
		"max_deliver":     func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 },
		"filter_subject":  func(c *jetstream.ConsumerConfig) { c.FilterSubject = "" },
		"deliver_subject": func(c *jetstream.ConsumerConfig) { c.DeliverSubject, c.MaxWaiting = "push.here", 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := server(t, maskin())
			set := plattform()
			cfg := set.Consumers[1].Config()
			change(&cfg)
			var err error
			if cfg.DeliverSubject == "" {
				_, err = js.CreateConsumer(t.Context(), "DV_MASKIN_EVT", cfg)
			} else {
				_, err = js.CreatePushConsumer(t.Context(), "DV_MASKIN_EVT", cfg)
			}
			require.NoError(t, err)
			err = topology.Ensure(t.Context(), js, set)
			require.Equal(t, "consumer DV_MASKIN_EVT/plattform__from_maskin", drifted(err)[name], "%v", err)
		})
	}
}

func TestWhatIsMoreThanDeclaredIsNoDrift(t *testing.T) {
	t.Parallel()
	js := server(t)
	s := maskinEvents()
	s.MaxMsgs = 1000
	set := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{s}}
	cfg := s.Config()
	cfg.Subjects = append(cfg.Subjects, "dv.maskin.extra.>")
	cfg.MaxBytes *= 2
	cfg.MaxMsgs = -1
	cfg.MaxMsgSize = -1
	cfg.DenyDelete, cfg.DenyPurge = true, true
	cfg.Description = "made by hand"
	cfg.Metadata = map[string]string{"owner": "ola"}
	cfg.Compression = jetstream.S2Compression
	_, err := js.CreateStream(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, topology.Verify(t.Context(), js, set))
	require.NoError(t, topology.Ensure(t.Context(), js, set))
	require.Equal(t, -1, int(config(t, js, "DV_MASKIN_EVT").MaxMsgs), "and stays so")
}

func TestAWiderSubjectOnTheServerHoldsTheDeclaredOnes(t *testing.T) {
	t.Parallel()
	for subjects, fits := range map[string]bool{
		"dv.maskin.>": true, ">": true, "dv.*.evt.>": true, "dv.maskin.evt.>": true,
		"dv.maskin.evt.*": false, "dv.nett.evt.>": false, "": false,
	} {
		got := maskinEvents().Config()
		got.Subjects = []string{subjects}
		require.Equal(t, fits, len(topology.StreamDrift(maskinEvents(), got)) == 0, subjects)
	}
}

// An update replaces everything: what this client does not know must go back
// as it came.
func TestAnUpdateKeepsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	var current map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(`{"name":"X","max_age":1,"no_ack":true,"from_2030":{"a":[1]},"metadata":{"k":"v"}}`), &current))
	next, err := topology.Merged(current, jetstream.StreamConfig{MaxAge: 7, Name: "ignored"}, "max_age", "no_ack")
	require.NoError(t, err)
	text, err := json.Marshal(next)
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"X","max_age":7,"from_2030":{"a":[1]},"metadata":{"k":"v"}}`, string(text))
	require.JSONEq(t, `1`, string(current["max_age"]), "the input is left alone")
	_, err = topology.Merged(nil, jetstream.StreamConfig{}, "max_age")
	require.Error(t, err, "an empty answer must not become an empty configuration")
}

func TestWhatCannotBeChangedIsReportedWithAWayAround(t *testing.T) {
	t.Parallel()
	s := maskinEvents()
	got := s.Config()
	got.Storage, got.Retention, got.MaxAge = jetstream.MemoryStorage, jetstream.InterestPolicy, time.Hour
	list, errs := topology.StreamChanges(s, got)
	require.Len(t, list, 1)
	require.Equal(t, "stream DV_MASKIN_EVT: max_age from 1h0m0s to 168h0m0s", list[0].String())
	require.Len(t, errs, 2)
	impossible := asError[*topology.ImpossibleError](t, errs[0])
	require.Equal(t, "retention", impossible.Field)
	require.Contains(t, impossible.Error(), "from Interest to Limits")
	require.Contains(t, impossible.Remedy, "create it anew")

	c := plattform().Consumers[1]
	cfg := c.Config()
	cfg.DeliverPolicy = jetstream.DeliverAllPolicy
	_, errs = topology.ConsumerChanges(c, cfg)
	require.Len(t, errs, 1)
	require.ErrorContains(t, errs[0], "deliver_policy")
	require.ErrorContains(t, errs[0], "declare that position as its Start")
}

func TestWhichChangesAreDestructive(t *testing.T) {
	t.Parallel()
	type cfg = jetstream.StreamConfig
	for _, c := range []struct {
		name        string
		change      func(*cfg) // from the declaration to the server's
		destructive bool
	}{
		{"fewer subjects", func(c *cfg) { c.Subjects = append(c.Subjects, "dv.maskin.extra.>") }, true},
		{"more subjects", func(c *cfg) { c.Subjects = []string{"dv.maskin.evt.a.*"} }, false},
		{"smaller age", func(c *cfg) { c.MaxAge *= 2 }, true},
		{"an age at all", func(c *cfg) { c.MaxAge = 0 }, true},
		{"larger age", func(c *cfg) { c.MaxAge /= 2 }, false},
		{"smaller bytes", func(c *cfg) { c.MaxBytes++ }, true},
		{"bytes at all", func(c *cfg) { c.MaxBytes = -1 }, true},
		{"larger bytes", func(c *cfg) { c.MaxBytes-- }, false},
		{"no limit of messages", func(c *cfg) { c.MaxMsgs = 5 }, false},
		{"fewer replicas", func(c *cfg) { c.Replicas = 3 }, true},
		{"larger messages", func(c *cfg) { c.MaxMsgSize-- }, false},
		{"other duplicate window", func(c *cfg) { c.Duplicates *= 2 }, false},
		{"no direct reads", func(c *cfg) { c.AllowDirect = true }, false},
	} {
		got := maskinEvents().Config()
		c.change(&got)
		list, errs := topology.StreamChanges(maskinEvents(), got)
		require.Empty(t, errs, c.name)
		require.Len(t, list, 1, c.name)
		require.Equal(t, c.destructive, list[0].Destructive, c.name)
	}
	s := maskinEvents()
	s.DenyDelete = true
	list, _ := topology.StreamChanges(s, maskinEvents().Config())
	require.Len(t, list, 1)
	require.True(t, list[0].Destructive, "it cannot be undone")
	s = maskinEvents()
	s.MaxMsgs = 5
	list, _ = topology.StreamChanges(s, maskinEvents().Config())
	require.True(t, list[0].Destructive, "a limit where there was none")
}

func TestANarrowerFilterIsDestructive(t *testing.T) {
	t.Parallel()
	c := plattform().Consumers[1]
	for filter, destructive := range map[string]bool{
		"": true, "dv.maskin.>": true, "dv.nett.evt.>": true, "dv.maskin.evt.server.*": false,
	} {
		got := c.Config()
		got.FilterSubject = filter
		list, errs := topology.ConsumerChanges(c, got)
		require.Empty(t, errs)
		require.Len(t, list, 1)
		require.Equal(t, destructive, list[0].Destructive, filter)
	}
}

// joined is errors.Join for the helpers that take one error.
func joined(errs []error) error { return joinedErrors(slices.Clone(errs)) }

type joinedErrors []error

func (j joinedErrors) Error() string   { return "joined" }
func (j joinedErrors) Unwrap() []error { return j }
