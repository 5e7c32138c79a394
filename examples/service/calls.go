package main

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/service/plattformapi"
	"codeberg.org/dataverket/messaging/rpc"
)

// getNode answers the call get_node, for the tenant of whoever calls.
func getNode(pool *pgxpool.Pool) rpc.Route {
	return rpc.On(plattformapi.GetNode, func(ctx context.Context, r plattformapi.GetNodeV1) (plattformapi.NodeV1, error) {
		origin, _ := envelope.OriginFrom(ctx)
		node, err := findNode(ctx, pool, origin.TenantID, r.ID)
		if errors.Is(err, errNoNode) {
			return node, rpc.Errorf(rpc.CodeNotFound, "node %.64q does not exist", r.ID)
		}
		return node, err // anything else is logged, and the caller hears "internal"
	})
}
