package rpc_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/subject"
)

// The permissions that the package documents are enough, and a caller that lacks one
// hears so: the broker answers a refused publish with silence.
func TestDocumentedPermissionsSufficeAndAMissingOneIsNamed(t *testing.T) {
	t.Parallel()
	broker, err := natsserver.Start(t.Context(), t.TempDir(), natsserver.Options{TCP: true, Configure: func(o *server.Options) {
		o.Users = []*server.User{{Username: "server", Password: "pw", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Deny: []string{">"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"dv.rpc.maskin.>", "$SRV.>"}},
			Response:  &server.ResponsePermission{MaxMsgs: 1, Expires: 2 * time.Minute}, // what allow_responses: true means
		}}, {Username: "caller", Password: "pw", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"dv.rpc.maskin.>", "$SRV.>"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}}
	}})
	require.NoError(t, err)
	t.Cleanup(broker.Stop)
	as := func(user string) *nats.Conn {
		nc, err := nats.Connect(broker.URL(), nats.UserInfo(user, "pw"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return nc
	}
	serve(t, as("server"), quiet(), rpc.On(getServer, hello))
	nc := as("caller")
	client := dial(t, nc)
	_, err = getServer.Call(asking(t, patience), client, getRequest{ID: "1"})
	require.NoError(t, err)
	_, err = nc.Request("$SRV.INFO.maskin", nil, patience)
	require.NoError(t, err)

	refused := rpc.MustOperation[getRequest, getReply](rpc.Spec{Service: subject.Nett, Name: "get_net", Version: 1})
	require.Eventually(t, func() bool {
		_, err = refused.Call(asking(t, 100*time.Millisecond), client, getRequest{ID: "1"})
		return errors.Is(err, nats.ErrPermissionViolation) // the refusal may come later than the deadline
	}, soon, tick)
	requireLocal(t, err, rpc.CodeDeadlineExceeded, false)
	require.ErrorContains(t, err, "does not let this user publish to dv.rpc.nett.get_net")
}
