package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/examples/service/plattformapi"
	"codeberg.org/dataverket/messaging/migrate"
)

//go:embed tables.sql
var tablesSQL string // constant: the service's own tables

// createTables brings the library's tables and our own up to date. Replicas that
// start together wait for each other.
func createTables(ctx context.Context, pool *pgxpool.Pool) error {
	if err := migrate.Up(ctx, pool, migrate.Config{}); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtext('plattform tables'))`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, tablesSQL)
		return err
	})
}

// errNoNode says that the tenant has no such node.
var errNoNode = errors.New("no such node")

// querier is a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// findNode reads a node of a tenant: the tenant is part of every question, so that
// no caller sees what is another's.
func findNode(ctx context.Context, db querier, tenant, id string) (plattformapi.NodeV1, error) {
	n := plattformapi.NodeV1{ID: id}
	err := db.QueryRow(ctx, `select hostname, size, state from node where id = $1 and tenant = $2`, id, tenant).
		Scan(&n.Hostname, &n.Size, &n.State)
	if errors.Is(err, pgx.ErrNoRows) {
		return n, errNoNode
	}
	return n, err
}

// lockNode takes the node's lock until tx ends. Whoever enqueues events of a node
// holds it, which makes their order the order of the commits.
func lockNode(ctx context.Context, tx pgx.Tx, id string) (state string, err error) {
	err = tx.QueryRow(ctx, `select state from node where id = $1 for update`, id).Scan(&state)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", errNoNode
	}
	return state, err
}

// setState changes a node that the caller has locked.
func setState(ctx context.Context, tx pgx.Tx, id, state string) error {
	if _, err := tx.Exec(ctx, `update node set state = $2 where id = $1`, id, state); err != nil {
		return fmt.Errorf("set node %s %s: %w", id, state, err)
	}
	return nil
}

// workloadsOn lists what runs on a node.
func workloadsOn(ctx context.Context, tx pgx.Tx, node string) ([]string, error) {
	rows, err := tx.Query(ctx, `select id from workload where node = $1 order by id for update`, node)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
