package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
)

func Example_run() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// kari 200
	// event: maskin.server.ready
	// data: {"data":{"hostname":"db3.oslo.example"},"resource":"server-3"}
	// nobody 401
}

// browser is a client of the feed that reads only when told to.
type browser struct {
	http.ResponseWriter
	reads sync.RWMutex // held while it reads nothing
	mu    sync.Mutex
	text  strings.Builder
}

func (b *browser) Flush()                           {}
func (b *browser) SetWriteDeadline(time.Time) error { return nil }
func (b *browser) Write(p []byte) (int, error) {
	b.reads.RLock()
	defer b.reads.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *browser) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), text)
}

// open connects a browser of tenant-1; done is closed when its feed has ended.
func connect(t *testing.T, f *feed, b *browser) (done chan struct{}) {
	t.Helper()
	b.ResponseWriter, done = httptest.NewRecorder(), make(chan struct{})
	ctx := envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:kari", "tenant-1"))
	go func() {
		defer close(done)
		f.ServeHTTP(b, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
	}()
	require.Eventually(t, func() bool { return b.count("welcome") == 1 }, 20*time.Second, time.Millisecond)
	return done
}

// A browser that reads nothing is dropped with a notice once its room is full, and
// holds up nobody: the other gets everything.
func TestSlowBrowserIsDroppedAndHoldsUpNobody(t *testing.T) {
	t.Parallel()
	f := &feed{clients: map[*client]struct{}{}}
	var slow, fast browser
	gone := connect(t, f, &slow)
	_ = connect(t, f, &fast)
	slow.reads.Lock()
	const events = 2 * room
	for i := range events {
		f.push(&envelope.Envelope{Type: "maskin.server.ready", TenantID: "tenant-1", Visibility: envelope.External, Data: []byte(`{}`)})
		require.Eventually(t, func() bool { return fast.count("event: maskin") == i+1 }, 20*time.Second, time.Millisecond)
	}
	slow.reads.Unlock()
	<-gone
	require.Equal(t, 1, slow.count("event: dropped"))
	require.Less(t, slow.count("event: maskin"), events)
	require.Zero(t, fast.count("dropped"))
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Len(t, f.clients, 1)
}
