package faultlink

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	loopback = "127.0.0.1"
	// chunk is how much is read at once; a black hole holds back at most depth of
	// them for each direction of a connection, and what the kernel takes beside.
	chunk = 32 << 10
	depth = 256
)

// Link is one proxy. It begins whole.
type Link struct {
	target   string
	listener net.Listener
	latency  atomic.Int64 // of each direction
	passed   atomic.Int64 // bytes
	running  sync.WaitGroup

	mu    sync.Mutex
	down  bool
	hole  chan struct{} // closed by the heal; nil: nothing is held back
	pairs map[*pair]struct{}
}

// pair is one connection and its continuation.
type pair struct {
	near, far net.Conn
	gone      chan struct{}
	once      sync.Once
}

func (p *pair) cut() {
	p.once.Do(func() {
		close(p.gone)
		_ = p.near.Close()
		_ = p.far.Close()
	})
}

// Listen opens a link on a free port of 127.0.0.1 to a target address, which
// need not answer yet.
func Listen(target string) (*Link, error) {
	listener, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		return nil, fmt.Errorf("faultlink: listen: %w", err)
	}
	l := &Link{target: target, listener: listener, pairs: map[*pair]struct{}{}}
	l.running.Go(l.accept)
	return l, nil
}

// Addr is the near end, host:port.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// Passed is how many bytes went through, both directions together: a test shows
// with it that nothing went around.
func (l *Link) Passed() int64 { return l.passed.Load() }

// Cut resets all connections and refuses new ones until Heal.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for p := range l.pairs {
		p.cut()
	}
}

// BlackHole lets nothing pass until Heal, while all connections stay.
func (l *Link) BlackHole() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hole == nil {
		l.hole = make(chan struct{})
	}
}

// Heal ends a Cut and a BlackHole. Latency stays.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
	if l.hole != nil {
		close(l.hole)
		l.hole = nil
	}
}

// Latency delays what passes by d in each direction; 0 ends it.
func (l *Link) Latency(d time.Duration) { l.latency.Store(int64(d)) }

// Flap cuts and heals the link times times, each state for half of period, and
// leaves it whole. It returns when it is done or ctx ends.
func (l *Link) Flap(ctx context.Context, times int, period time.Duration) {
	defer l.Heal()
	for i := range 2 * times {
		if i%2 == 0 {
			l.Cut()
		} else {
			l.Heal()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(period / 2):
		}
	}
}

// Close ends the link with all its connections.
func (l *Link) Close() {
	_ = l.listener.Close()
	l.Cut()
	l.running.Wait()
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.join(near) })
	}
}

// join connects a new connection with the target, unless the link is down.
func (l *Link) join(near net.Conn) {
	far, err := net.DialTimeout("tcp", l.target, time.Second)
	if err != nil {
		_ = near.Close()
		return
	}
	p := &pair{near: near, far: far, gone: make(chan struct{})}
	l.mu.Lock()
	if l.down {
		l.mu.Unlock()
		p.cut()
		return
	}
	l.pairs[p] = struct{}{}
	l.mu.Unlock()
	l.running.Go(func() { l.carry(p, near, far) })
	l.running.Go(func() { l.carry(p, far, near) })
}

// parcel is bytes, and when they may arrive.
type parcel struct {
	data []byte
	due  time.Time
}

// carry moves one direction of a connection until either end is gone.
func (l *Link) carry(p *pair, from, to net.Conn) {
	parcels := make(chan parcel, depth)
	l.running.Go(func() { l.deliver(p, to, parcels) })
	defer close(parcels)
	for {
		buffer := make([]byte, chunk)
		n, err := from.Read(buffer)
		if n > 0 {
			select {
			case parcels <- parcel{buffer[:n], time.Now().Add(time.Duration(l.latency.Load()))}:
			case <-p.gone:
				return
			}
		}
		if err != nil {
			return // deliver hands over what is under way, then cuts
		}
	}
}

// deliver writes what is due, and ends the connection behind the last parcel.
func (l *Link) deliver(p *pair, to net.Conn, parcels <-chan parcel) {
	defer l.forget(p)
	for next := range parcels {
		if !l.pass(p, time.Until(next.due)) {
			return
		}
		l.passed.Add(int64(len(next.data))) // before it is seen at the far end
		if _, err := to.Write(next.data); err != nil {
			return
		}
	}
}

func (l *Link) forget(p *pair) {
	p.cut()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pairs, p)
}

// pass waits until a parcel may arrive; false: the connection is gone.
func (l *Link) pass(p *pair, wait time.Duration) bool {
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.gone:
			return false
		}
	}
	for {
		l.mu.Lock()
		hole := l.hole
		l.mu.Unlock()
		if hole == nil {
			return true
		}
		select {
		case <-hole:
		case <-p.gone:
			return false
		}
	}
}
