package sites

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/topology"
)

const (
	// queueGroup is what the watchers of a site share questions in.
	queueGroup = "dvsites"
	// answerTimeout bounds the work for one answer. Who asked has given up by then.
	answerTimeout = 10 * time.Second
	// maxAnswering is how many questions one watcher answers at once; more wait in
	// the client.
	maxAnswering = 8
	// warnPause is the least time between two lines about questions.
	warnPause = time.Minute
)

// handler answers one verb about a flow. What it returns is encoded; it embeds
// answer.
type handler func(ctx context.Context, d departure, body []byte) (any, error)

// handlers are the verbs that a watcher answers.
func (w *Watcher) handlers() map[string]handler {
	return map[string]handler{
		verbPosition: answering(w.answerPosition),
		verbDigest:   answering(w.answerDigest),
		verbIDs:      answering(w.answerIDs),
		verbResend:   answering(w.answerResend),
	}
}

// answering makes a handler of a function that takes the question as its type. An
// error that is a *refusal goes to the other site as it is, any other one to the
// log, as RefusedFailed.
func answering[Q, A any](f func(context.Context, departure, Q) (A, error)) handler {
	return func(ctx context.Context, d departure, body []byte) (any, error) {
		var q Q
		if err := decode(body, &q); err != nil {
			return nil, refuse(RefusedMalformed, "the question %v", err)
		}
		return f(ctx, d, q)
	}
}

// listen subscribes to the questions about each stream that flows begin in.
func (w *Watcher) listen(ctx context.Context) error {
	for _, stream := range w.origins() {
		on := questionSubject(w.site, "*", stream)
		sub, err := w.conn.NATS().QueueSubscribe(on, queueGroup, func(m *nats.Msg) { w.admit(ctx, stream, m) })
		if err != nil {
			return fmt.Errorf("sites: subscribe to questions on %s: %w", on, err)
		}
		w.subs = append(w.subs, sub)
	}
	return nil
}

// origins are the streams of departures, each once.
func (w *Watcher) origins() (streams []string) {
	seen := map[string]bool{}
	for _, d := range w.departures {
		if !seen[d.stream] {
			streams = append(streams, d.stream)
		}
		seen[d.stream] = true
	}
	return streams
}

// admit runs in the client's callback. It waits for a free place: what waits
// behind it in the client is bounded there.
func (w *Watcher) admit(ctx context.Context, stream string, m *nats.Msg) {
	to := replySite(m.Reply)
	if to == "" {
		w.log.Debug("sites: ignored what is no question", "subject", m.Subject)
		return
	}
	select {
	case w.places <- struct{}{}:
	case <-ctx.Done():
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silent {
		return // who asked asks again, another watcher
	}
	w.answering.Go(func() {
		defer func() { <-w.places }()
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		defer cancel()
		w.reply(m, w.handle(ctx, to, stream, m))
	})
}

// handle returns the answer to one question.
func (w *Watcher) handle(ctx context.Context, to, stream string, m *nats.Msg) any {
	refused := func(r *refusal) any {
		if w.mayWarn() {
			w.log.Warn("sites: a question was refused", "from", to, "subject", m.Subject, "why", r.Code, "reason", r.Reason)
		}
		return struct{ answer }{w.answer(r)}
	}
	q, no := readQuestion(m.Data)
	if no != nil {
		return refused(no)
	}
	verb := verbOf(m.Subject)
	h := w.verbs[verb]
	if h == nil {
		return refused(refuse(RefusedVerb, "%.40q is no verb here", verb))
	}
	d, ok := w.departure(to, stream)
	if !ok || q.To != to {
		return refused(refuse(RefusedFlow, "no flow begins in %s and ends at the site that asks", stream))
	}
	a, err := h(ctx, d, m.Data)
	if err == nil {
		return a
	}
	if no, ok := errors.AsType[*refusal](err); ok {
		return refused(no)
	}
	if w.mayWarn() {
		w.log.Warn("sites: a question could not be answered", "from", to, "subject", m.Subject, "error", err)
	}
	return struct{ answer }{w.answer(refuse(RefusedFailed, "%s could not be read", stream))}
}

// mayWarn bounds the lines about questions: another site asks every few seconds.
func (w *Watcher) mayWarn() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.warned) < warnPause {
		return false
	}
	w.warned = time.Now()
	return true
}

func (w *Watcher) answer(no *refusal) answer {
	return answer{V: protocolVersion, Site: w.site, Error: no}
}

// departure finds a flow by where it ends and the stream that it begins in.
func (w *Watcher) departure(to, stream string) (departure, bool) {
	for _, d := range w.departures {
		if d.To == to && d.stream == stream {
			return d, true
		}
	}
	return departure{}, false
}

// reply sends an answer to where its question came from.
func (w *Watcher) reply(m *nats.Msg, a any) {
	data, err := json.Marshal(a)
	if err == nil && len(data) > maxAnswer {
		err = fmt.Errorf("it has %d bytes, at most %d", len(data), maxAnswer)
	}
	if err == nil {
		err = w.conn.NATS().Publish(m.Reply, data)
	}
	if err != nil {
		w.log.Warn("sites: an answer could not be sent", "subject", m.Subject, "error", err)
	}
}

// answerPosition tells how far the stream is that a flow begins in.
func (w *Watcher) answerPosition(ctx context.Context, d departure, q positionQuestion) (positionAnswer, error) {
	stream, err := w.conn.JetStream().Stream(ctx, d.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return positionAnswer{}, refuse(RefusedStream, "%s does not exist", d.stream)
	}
	if err != nil {
		return positionAnswer{}, fmt.Errorf("sites: read stream %s: %w", d.stream, err)
	}
	state := stream.CachedInfo().State
	a := positionAnswer{answer: w.answer(nil), First: state.FirstSeq, Last: state.LastSeq}
	if state.Msgs == 0 {
		return a, nil
	}
	a.LastTime = state.LastTime
	if a.OfFlow, err = lastOf(ctx, stream, d, state); err != nil {
		return positionAnswer{}, err
	}
	if held := max(q.At, state.FirstSeq-1); a.OfFlow > held {
		a.Behind = a.OfFlow - held
	}
	return a, nil
}

// lastOf returns the sequence of the newest message of a flow, 0 without one.
func lastOf(ctx context.Context, stream jetstream.Stream, d departure, state jetstream.StreamState) (uint64, error) {
	if d.Cargo == topology.CargoCommands || len(d.Entities) == 0 {
		return state.LastSeq, nil // all that the stream holds is the flow's
	}
	var last uint64
	for _, filter := range d.filters {
		m, err := stream.GetLastMsgForSubject(ctx, filter)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("sites: read the last message on %s in %s: %w", filter, d.stream, err)
		}
		last = max(last, m.Sequence)
	}
	return last, nil
}
