package topology_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestStreamForFindsOwnAndForeignStreams(t *testing.T) {
	t.Parallel()
	set := plattform()
	for stream, s := range map[string]subject.Subject{
		"DV_PLATTFORM_CMD":    subject.Must(subject.Cmd(subject.Plattform, "restart")),
		"DV_PLATTFORM_EVT":    subject.Must(subject.Evt(subject.Plattform, "cluster", "created")),
		"DV_PLATTFORM_DLQ":    subject.Must(subject.DLQ(subject.Plattform, "dv.maskin.evt.server.provisioned")),
		"DV_PLATTFORM_DLQOPS": subject.Must(subject.Replay(subject.Plattform, "plattform__from_maskin")),
		"DV_MASKIN_EVT":       subject.Must(subject.Evt(subject.Maskin, "server", "provisioned")),
	} {
		found, err := set.StreamFor(s)
		require.NoError(t, err)
		require.Equal(t, stream, found.Name)
	}
	unknown := subject.Must(subject.Cmd(subject.Nett, "open_port"))
	_, err := set.StreamFor(unknown)
	require.Equal(t, unknown, asError[*topology.UndeclaredError](t, err).Subject)
	require.ErrorContains(t, err, `"dv.nett.cmd.open_port"`)
	require.ErrorContains(t, err, "add the stream to Set.Streams")
	_, err = set.StreamFor(subject.Subject{})
	require.Error(t, err)
}

func TestWarningsAboutRatesThatFillAStream(t *testing.T) {
	t.Parallel()
	with := func(rate float64) topology.Set {
		return topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{Rate: rate})}}
	}
	require.Empty(t, with(0).Warnings(), "not declared")
	require.Empty(t, with(25).Warnings())
	warnings := with(50).Warnings()
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], "DV_MASKIN_EVT is full after 85h13m0s at 50 messages")
	require.Contains(t, warnings[0], "raise MaxBytes to 21168000000")
	require.NoError(t, with(50).Validate(), "a warning is no fault")

	foreign := with(50)
	foreign.Service = subject.Nett
	require.Empty(t, foreign.Warnings(), "its owner is warned")
	letters := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.DeadLetters(subject.Maskin, topology.Limits{Rate: 1e6})}}
	require.Empty(t, letters.Warnings(), "no age to fill before")
}

func TestConsumerDefaultsAndEnvironment(t *testing.T) {
	t.Parallel()
	c := plattform().Consumers[0]
	cfg := c.Config()
	require.Equal(t, 120*time.Second, cfg.AckWait)
	require.Equal(t, 50, cfg.MaxAckPending)
	require.Equal(t, -1, cfg.MaxDeliver)

	env := map[string]string{"DVMSG_ACK_WAIT": "90s", "DVMSG_MAX_ACK_PENDING": "8", "DVMSG_MAX_ACK_PENDING_PLATTFORM__COMMANDS": "4"}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	c, err := c.FromEnv(lookup)
	require.NoError(t, err)
	require.Equal(t, 90*time.Second, c.AckWait)
	require.Equal(t, 4, c.MaxAckPending, "the durable's own variable wins")
	other, err := plattform().Consumers[1].FromEnv(lookup)
	require.NoError(t, err)
	require.Equal(t, 8, other.MaxAckPending)
	require.Equal(t, 90*time.Second, other.AckWait)

	env = map[string]string{"DVMSG_ACK_WAIT": ""}
	unset, err := plattform().Consumers[1].FromEnv(lookup)
	require.NoError(t, err)
	require.Equal(t, plattform().Consumers[1], unset, "empty is not set")

	env = map[string]string{"DVMSG_ACK_WAIT": "soon", "DVMSG_MAX_ACK_PENDING": "-3"}
	_, err = c.FromEnv(lookup)
	require.ErrorContains(t, err, `DVMSG_ACK_WAIT: "soon"`)
	require.ErrorContains(t, err, `DVMSG_MAX_ACK_PENDING: "-3"`)
}
