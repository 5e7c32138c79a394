package topology_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func lines(changes []topology.Change) []string {
	var all []string
	for _, c := range changes {
		all = append(all, c.String())
	}
	return all
}

func TestPlanOnAnEmptyServerCreatesAndApplyDoesIt(t *testing.T) {
	t.Parallel()
	js := server(t, maskin())
	want := []string{
		"stream DV_PLATTFORM_CMD: create", "stream DV_PLATTFORM_EVT: create", "stream DV_PLATTFORM_DLQ: create", "stream DV_PLATTFORM_DLQOPS: create",
		"consumer DV_PLATTFORM_CMD/plattform__commands: create", "consumer DV_PLATTFORM_DLQOPS/plattform__commands__replay: create",
		"consumer DV_MASKIN_EVT/plattform__from_maskin: create", "consumer DV_PLATTFORM_DLQOPS/plattform__from_maskin__replay: create",
	}
	planned, err := topology.Plan(t.Context(), js, plattform())
	require.NoError(t, err)
	require.Equal(t, want, lines(planned))
	require.Equal(t, []string{"DV_MASKIN_EVT"}, streamNames(t, js), "a plan changes nothing")

	done, err := topology.Apply(t.Context(), js, plattform(), topology.ApplyOptions{})
	require.NoError(t, err)
	require.Equal(t, planned, done)
	require.NoError(t, topology.Verify(t.Context(), js, plattform()))
	planned, err = topology.Plan(t.Context(), js, plattform())
	require.NoError(t, err)
	require.Empty(t, planned)
}

func TestPlanNeedsTheForeignStream(t *testing.T) {
	t.Parallel()
	js := server(t)
	_, err := topology.Plan(t.Context(), js, plattform())
	require.Equal(t, []string{"stream DV_MASKIN_EVT"}, missing(err))
	done, err := topology.Apply(t.Context(), js, plattform(), topology.ApplyOptions{})
	require.Error(t, err)
	require.Empty(t, done)
	require.Empty(t, streamNames(t, js), "nothing was done")
}

func TestApplyChangesWhatDiffersAndKeepsTheRest(t *testing.T) {
	t.Parallel()
	js := server(t, maskin(), plattform())
	byHand := config(t, js, "DV_PLATTFORM_EVT")
	byHand.Description = "made by hand"
	byHand.Metadata = map[string]string{"owner": "ola"}
	byHand.Compression = jetstream.S2Compression
	byHand.AllowDirect = true
	_, err := js.UpdateStream(t.Context(), byHand)
	require.NoError(t, err)
	_, err = js.UpdateConsumer(t.Context(), "DV_MASKIN_EVT", jetstream.ConsumerConfig{
		Durable: "plattform__from_maskin", Description: "made by hand", AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverNewPolicy,
		MaxWaiting: 512, AckWait: time.Second, MaxAckPending: 16, MaxDeliver: 3,
		FilterSubjects: []string{"dv.maskin.evt.server.*", "dv.maskin.evt.rack.*"},
	})
	require.NoError(t, err)

	set := plattform()
	set.Streams[1].MaxAge *= 2
	done, err := topology.Apply(t.Context(), js, set, topology.ApplyOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{
		"stream DV_PLATTFORM_EVT: max_age from 168h0m0s to 336h0m0s",
		"stream DV_PLATTFORM_EVT: allow_direct from true to false",
		"consumer DV_MASKIN_EVT/plattform__from_maskin: filter_subject from dv.maskin.evt.server.*, dv.maskin.evt.rack.* to dv.maskin.evt.>",
		"consumer DV_MASKIN_EVT/plattform__from_maskin: ack_wait from 1s to 30s",
		"consumer DV_MASKIN_EVT/plattform__from_maskin: max_deliver from 3 to unlimited",
	}, lines(done))
	require.NoError(t, topology.Verify(t.Context(), js, set))
	after := config(t, js, "DV_PLATTFORM_EVT")
	require.Equal(t, "made by hand", after.Description)
	require.Equal(t, "ola", after.Metadata["owner"])
	require.Equal(t, jetstream.S2Compression, after.Compression)
	c, err := js.Consumer(t.Context(), "DV_MASKIN_EVT", "plattform__from_maskin")
	require.NoError(t, err)
	require.Equal(t, "made by hand", c.CachedInfo().Config.Description)
}

// With the filter as it is, the update goes past the endpoint that names it.
func TestApplyUpdatesADurableWithTheOtherSpellingOfItsFilter(t *testing.T) {
	t.Parallel()
	js := server(t, maskin(), plattform())
	_, err := js.UpdateConsumer(t.Context(), "DV_MASKIN_EVT", jetstream.ConsumerConfig{
		Durable: "plattform__from_maskin", AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverNewPolicy,
		MaxWaiting: 512, AckWait: time.Second, MaxAckPending: 16, FilterSubjects: []string{"dv.maskin.evt.>"},
	})
	require.NoError(t, err)
	done, err := topology.Apply(t.Context(), js, plattform(), topology.ApplyOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{"consumer DV_MASKIN_EVT/plattform__from_maskin: ack_wait from 1s to 30s"}, lines(done))
}

func TestApplyKeepsAConsumersPause(t *testing.T) {
	t.Parallel()
	js := server(t, maskin(), plattform())
	_, err := js.PauseConsumer(t.Context(), "DV_MASKIN_EVT", "plattform__from_maskin", time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.NoError(t, topology.Verify(t.Context(), js, plattform()), "an operator's action is no drift")
	set := plattform()
	set.Consumers[1].AckWait = time.Minute
	_, err = topology.Apply(t.Context(), js, set, topology.ApplyOptions{})
	require.NoError(t, err)
	c, err := js.Consumer(t.Context(), "DV_MASKIN_EVT", "plattform__from_maskin")
	require.NoError(t, err)
	require.True(t, c.CachedInfo().Paused)
}

func TestApplyRefusesWhatLosesMessages(t *testing.T) {
	t.Parallel()
	js := server(t, maskin())
	for range 3 {
		_, err := js.Publish(t.Context(), "dv.maskin.evt.server.provisioned", []byte("{}"))
		require.NoError(t, err)
	}
	set := maskin()
	set.Streams[0].MaxMsgs = 1
	set.Streams[0].Duplicates = time.Minute // harmless, and not done either
	done, err := topology.Apply(t.Context(), js, set, topology.ApplyOptions{})
	require.Empty(t, done)
	refused := asError[*topology.DestructiveError](t, err)
	require.Equal(t, []string{"stream DV_MASKIN_EVT: max_msgs from unlimited to 1 (destructive)"}, lines(refused.Changes))
	require.ErrorContains(t, err, "nothing was changed")
	require.Equal(t, 2*time.Minute, config(t, js, "DV_MASKIN_EVT").Duplicates)

	done, err = topology.Apply(t.Context(), js, set, topology.ApplyOptions{Destructive: true})
	require.NoError(t, err)
	require.Len(t, done, 2)
	require.Equal(t, int64(1), config(t, js, "DV_MASKIN_EVT").MaxMsgs)
}

func TestApplyRefusesWhatIsImpossible(t *testing.T) {
	t.Parallel()
	js := server(t)
	cfg := maskinEvents().Config()
	cfg.Storage = jetstream.MemoryStorage
	cfg.Duplicates = time.Minute
	_, err := js.CreateStream(t.Context(), cfg)
	require.NoError(t, err)
	planned, err := topology.Plan(t.Context(), js, maskin())
	require.Equal(t, []string{"stream DV_MASKIN_EVT: duplicate_window from 1m0s to 2m0s"}, lines(planned), "the rest of the plan is shown")
	impossible := asError[*topology.ImpossibleError](t, err)
	require.Equal(t, "storage", impossible.Field)
	done, err := topology.Apply(t.Context(), js, maskin(), topology.ApplyOptions{Destructive: true})
	require.Empty(t, done)
	asError[*topology.ImpossibleError](t, err)
	require.Equal(t, time.Minute, config(t, js, "DV_MASKIN_EVT").Duplicates)
}

// The declaration is behind the server: applying it would shrink the stream,
// so it takes the operator's word.
func TestApplyDoesNotShrinkWhatIsMoreThanDeclared(t *testing.T) {
	t.Parallel()
	js := server(t)
	cfg := maskinEvents().Config()
	cfg.MaxBytes *= 2
	_, err := js.CreateStream(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, topology.Verify(t.Context(), js, maskin()))
	_, err = topology.Apply(t.Context(), js, maskin(), topology.ApplyOptions{})
	asError[*topology.DestructiveError](t, err)
	require.Equal(t, cfg.MaxBytes, config(t, js, "DV_MASKIN_EVT").MaxBytes)
}

func TestApplyLeavesOtherServicesAlone(t *testing.T) {
	t.Parallel()
	js := server(t, maskin())
	set := plattform()
	set.Streams[4].MaxAge *= 2
	set.Consumers[1].Stream.MaxAge *= 2
	_, err := topology.Apply(t.Context(), js, set, topology.ApplyOptions{Destructive: true})
	require.NoError(t, err)
	require.Equal(t, topology.DefaultEventAge, config(t, js, "DV_MASKIN_EVT").MaxAge)
}

func TestTaskEventsBelongToTheServiceThatIsNamed(t *testing.T) {
	t.Parallel()
	js := server(t)
	tasks := topology.TaskEvents(subject.Sentral, topology.Limits{})
	other := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{tasks}}
	require.Equal(t, []string{"stream DV_TASK_EVT"}, missing(topology.Ensure(t.Context(), js, other)))
	require.Empty(t, streamNames(t, js))
	require.NoError(t, topology.Ensure(t.Context(), js, topology.Set{Service: subject.Sentral, Streams: []topology.Stream{tasks}}))
	require.NoError(t, topology.Ensure(t.Context(), js, other))
}
