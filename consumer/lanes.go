package consumer

import (
	"math"
	"slices"
	"sync"

	"codeberg.org/dataverket/messaging/envelope"
)

// lanes are what one term of an ordered consumer holds: each message waits in
// the lane of its key until it is its turn.
type lanes struct {
	mu       sync.Mutex
	track    track
	arrivals []*ticket // in their order, from the first whose key is not known yet
	keys     map[string]*keyLane
	holds    map[string]string // key by the letter that holds it
	parked   map[string]uint64 // keys of which messages may be parked, with the number of the mark
	marks    uint64            // number of the last
	enough   int               // so many marks are held against the store
	mayPark  func() bool       // whether what waits for an operator may be parked
}

// keyLane is one key: the message whose turn it is, and those behind it.
type keyLane struct {
	running *ticket
	waiting []*ticket
	hold    *envelope.HeldKey // nil unless it waits for an operator
}

// ticket is the place of one message.
type ticket struct {
	sequence uint64        // in the main durable's stream, 0 for a replay
	again    bool          // a handler may have been started for it before
	turn     chan struct{} // closed when it may run
	opened   bool          // what follows is known

	keyed  bool // has a key; one without waits for nobody
	key    string
	first  bool   // goes before those that wait in memory: it was parked
	aside  bool   // its turn is to be parked: its key waits for an operator
	letter string // that it replays, "" for an ordinary delivery
	source string
	id     string
}

// newLanes begins a term: sequences up to high were delivered before, holds wait
// for an operator, and parked are keys with parked messages. room is told how many messages came since the oldest
// that is not settled, whenever that changed.
func newLanes(high uint64, holds []envelope.HeldKey, parked []string, room func(ahead int), mayPark func() bool) *lanes {
	l := &lanes{mayPark: mayPark, track: newTrack(high, room), keys: map[string]*keyLane{}, holds: map[string]string{}, parked: map[string]uint64{}}
	for _, key := range parked {
		l.park(key)
	}
	l.enough = enoughMarks(l.parked)
	for _, h := range holds {
		l.hold(h)
	}
	return l
}

// arrive decides on a delivery of the main durable. Only one that is taken gets a
// ticket, and must be opened.
func (l *lanes) arrive(m *message, from string) (fate, *ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, again := l.track.arrive(m, from)
	if f != taken {
		return f, nil
	}
	t := &ticket{sequence: m.sequence, again: again, turn: make(chan struct{})}
	l.arrivals = append(l.arrivals, t)
	return taken, t
}

// arriveAside takes a delivery of the replay durable, or a parked message.
func (l *lanes) arriveAside(m *message) *ticket {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &ticket{again: m.delivered > 1 || m.parked != nil, first: m.parked != nil, turn: make(chan struct{})}
	l.arrivals = append(l.arrivals, t)
	return t
}

// open completes a ticket. Messages are decoded in parallel; they enter their
// lanes in the order in which they came.
func (l *lanes) open(t *ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.opened = true
	n := 0
	for ; n < len(l.arrivals) && l.arrivals[n].opened; n++ {
		l.enter(l.arrivals[n])
		l.arrivals[n] = nil
	}
	l.arrivals = l.arrivals[n:]
}

func (l *lanes) enter(t *ticket) {
	if !t.keyed {
		close(t.turn)
		return
	}
	k := l.lane(t.key)
	if t.first {
		k.waiting = slices.Insert(k.waiting, 0, t)
	} else {
		k.waiting = append(k.waiting, t)
	}
	l.next(k)
}

func (l *lanes) lane(key string) *keyLane {
	k := l.keys[key]
	if k == nil {
		k = &keyLane{}
		l.keys[key] = k
	}
	return k
}

// next gives the turn to the first in the lane, if it is anybody's. While the key
// waits for an operator it is that of what the operator decides about; others get
// it to be parked, so that they hold no places of the durable.
func (l *lanes) next(k *keyLane) {
	i, aside := 0, false
	if k.hold != nil {
		if i = slices.IndexFunc(k.waiting, k.passes); i < 0 && l.mayPark() {
			i = slices.IndexFunc(k.waiting, func(t *ticket) bool { return t.sequence > 0 })
			aside = true
		}
	}
	if k.running != nil || i < 0 || i >= len(k.waiting) {
		return
	}
	k.running = k.waiting[i]
	k.running.aside = aside
	k.waiting = slices.Delete(k.waiting, i, i+1)
	close(k.running.turn)
}

// passes reports whether t is what holds the lane: the replay of its letter, or
// the message itself, come again because terminating it was lost.
func (k *keyLane) passes(t *ticket) bool {
	if k.hold == nil {
		return false
	}
	return t.letter == k.hold.LetterID || t.letter == "" && t.source == k.hold.Source && t.id == k.hold.MessageID
}

// yield lets a parked message of its key, if one is here, go before t, whose turn
// it is and which waits for room: the other would make it.
func (l *lanes) yield(t *ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.keys[t.key]
	if len(k.waiting) == 0 || !k.waiting[0].first {
		return
	}
	t.turn, t.aside = make(chan struct{}), false
	k.waiting = slices.Insert(k.waiting, 1, t)
	k.running = nil
	l.next(k)
}

// leave ends the turn of a settled message.
func (l *lanes) leave(t *ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.sequence > 0 {
		l.track.settle(t.sequence)
	}
	if !t.keyed {
		return
	}
	k := l.keys[t.key]
	k.running = nil
	l.advance(t.key, k)
}

func (l *lanes) advance(key string, k *keyLane) {
	l.next(k)
	if k.running == nil && len(k.waiting) == 0 && k.hold == nil {
		delete(l.keys, key)
	}
}

// park notes that a message of a key is parked, or may be: its followers must be,
// too. many tells that it is time to hold the marks against the store. unpark notes
// that none is any more, and isParked tells.
func (l *lanes) park(key string) (many bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks++
	l.parked[key] = l.marks
	return len(l.parked) >= l.enough
}

// enoughMarks lets the marks double before the store is asked about them.
func enoughMarks(parked map[string]uint64) int { return 2*len(parked) + 256 }

// marked returns the number of the last mark, before the store is asked for the
// parked keys. unmark removes the marks up to there of all others.
func (l *lanes) marked() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enough = math.MaxInt // one asks
	return l.marks
}

func (l *lanes) unmark(upTo uint64, parked []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := make(map[string]uint64, len(parked))
	for _, key := range parked {
		kept[key] = upTo
	}
	for key, mark := range l.parked {
		if mark > upTo {
			kept[key] = mark
		}
	}
	l.parked, l.enough = kept, enoughMarks(kept)
}

func (l *lanes) unpark(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.parked, key)
}

func (l *lanes) isParked(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parked[key] > 0
}

// hold keeps a key waiting for an operator.
func (l *lanes) hold(h envelope.HeldKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.lane(h.Key)
	if k.hold != nil {
		delete(l.holds, k.hold.LetterID)
	}
	k.hold = &h
	l.holds[h.LetterID] = h.Key
}

// unhold lets the key go on that waits for a letter.
func (l *lanes) unhold(letter string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key, ok := l.holds[letter]
	if !ok {
		return
	}
	delete(l.holds, letter)
	k := l.keys[key]
	k.hold = nil
	l.advance(key, k)
}

// heldByOther reports whether a key waits for a letter other than the given one.
func (l *lanes) heldByOther(key, letter string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.keys[key]
	return k != nil && k.hold != nil && k.hold.LetterID != letter
}

// decided returns the letter that a key waits for and that the message of t, now
// handled, is or replays. An ordinary delivery that was a duplicate says nothing:
// the message may be dead.
func (l *lanes) decided(t *ticket, duplicate bool) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.letter != "" {
		if _, ok := l.holds[t.letter]; ok {
			return t.letter
		}
		return ""
	}
	if k := l.keys[t.key]; !duplicate && k != nil && k.passes(t) {
		return k.hold.LetterID
	}
	return ""
}

// letters returns the letters that hold keys.
func (l *lanes) letters() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	letters := make([]string, 0, len(l.holds))
	for letter := range l.holds {
		letters = append(letters, letter)
	}
	return letters
}

// shut takes nothing until reset, and returns the number of the last delivery
// that was taken since the previous one.
func (l *lanes) shut() (last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.track.shut()
}

// fruitless reports whether the last reset brought nothing. See track.fruitless.
func (l *lanes) fruitless() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.track.fruitless()
}

// reset takes the deliveries of a subscription. See track.reset.
func (l *lanes) reset(from string, floor, high uint64, foreign bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.track.reset(from, floor, high, foreign)
}
