package rpc_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/subject"
)

func TestOperationIsCalledOnItsRPCSubjectOnly(t *testing.T) {
	t.Parallel()
	require.Equal(t, "dv.rpc.maskin.get_server", getServer.Subject().String())
	require.Equal(t, subject.FamilyRPC, getServer.Subject().Family())
	require.Equal(t, "maskin.get_server v1", getServer.String())

	// Whatever the name, no event, command or pattern comes out of it.
	for _, name := range []string{"", "evt.server.provisioned", "*", ">", "Get", "get-server", "dv.maskin.cmd.provision", "a b"} {
		_, err := rpc.NewOperation[getRequest, getReply](rpc.Spec{Service: subject.Maskin, Name: name, Version: 1})
		require.ErrorContains(t, err, "operation", "name %q", name)
	}
}

func TestBadSpecIsRefusedWithAllFaults(t *testing.T) {
	t.Parallel()
	_, err := rpc.NewOperation[map[string]string, []int](rpc.Spec{Name: "Get"})
	for _, text := range []string{"service", "operation", "Spec.Version", "request type: map[string]string", "reply type: []int"} {
		require.ErrorContains(t, err, text)
	}
	require.Panics(t, func() { rpc.MustOperation[getRequest, getReply](rpc.Spec{}) })
	_, err = rpc.NewOperation[*getRequest, getReply](rpc.Spec{Service: subject.Maskin, Name: "get", Version: 65536})
	require.ErrorContains(t, err, "65536 is out of range")
}

func TestZeroOperationIsRefusedAndNotCalled(t *testing.T) {
	t.Parallel()
	var none rpc.Operation[getRequest, getReply]
	require.Equal(t, "no operation", none.String())
	require.True(t, none.Subject().IsZero())
	_, err := none.Call(context.Background(), nil, getRequest{})
	require.True(t, failure(t, err).Local)
	require.Equal(t, rpc.CodeInvalidArgument, rpc.CodeOf(err))
	_, err = rpc.NewServer(nil, rpc.ServerConfig{}, rpc.On(none, hello))
	require.ErrorContains(t, err, "names no operation")
}
