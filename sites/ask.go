package sites

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/topology"
)

// noResponders is the status of the server's own answer where nobody listens.
const noResponders = "503"

// asker asks other sites. Answers arrive on subjects of its own site, since the
// link lets nothing else back. It is safe for concurrent use between open and
// close.
type asker struct {
	nc    *nats.Conn
	site  string // ours
	inbox string // begins our reply subjects
	sub   *nats.Subscription

	mu      sync.Mutex
	asked   uint64
	waiting map[string]chan *nats.Msg // by reply subject
}

// openAsker subscribes for answers once: a subscription for each question would be
// told to the servers of both sites each time.
func openAsker(nc *nats.Conn, site string) (*asker, error) {
	unique := nats.NewInbox()[len(nats.InboxPrefix):]
	a := &asker{
		nc: nc, site: site, waiting: map[string]chan *nats.Msg{},
		inbox: topology.SiteQuestions(site) + "." + replyToken + "." + unique + ".",
	}
	sub, err := nc.Subscribe(a.inbox+"*", a.take)
	if err != nil {
		return nil, fmt.Errorf("sites: subscribe to answers on %s*: %w", a.inbox, err)
	}
	a.sub = sub
	return a, nil
}

func (a *asker) close() { _ = a.sub.Unsubscribe() } // an error says that it has ended already

// take gives an answer to who waits for it. What comes too late is dropped.
func (a *asker) take(m *nats.Msg) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if to := a.waiting[m.Subject]; to != nil {
		delete(a.waiting, m.Subject)
		to <- m // it has room for the one
	}
}

// ask puts q to a site and reads its answer into into, a pointer to a struct that
// embeds answer. It asks once. Errors are those of the package.
func (a *asker) ask(ctx context.Context, site, verb, stream string, q, into any) error {
	unanswered := func(err error) error { return &NoAnswerError{Site: site, Stream: stream, Err: err} }
	if !a.nc.IsConnected() {
		// The client would keep the question for later, when nobody waits any more.
		return unanswered(nats.ErrDisconnected)
	}
	data, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("sites: encode question %s: %w", verb, err)
	}
	reply, came := a.expect()
	defer a.forget(reply)
	if err := a.nc.PublishMsg(&nats.Msg{Subject: questionSubject(site, verb, stream), Reply: reply, Data: data}); err != nil {
		return unanswered(err)
	}
	select {
	case <-ctx.Done():
		return unanswered(context.Cause(ctx))
	case m := <-came:
		if len(m.Data) == 0 && m.Header.Get("Status") == noResponders {
			return unanswered(nats.ErrNoResponders)
		}
		return readAnswer(site, a.site, stream, m.Data, into)
	}
}

// expect makes a reply subject and where its answer will be.
func (a *asker) expect() (reply string, came <-chan *nats.Msg) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	reply, to := fmt.Sprint(a.inbox, a.asked), make(chan *nats.Msg, 1)
	a.waiting[reply] = to
	return reply, to
}

func (a *asker) forget(reply string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, reply)
}

// reason shortens an error for a status: the package's name is clear there.
func reason(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimPrefix(err.Error(), "sites: ")
}

// gone is closed when the subscription for answers ends: with the connection, or by
// close.
func (a *asker) gone() <-chan struct{} {
	gone := make(chan struct{})
	var once sync.Once
	end := func() { once.Do(func() { close(gone) }) }
	a.sub.SetClosedHandler(func(string) { end() })
	if a.nc.IsClosed() || a.nc.IsDraining() {
		end() // what ended before its handler was set tells nobody
	}
	return gone
}
