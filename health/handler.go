package health

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Ready answers GET and HEAD: 200 while every part is ready, else 503, and which
// part is not, and why. It waits for parts whose answer is too old, Config.Timeout
// at most.
func (h *Health) Ready() http.Handler {
	return h.probe(func(p *part) time.Duration { return p.cfg.Timeout }, http.StatusServiceUnavailable)
}

// Live answers GET and HEAD with 200, and the body of Ready. It waits 0.2 s for
// parts whose answer is too old, and then tells what was known last.
func (h *Health) Live() http.Handler {
	return h.probe(func(*part) time.Duration { return livePatience }, http.StatusOK)
}

// report is the body of an answer.
type report struct {
	Ready bool      `json:"ready"`
	Parts []verdict `json:"parts"` // in the order of New
}

// probe answers with 200, or unready where a part is not.
func (h *Health) probe(patience func(*part) time.Duration, unready int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "a probe is a GET or a HEAD", http.StatusMethodNotAllowed)
			return
		}
		found, code := h.look(r.Context(), patience), http.StatusOK
		if !found.Ready {
			code = unready
		}
		body, _ := json.Marshal(found) // strings and bools: it cannot fail
		head := w.Header()
		head.Set("Content-Type", "application/json")
		head.Set("Cache-Control", "no-store")
		head.Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(code)
		_, _ = w.Write(body) // left out by net/http for a HEAD; a prober that left needs none
	})
}

// look asks all parts at the same time and returns what is known of each when all
// have answered, or the patience with those that have not has ended.
func (h *Health) look(ctx context.Context, patience func(*part) time.Duration) report {
	type question struct {
		done  <-chan struct{}
		until time.Time
	}
	open := make([]question, len(h.parts))
	for i, p := range h.parts {
		open[i].done, open[i].until = p.refresh(time.Now(), patience(p))
	}
	for _, q := range open {
		if q.done != nil {
			wait(ctx, q.done, time.Until(q.until))
		}
	}
	found := report{Ready: true}
	for _, p := range h.parts {
		v := p.verdict(time.Now())
		found.Ready = found.Ready && v.Ready
		found.Parts = append(found.Parts, v)
	}
	return found
}

// wait returns when something is done, after so long, or when ctx ends.
func wait(ctx context.Context, done <-chan struct{}, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
}
