package sites

import "time"

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
