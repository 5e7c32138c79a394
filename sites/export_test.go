package sites

import (
	"time"

	"github.com/nats-io/nats.go"
)

// SetPatience changes how long a copy may get nothing before it is stuck. Before Run.
func (w *Watcher) SetPatience(d time.Duration) { w.patience = d }

// SetCalm changes how long nothing may move before what seems to be on its way is
// taken for what does not come. Before Run.
func (w *Watcher) SetCalm(d time.Duration) { w.calm = d }

// SourceOf reads the header of what the server copied.
func SourceOf(header string) (stream string, seq uint64) { return sourceOf(header) }

// ReadQuestion reads a question of position, as a watcher that is asked does.
func ReadQuestion(data []byte) (to string, at uint64, err error) {
	if _, no := readQuestion(data); no != nil {
		return "", 0, no
	}
	var q positionQuestion
	if err := decode(data, &q); err != nil {
		return "", 0, err
	}
	return q.To, q.At, nil
}

// ReadAnswer reads an answer to a question of position, as the one who asked does.
func ReadAnswer(data []byte) (last uint64, err error) {
	var a positionAnswer
	err = readAnswer("dc1", "dc2", "DV_MASKIN_EVT", data, &a)
	return a.Last, err
}

// ReplySite returns who waits for an answer.
func ReplySite(reply string) string { return replySite(reply) }

// Counted is an index without a stream.
type Counted struct{ x index }

// NewCounted returns an empty index of a flow's origin.
func NewCounted() *Counted {
	return &Counted{index{windows: map[kind]map[int64]*window{byID: {}, byStore: {}}, horizon: DefaultHorizon}}
}

// Add counts a message.
func (c *Counted) Add(id string, seq uint64, stored time.Time) {
	c.x.add(nats.Header{"Nats-Msg-Id": {id}}, seq, stored)
}

// Prune forgets what is before the horizon.
func (c *Counted) Prune() { c.x.prune() }

// Windows is how many windows there are, of ids with a time and of others.
func (c *Counted) Windows() (byTime, others int) {
	return len(c.x.windows[byID]), len(c.x.windows[byStore])
}

// Digest is the digest of all ids with a time, as text.
func (c *Counted) Digest() string {
	var all digest
	for _, d := range c.x.digests(byID, 1, 0, 1<<40) {
		all = all.plus(d)
	}
	return all.sum.text()
}

// Resumes tells when a copy that does not hear of its origin is made to ask.
type Resumes struct{ o watch }

// NewResumes is of a watcher with the defaults.
func NewResumes() *Resumes { return &Resumes{watch{w: &Watcher{cfg: Config{}.withDefaults()}}} }

// Look is one look, in which the origin answered or did not.
func (r *Resumes) Look(now time.Time, answers bool) (asks bool) {
	s := sight{silent: true, asked: &NoAnswerError{}}
	if answers {
		s.origin, s.asked = &positionAnswer{}, nil
	}
	if asks = r.o.due(s, now); asks {
		r.o.asksAgain(now)
	}
	return asks
}
