package topology_test

import (
	"context"
	"testing"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/topology"
)

// configured is a server with other options than usual.
func configured(tb testing.TB, configure func(*natsd.Options), options ...nats.Option) jetstream.JetStream {
	tb.Helper()
	s, err := natsserver.Start(tb.Context(), tb.TempDir(), natsserver.Options{Configure: configure})
	require.NoError(tb, err)
	tb.Cleanup(s.Stop)
	nc, err := nats.Connect(s.URL(), append(options, s.Option())...)
	require.NoError(tb, err)
	tb.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(tb, err)
	return js
}

func TestVerifyReportsEverythingMissingAndCreatesNothing(t *testing.T) {
	t.Parallel()
	js := server(t)
	err := topology.Verify(t.Context(), js, plattform())
	require.ElementsMatch(t, []string{
		"stream DV_PLATTFORM_CMD", "stream DV_PLATTFORM_EVT", "stream DV_PLATTFORM_DLQ", "stream DV_PLATTFORM_DLQOPS", "stream DV_MASKIN_EVT",
	}, missing(err), "streams only: their consumers follow from that")
	require.Empty(t, streamNames(t, js))
}

func TestVerifyReportsMissingDurables(t *testing.T) {
	t.Parallel()
	js := server(t, maskin(), plattform())
	require.NoError(t, js.DeleteConsumer(t.Context(), "DV_MASKIN_EVT", "plattform__from_maskin"))
	require.NoError(t, js.DeleteConsumer(t.Context(), "DV_PLATTFORM_DLQOPS", "plattform__commands__replay"))
	err := topology.Verify(t.Context(), js, plattform())
	require.ElementsMatch(t, []string{
		"consumer DV_MASKIN_EVT/plattform__from_maskin", "consumer DV_PLATTFORM_DLQOPS/plattform__commands__replay",
	}, missing(err))
	require.ErrorContains(t, err, "begins at its declared Start")
}

func TestVerifyChecksTheSetFirst(t *testing.T) {
	t.Parallel()
	js := server(t)
	js.Conn().Close() // a fault of the declaration needs no server
	set := plattform()
	set.Service = 0
	err := topology.Verify(t.Context(), js, set)
	require.ErrorContains(t, err, "Set.Service")
	require.ErrorContains(t, topology.Ensure(t.Context(), js, set), "Set.Service")
	_, err = topology.Plan(t.Context(), js, set)
	require.ErrorContains(t, err, "Set.Service")
	_, err = topology.Apply(t.Context(), js, set, topology.ApplyOptions{})
	require.ErrorContains(t, err, "Set.Service")
}

// A command must be done once: a second durable on the stream, of an older
// release, of another service or made by hand, would do it again.
func TestASecondDurableOnACommandStreamIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg     jetstream.ConsumerConfig
		refused bool
	}{
		"of another service":      {jetstream.ConsumerConfig{Durable: "nett__from_plattform", FilterSubject: "dv.plattform.cmd.restart"}, true},
		"of an older release":     {jetstream.ConsumerConfig{Durable: "plattform__cmd"}, true},
		"with several filters":    {jetstream.ConsumerConfig{Durable: "x", FilterSubjects: []string{"dv.plattform.cmd.a", "dv.plattform.cmd.b"}}, true},
		"made by hand, everyting": {jetstream.ConsumerConfig{Durable: "x", FilterSubject: "dv.*.cmd.*"}, true},
		"ephemeral, a tool's":     {jetstream.ConsumerConfig{Name: topology.EphemeralName("look")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := server(t, maskin(), plattform())
			_, err := js.CreateConsumer(t.Context(), "DV_PLATTFORM_CMD", c.cfg)
			require.NoError(t, err)
			err = topology.Verify(t.Context(), js, plattform())
			if !c.refused {
				require.NoError(t, err)
				return
			}
			overlap := asError[*topology.OverlapError](t, err)
			require.Equal(t, &topology.OverlapError{Stream: "DV_PLATTFORM_CMD", Durable: "plattform__commands", Other: c.cfg.Durable}, overlap)
			require.Error(t, topology.Ensure(t.Context(), js, plattform()))
			_, err = topology.Plan(t.Context(), js, plattform())
			asError[*topology.OverlapError](t, err)
		})
	}
}

func TestASecondDurableIsFoundBeforeOursIsCreated(t *testing.T) {
	t.Parallel()
	js := server(t, maskin())
	streams := plattform()
	streams.Consumers = nil
	require.NoError(t, topology.Ensure(t.Context(), js, streams))
	_, err := js.CreateConsumer(t.Context(), "DV_PLATTFORM_CMD", jetstream.ConsumerConfig{Durable: "plattform__old"})
	require.NoError(t, err)
	asError[*topology.OverlapError](t, topology.Ensure(t.Context(), js, plattform()))
	_, err = js.Consumer(t.Context(), "DV_PLATTFORM_CMD", "plattform__commands")
	require.ErrorIs(t, err, jetstream.ErrConsumerNotFound)
}

// A process that only publishes commands of its service to itself, say, need
// not know the durables of its sibling; two that share commands it reports.
func TestDurablesThatDoNotOverlapAreFine(t *testing.T) {
	t.Parallel()
	js := server(t, maskin(), plattform())
	streams := plattform()
	streams.Consumers = nil
	require.NoError(t, topology.Verify(t.Context(), js, streams), "one durable that is not ours to declare")
	require.NoError(t, js.DeleteConsumer(t.Context(), "DV_PLATTFORM_CMD", "plattform__commands"))
	for durable, filter := range map[string]string{"plattform__a": "dv.plattform.cmd.a", "plattform__b": "dv.plattform.cmd.b"} {
		_, err := js.CreateConsumer(t.Context(), "DV_PLATTFORM_CMD", jetstream.ConsumerConfig{Durable: durable, FilterSubject: filter})
		require.NoError(t, err)
	}
	require.NoError(t, topology.Verify(t.Context(), js, streams))
}

func TestAServerWithoutJetStreamIsSaidToBeSo(t *testing.T) {
	t.Parallel()
	js := configured(t, func(o *natsd.Options) { o.JetStream = false })
	start := time.Now()
	err := topology.Ensure(t.Context(), js, maskin())
	require.Equal(t, []string{"JetStream"}, missing(err))
	require.ErrorIs(t, err, jetstream.ErrJetStreamNotEnabled)
	require.Less(t, time.Since(start), 10*time.Second, "no waiting for what will not come")
}

func TestAServerThatTakesTooSmallMessagesIsRefused(t *testing.T) {
	t.Parallel()
	js := configured(t, func(o *natsd.Options) { o.MaxPayload = 512 << 10 })
	err := topology.Ensure(t.Context(), js, maskin())
	require.Equal(t, map[string]string{"max_payload": "server"}, drifted(err))
	require.ErrorContains(t, err, "declared 589824 or more")
	require.Empty(t, streamNames(t, js))
}

func TestAServerWithoutRoomSaysWhatToDo(t *testing.T) {
	t.Parallel()
	js := configured(t, func(o *natsd.Options) { o.JetStreamMaxStore = 1 << 20 })
	err := topology.Ensure(t.Context(), js, maskin())
	require.ErrorContains(t, err, "lower MaxBytes")
}

func TestReplicasNeedACluster(t *testing.T) {
	t.Parallel()
	set := maskin()
	set.Streams[0].Replicas = 3
	err := topology.Ensure(t.Context(), server(t), set)
	require.ErrorContains(t, err, "declare Replicas 1")
}

func TestSubjectsOfAnotherStreamAreRefused(t *testing.T) {
	t.Parallel()
	js := server(t)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ALL", Subjects: []string{"dv.maskin.>"}})
	require.NoError(t, err)
	require.ErrorContains(t, topology.Ensure(t.Context(), js, maskin()), "another stream holds some of the subjects")
}

// A denied request is never answered. Without the check it lasts until the
// context ends, and nobody learns why.
func TestAMissingRightIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	allow := []string{"$JS.API.INFO", "$JS.API.STREAM.INFO.>", "$JS.API.CONSUMER.INFO.>", "$JS.API.STREAM.CREATE.DV_PLATTFORM_CMD"}
	js := configured(t, func(o *natsd.Options) {
		o.Users = []*natsd.User{{Username: "plattform", Password: "pw", Permissions: &natsd.Permissions{
			Publish: &natsd.SubjectPermission{Allow: allow},
		}}}
	}, nats.UserInfo("plattform", "pw"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	start := time.Now()
	set := plattform()
	set.Streams, set.Consumers = set.Streams[:2], nil
	err := topology.Ensure(t.Context(), js, set)
	require.ErrorIs(t, err, nats.ErrPermissionViolation)
	require.ErrorContains(t, err, `"$JS.API.CONSUMER.LIST.DV_PLATTFORM_CMD"`)
	require.ErrorContains(t, err, `"$JS.API.STREAM.CREATE.DV_PLATTFORM_EVT"`)
	require.ErrorContains(t, err, "give this user the right")
	require.Less(t, time.Since(start), 4*time.Second)
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	js := configured(t, func(*natsd.Options) {})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, topology.Verify(ctx, js, maskin()), context.Canceled)
	require.ErrorIs(t, topology.Ensure(ctx, js, maskin()), context.Canceled)
	require.Equal(t, time.Minute, topology.Patience, "without a deadline; documented")
}

func TestVerifyUsesTheDomainOfItsContext(t *testing.T) {
	t.Parallel()
	plain := configured(t, func(o *natsd.Options) { o.JetStreamDomain = "dc1" })
	require.NoError(t, topology.Ensure(t.Context(), plain, maskin()))
	js, err := jetstream.NewWithDomain(plain.Conn(), "dc1")
	require.NoError(t, err)
	require.NoError(t, topology.Verify(t.Context(), js, maskin()))
	require.Equal(t, "$JS.dc1.API.", topology.APIPrefix(js))
	require.Equal(t, "$JS.API.", topology.APIPrefix(plain))
	prefixed, err := jetstream.NewWithAPIPrefix(plain.Conn(), "$JS.dc1.API")
	require.NoError(t, err)
	require.Equal(t, "$JS.dc1.API.", topology.APIPrefix(prefixed))
	require.NoError(t, topology.Verify(t.Context(), prefixed, maskin()))
	set := maskin()
	set.Streams[0].MaxAge *= 2
	_, err = topology.Apply(t.Context(), js, set, topology.ApplyOptions{})
	require.NoError(t, err)
}

func TestOldServersAreRefused(t *testing.T) {
	t.Parallel()
	for version, ok := range map[string]bool{
		"2.15.2": true, "2.14.3": true, "2.14.10": true, "v2.15.0": true, "2.15.0-RC.1": true, "2.12.12": true, "2.12.99": true, "3.0.0": true,
		"2.14.3+build": true,
		"2.14.2":       false, "2.14.3-RC.1": false, "2.13.99": false, "2.12.11": false, "2.12.12-beta.1": false, "2.11.99": false, "1.99.99": false,
		"": false, "2.15": false, "2.15.x": false, "latest": false, "2.15.2 ": false, "-2.15.2": false, "9999999.0.0": false,
	} {
		require.Equal(t, ok, topology.SupportedVersion(version), version)
	}
}

func FuzzServerVersion(f *testing.F) {
	f.Add("2.15.2")
	f.Add("v2.14.0-RC.1+x")
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		if topology.SupportedVersion(text) {
			require.Regexp(t, `^v?\d+\.\d+\.\d+`, text)
			require.False(t, topology.SupportedVersion("x"+text))
		}
	})
}

// What the table promises about each code is held against errors as they come
// from the client.
func TestErrorCodesAreClassified(t *testing.T) {
	t.Parallel()
	seen := map[jetstream.ErrorCode]bool{}
	for _, row := range topology.Codes() {
		require.False(t, seen[row.Code], "%d is listed twice", row.Code)
		seen[row.Code] = true
		require.Equal(t, row.Verdict, topology.Classified(&jetstream.APIError{ErrorCode: row.Code}), row.Code)
		if row.Verdict == "refused" || row.Verdict == "notYet" {
			require.NotEmpty(t, row.Remedy, row.Code)
		}
	}
	for want, errs := range map[string][]error{
		"notYet":    {nats.ErrTimeout, nats.ErrNoResponders, nats.ErrReconnectBufExceeded, nats.ErrDisconnected},
		"notThere":  {jetstream.ErrStreamNotFound, jetstream.ErrConsumerNotFound, jetstream.ErrConsumerDoesNotExist},
		"different": {jetstream.ErrStreamNameAlreadyInUse, jetstream.ErrConsumerExists},
		"refused":   {jetstream.ErrJetStreamNotEnabled, jetstream.ErrJetStreamNotEnabledForAccount, context.Canceled, nats.ErrPermissionViolation},
	} {
		for _, err := range errs {
			require.Equal(t, want, topology.Classified(err), err.Error())
		}
	}
	require.Equal(t, "refused", topology.Classified(&jetstream.APIError{ErrorCode: 10052}), "what is not listed")
}
