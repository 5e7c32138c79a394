package tenant_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
)

// exampleTB is what an Example has in place of a testing.TB.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (*exampleTB) Helper()                   {}
func (*exampleTB) Name() string              { return "Example" }
func (*exampleTB) Context() context.Context  { return context.Background() }
func (e *exampleTB) Cleanup(f func())        { e.cleanups = append(e.cleanups, f) }
func (*exampleTB) Errorf(f string, a ...any) { fmt.Printf(f, a...) }
func (*exampleTB) FailNow()                  { panic("no database") }
func (*exampleTB) Skipf(string, ...any)      {}

// A request's transaction names its tenant; what does not, names nobody.
func ExampleSetting_Set() {
	tb := &exampleTB{}
	pool := dvtest.Postgres(tb)
	defer func() {
		for i := len(tb.cleanups) - 1; i >= 0; i-- {
			tb.cleanups[i]()
		}
	}()
	// The origin that package edge makes of a request.
	ctx := envelope.WithOrigin(context.Background(), envelope.NewOrigin("user:kari", "tenant-1"))
	const whose = `select coalesce(nullif(current_setting('app.tenant_id', true), ''), 'nobody')` // as a policy asks
	for _, request := range []context.Context{ctx, context.Background()} {
		var tenant string
		err := pgx.BeginFunc(request, pool, func(tx pgx.Tx) error {
			if err := rows.Set(request, tx); err != nil {
				return err
			}
			return tx.QueryRow(request, whose).Scan(&tenant)
		})
		fmt.Println(tenant, err != nil)
	}
	var tenant string
	err := pool.QueryRow(ctx, whose).Scan(&tenant)
	fmt.Println(tenant, err)
	// Output:
	// tenant-1 false
	//  true
	// nobody <nil>
}
