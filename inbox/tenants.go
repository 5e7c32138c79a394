package inbox

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/tenant"
)

// scope is the tenant of a message; "" is platform scope.
type scope struct {
	tenant string
	known  bool // not so for a Message that a service made: then ctx tells
}

// scoped completes m with the tenant of ctx's origin where rows are kept apart and
// the message itself does not tell.
func (in *Inbox) scoped(ctx context.Context, m Message) (Message, error) {
	if in.tenants == "" || m.scope.known {
		return m, nil
	}
	id, err := tenant.Of(ctx)
	if err != nil {
		return m, envelope.Permanent(in.explain("message "+m.ID, err))
	}
	m.scope = scope{id, true}
	return m, nil
}

// queueTenant tells the transaction which tenant's it is.
func (in *Inbox) queueTenant(batch *pgx.Batch, s scope) {
	if in.tenants != "" {
		in.tenants.Queue(batch, s.tenant)
	}
}

// gatherers are those of the tenants that have messages here at the moment: rows are
// kept apart by a setting of the transaction, so that a batch has one tenant.
type gatherers struct {
	make func() *gatherer

	mu sync.Mutex
	of map[string]*calls // by tenant
}

// calls is a gatherer and how many calls are in it.
type calls struct {
	*gatherer
	n int
}

func (g *gatherers) handle(ctx context.Context, d *envelope.Delivery, data any) error {
	id := d.Envelope.TenantID
	mine := g.enter(id)
	defer g.leave(id, mine)
	return mine.handle(ctx, d, data)
}

func (g *gatherers) enter(id string) *calls {
	g.mu.Lock()
	defer g.mu.Unlock()
	mine := g.of[id]
	if mine == nil {
		mine = &calls{gatherer: g.make()}
		g.of[id] = mine
	}
	mine.n++
	return mine
}

// leave forgets a tenant of which nothing is here: there may be any number of them.
func (g *gatherers) leave(id string, mine *calls) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if mine.n--; mine.n == 0 {
		delete(g.of, id)
	}
}
