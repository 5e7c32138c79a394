package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// orders is an HTTP endpoint that makes one order for each Idempotency-Key of a
// tenant, however often the request comes: a repeat gets the answer of the first.
type orders struct {
	pool *pgxpool.Pool
	in   *inbox.Inbox
}

func (o *orders) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tenant, item := r.Header.Get("Tenant"), r.FormValue("item")
	key := inbox.MessageFor("shop-http", tenant+"/"+r.Header.Get("Idempotency-Key"))
	err := o.in.Once(r.Context(), key, func(ctx context.Context, tx pgx.Tx) error {
		if item == "" {
			return envelope.Permanent(errors.New("no item"))
		}
		_, err := tx.Exec(ctx, `insert into orders (request, item) values ($1, $2)`, key.ID, item) // and outbox.Enqueue in tx
		return err
	})
	number := 0
	if err == nil || errors.Is(err, envelope.ErrAlreadyProcessed) {
		err = o.pool.QueryRow(r.Context(), `select number from orders where request = $1`, key.ID).Scan(&number)
	}
	switch {
	case err == nil:
		_, _ = fmt.Fprintln(w, "order", number)
	case envelope.IsPermanent(err):
		http.Error(w, err.Error(), http.StatusBadRequest)
	default: // nothing happened, or the row will tell
		http.Error(w, "try again with the same key", http.StatusServiceUnavailable)
	}
}

// An HTTP request with an idempotency key has its effect once, like a message.
func ExampleInbox_Once() {
	pool, done := exampleDatabase(`create table orders (number int generated always as identity, request uuid unique, item text)`)
	defer done()
	in, err := inbox.New(pool, "shop_orders", inbox.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	post := func(tenant, key, item string) {
		r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader("item="+item))
		r.Header = http.Header{"Tenant": {tenant}, "Idempotency-Key": {key}, "Content-Type": {"application/x-www-form-urlencoded"}}
		w := httptest.NewRecorder()
		(&orders{pool, in}).ServeHTTP(w, r)
		body, _ := io.ReadAll(w.Body)
		fmt.Print(w.Code, " ", string(body))
	}
	post("a", "request-1", "rack")
	post("a", "request-1", "rack") // the answer was lost
	post("a", "request-2", "")
	post("a", "request-2", "cable") // what failed is not remembered
	post("b", "request-1", "rack")
	// Output:
	// 200 order 1
	// 200 order 1
	// 400 no item
	// 200 order 2
	// 200 order 3
}

// Events of one server may come late or in disorder. What is older than what was
// applied is acknowledged and left out.
func ExampleInbox_Newer() {
	pool, done := exampleDatabase(`create table node (id text primary key, host text)`)
	defer done()
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	handle := func(ctx context.Context, tx pgx.Tx, id, host string, revision int64) error {
		newer, err := in.Newer(ctx, tx, "server/"+id, revision)
		if err != nil || !newer {
			return err
		}
		_, err = tx.Exec(ctx, `insert into node values ($1, $2) on conflict (id) do update set host = excluded.host`, id, host)
		return err
	}
	for _, event := range []struct {
		host     string
		revision int64
	}{{"first", 1}, {"third", 3}, {"second, late", 2}, {"third, again", 3}} {
		err := in.Once(context.Background(), newMessage(), func(ctx context.Context, tx pgx.Tx) error {
			return handle(ctx, tx, "srv-1", event.host, event.revision)
		})
		var host string
		err = errors.Join(err, pool.QueryRow(context.Background(), `select host from node`).Scan(&host))
		fmt.Println(event.revision, host, err)
	}
	// Output:
	// 1 first <nil>
	// 3 third <nil>
	// 2 third <nil>
	// 3 third <nil>
}

func ExampleMessageFor() {
	fmt.Println(inbox.MessageFor("shop-http", "tenant-1/request-1").ID)
	fmt.Println(inbox.MessageFor("shop-http", "tenant-2/request-1").ID)
	// Output:
	// d18e87b2-b375-5650-a4c6-1f33b183cdd6
	// f882620a-a25e-5ba4-a57f-25bcc9812926
}

// exampleTB is what an Example has in place of a testing.TB.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (*exampleTB) Helper()                  {}
func (*exampleTB) Name() string             { return "Example" }
func (*exampleTB) Context() context.Context { return context.Background() }
func (e *exampleTB) Cleanup(f func())       { e.cleanups = append(e.cleanups, f) }
func (*exampleTB) Errorf(f string, a ...any) {
	fmt.Printf(f, a...)
}
func (*exampleTB) FailNow() { panic("no database") }

// Skipf goes on: an Example cannot be skipped.
func (*exampleTB) Skipf(string, ...any) {}

// exampleDatabase is a migrated database with a table of the service's.
func exampleDatabase(table string) (pool *pgxpool.Pool, done func()) {
	tb := &exampleTB{}
	pool = dvtest.Postgres(tb)
	if _, err := pool.Exec(context.Background(), table); err != nil {
		fmt.Println(err)
	}
	return pool, func() {
		for i := len(tb.cleanups) - 1; i >= 0; i-- {
			tb.cleanups[i]()
		}
	}
}
