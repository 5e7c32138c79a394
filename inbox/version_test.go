package inbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
)

// serverV2 is the next version of serverV1.
type serverV2 struct {
	Host string `json:"host"`
}

// provisioned2 carries version 1 forward.
var provisioned2 = envelope.MustEvent(envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 2,
}, envelope.Upcast(provisioned, func(old serverV1) (serverV2, error) {
	if old.Hostname == "" {
		return serverV2{}, errors.New("no hostname")
	}
	return serverV2{old.Hostname}, nil
}))

// A batch holds both versions; what cannot be carried forward costs the others
// nothing.
func TestABatchTakesOldAndNewVersions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := deliveries(4)
	all[2].Envelope.DataSchema, all[2].Envelope.Data = provisioned2.Schema(), json.RawMessage(`{"host":"h2"}`)
	all[3].Envelope.Data = json.RawMessage(`{"hostname":""}`)
	route := inbox.OnBatch(b.in, provisioned2, inbox.FullBatch(3), func(ctx context.Context, tx pgx.Tx, got []envelope.Received[serverV2]) error {
		hosts := make([]string, len(got))
		for i, m := range got {
			hosts[i] = m.Data.Host
		}
		require.Equal(t, []string{"h1", "h1", "h2"}, hosts)
		_, err := tx.Exec(ctx, `insert into effect (message) select unnest($1::text[])`, hosts)
		return err
	})
	require.Equal(t, []int{1}, route.Older)
	errs := together(t, route, all...)
	requireNone(t, errs[:3])
	require.ErrorIs(t, errs[3], envelope.ErrMalformed)
	require.True(t, envelope.IsPermanent(errs[3]))
	require.Equal(t, 3, b.rows(t), "what was refused is not remembered as handled")
}

// The id is that of the message, so a version 1 that version 1's release handled is
// a duplicate for version 2's.
func TestTheNewReleaseKnowsWhatTheOldOneHandled(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	require.NoError(t, b.route().Handle(t.Context(), delivery(m, `{"hostname":"h1"}`)))
	next := inbox.On(b.in, provisioned2, func(context.Context, pgx.Tx, envelope.Received[serverV2]) error {
		return errors.New("handled twice")
	})
	require.ErrorIs(t, next.Handle(t.Context(), delivery(m, `{"hostname":"h1"}`)), envelope.ErrAlreadyProcessed)
}
