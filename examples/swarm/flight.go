package main

// A flight is a submit without a reply, with what it takes to send it again.
type flight struct {
	at      int64 // when it was sent, or sent again
	en2     uint64
	job     string
	epoch   uint32 // of the work, see conn.epoch
	ntime   uint32
	nonce   uint32
	version uint32
	size    uint8 // of the extranonce2 in bytes
	open    bool
	resent  bool
}

// flights are the submits of a connection in the order of their numbers, which count from 0. Replies may come in any
// order. It holds nothing until the first submit, and grows to what is really in flight.
type flights struct {
	ring  []flight // its length is a power of two; number n is at n modulo that
	first uint32   // the oldest that may be open
	next  uint32   // the number of the next submit
	open  int      // without a reply
}

// push returns the place for the next submit, or nil when limit are in flight.
func (f *flights) push(limit int) (fl *flight, number uint32) {
	used := int(f.next - f.first)
	if f.open >= limit || used >= 2*maxPendingLimit {
		return nil, 0
	}
	if used == len(f.ring) {
		ring := make([]flight, max(4, 2*used))
		for n := f.first; n != f.next; n++ {
			ring[int(n)&(len(ring)-1)] = f.ring[int(n)&(len(f.ring)-1)]
		}
		f.ring = ring
	}
	number = f.next
	f.next++
	f.open++
	fl = &f.ring[int(number)&(len(f.ring)-1)]
	fl.open = true
	return fl, number
}

// take returns the open flight with a number, which is closed then, or nil. What it points to is good until the next
// push.
func (f *flights) take(number uint32) *flight {
	if number-f.first >= f.next-f.first {
		return nil
	}
	fl := &f.ring[int(number)&(len(f.ring)-1)]
	if !fl.open {
		return nil
	}
	fl.open = false
	f.open--
	for f.first != f.next && !f.ring[int(f.first)&(len(f.ring)-1)].open {
		f.first++
	}
	return fl
}

// takeIndex is take for a number of which only the lower 16 bits are known.
func (f *flights) takeIndex(index uint16) *flight {
	return f.take(f.first + uint32(index-uint16(f.first)))
}

// each calls fn for the open flights in the order they were sent in.
func (f *flights) each(fn func(number uint32, fl *flight)) {
	for n := f.first; n != f.next; n++ {
		if fl := &f.ring[int(n)&(len(f.ring)-1)]; fl.open {
			fn(n, fl)
		}
	}
}

// drop forgets all flights and returns how many were open. Numbers go on, so that a late reply meets nobody.
func (f *flights) drop() int {
	n := f.open
	f.first, f.open = f.next, 0
	clear(f.ring)
	return n
}
