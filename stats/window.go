package stats

import (
	"math"
	"slices"
)

// MaxSlots is the largest number of slots a [Window] can have.
const MaxSlots = 1 << 15

// A Window is a sliding sum: amounts go in under an index, which is a time divided by the length of a slot, and the
// sum over the newest slots comes out. Amounts may arrive late and in any order within the window.
//
// A Window keeps only slots that hold something, six bytes each, so one of 3,600 slots of which 360 are in use costs
// about 2 KB. Sums are exact as long as amounts are: a slot holds any float64 between 2^-95 and 2^127 without loss.
// The zero Window has no slots and refuses everything; use [NewWindow]. It is not safe for concurrent use.
type Window struct {
	// ring holds entries of three words: the low 16 bits of the index and the halves of a float32. Entries are in order
	// of index, and an amount that a float32 cannot hold takes two or three entries of the same index. The index is
	// known in full because every entry is less than 2*MaxSlots below newest. Entries that have left the window stay until
	// their room is needed: taking them out one by one would cost a memory access each time.
	ring  []uint16
	head  int32 // first entry
	n     int32 // entries in use
	slots int32 // W
	set   bool  // newest means something

	newest int64 // M, the largest index ever inserted
	swept  int64 // newest when entries were last taken out
}

const entryWords = 3

// NewWindow returns a Window over the given number of slots, which is brought into the range from 1 to [MaxSlots].
func NewWindow(slots int) Window {
	return Window{slots: int32(min(max(slots, 1), MaxSlots))}
}

// Slots returns the number of slots.
func (w *Window) Slots() int { return int(w.slots) }

// Insert adds v to the slot with index i and reports whether it did. It refuses a slot that has left the window, and
// amounts that are not a number or not below 2^127.
//
// BTCPool takes one slot too many and adds its amount to the newest; here a slot W below the newest has left.
func (w *Window) Insert(i int64, v float64) bool {
	if w.slots <= 0 || !(math.Abs(v) < 1<<127) {
		return false
	}
	if w.set && i <= w.gone() {
		return false
	}
	if !w.set || i > w.newest {
		w.advance(i)
	}
	if v != 0 {
		w.add(i, v)
	}
	return true
}

// advance makes i the newest index.
func (w *Window) advance(i int64) {
	if !w.set || i-w.newest >= int64(w.slots) {
		w.head, w.n = 0, 0
		w.newest, w.swept, w.set = i, i, true
		return
	}
	if i-w.swept >= MaxSlots { // so that entries stay less than 2*MaxSlots below newest
		w.sweep()
	}
	w.newest = i
}

// sweep takes out the entries that have left the window.
func (w *Window) sweep() {
	for w.n > 0 && w.index(w.pos(0)) <= w.gone() {
		w.head = int32(w.pos(1))
		w.n--
	}
	w.swept = w.newest
}

// gone is the newest index that has left the window.
func (w *Window) gone() int64 { return w.newest - int64(w.slots) }

// pos returns the place of entry k, k = 0 being the oldest, in units of entries.
func (w *Window) pos(k int32) int {
	p := int(w.head + k)
	if c := len(w.ring) / entryWords; p >= c {
		p -= c
	}
	return p
}

// index returns the full index of the entry at place p.
func (w *Window) index(p int) int64 {
	return w.newest - int64(uint16(w.newest)-w.ring[p*entryWords])
}

func (w *Window) value(p int) float64 {
	e := w.ring[p*entryWords : p*entryWords+entryWords : p*entryWords+entryWords]
	return float64(math.Float32frombits(uint32(e[1]) | uint32(e[2])<<16))
}

func (w *Window) put(p int, i int64, v float32) {
	e := w.ring[p*entryWords : p*entryWords+entryWords : p*entryWords+entryWords]
	b := math.Float32bits(v)
	e[0], e[1], e[2] = uint16(i), uint16(b), uint16(b>>16)
}

// add adds v to slot i, which is in the window.
func (w *Window) add(i int64, v float64) {
	k := w.n // entries after place k-1 are newer than i
	for k > 0 {
		p := w.pos(k - 1)
		if at := w.index(p); at < i {
			break
		} else if at == i {
			if sum := w.value(p) + v; float64(float32(sum)) == sum {
				w.put(p, i, float32(sum))
				return
			}
			// The slot needs more digits than its last entry has: take all of it apart again.
			for k > 0 && w.index(w.pos(k-1)) == i {
				v += w.value(w.pos(k - 1))
				w.remove(k - 1)
				k--
			}
			break
		}
		k--
	}
	for v != 0 {
		part := float32(v)
		k = w.insertAt(k, i, part)
		v -= float64(part)
		if math.Abs(float64(part)) < 1e-37 {
			return // what is left is below any amount there is
		}
		k++
	}
}

// insertAt makes room before entry k, which old entries may leave with a smaller number, and returns that.
func (w *Window) insertAt(k int32, i int64, v float32) int32 {
	if c := len(w.ring) / entryWords; int(w.n) == c {
		before := w.n
		w.sweep()
		k -= before - w.n
		if int(w.n) > c-c/16-1 {
			w.grow()
		}
	}
	w.n++
	for m := w.n - 1; m > k; m-- {
		from, to := w.pos(m-1)*entryWords, w.pos(m)*entryWords
		copy(w.ring[to:to+entryWords], w.ring[from:from+entryWords])
	}
	w.put(w.pos(k), i, v)
	return k
}

func (w *Window) remove(k int32) {
	for m := k; m < w.n-1; m++ {
		from, to := w.pos(m+1)*entryWords, w.pos(m)*entryWords
		copy(w.ring[to:to+entryWords], w.ring[from:from+entryWords])
	}
	w.n--
}

// grow gives the ring an eighth more room, and what the allocator would give in any case. Doubling would leave half of
// a worker's memory empty for its lifetime.
func (w *Window) grow() {
	c := len(w.ring) / entryWords
	entries := c + max(4, c/8)
	if most := int(w.slots) + int(w.slots)/16 + 1; c < most {
		entries = min(entries, most) // one entry a slot is the usual case
	}
	ring := slices.Grow([]uint16(nil), entries*entryWords)
	ring = ring[:cap(ring)/entryWords*entryWords]
	for k := range w.n {
		p := w.pos(k) * entryWords
		copy(ring[int(k)*entryWords:], w.ring[p:p+entryWords])
	}
	w.ring, w.head = ring, 0
}

// Sum returns the sum over the n slots that end with index end, both the slot that is still filling and slots that
// have left the window taken into account: those count as empty.
func (w *Window) Sum(end int64, n int) float64 {
	n = min(n, int(w.slots))
	if n <= 0 || !w.set || end-int64(n) >= w.newest {
		return 0
	}
	var sum float64
	from := max(end-int64(n), w.gone())
	for k := w.n; k > 0; k-- {
		p := w.pos(k - 1)
		i := w.index(p)
		if i <= from {
			break
		}
		if i <= end {
			sum += w.value(p)
		}
	}
	return sum
}

// Sums is Sum for several numbers of slots, which must ascend, in one pass; it sets dst[j] to Sum(end, n[j]).
func (w *Window) Sums(dst []float64, end int64, n []int) {
	clear(dst)
	if !w.set {
		return
	}
	var sum float64
	j := 0
	for k := w.n; k > 0 && j < len(n); k-- {
		p := w.pos(k - 1)
		i := w.index(p)
		if i <= w.gone() {
			break
		}
		for j < len(n) && i <= end-int64(min(n[j], int(w.slots))) {
			dst[j] = sum
			j++
		}
		if i <= end {
			sum += w.value(p)
		}
	}
	for ; j < len(n); j++ {
		if n[j] > 0 {
			dst[j] = sum
		}
	}
}

// Oldest returns the index of the oldest slot that holds something among the n that end with index end, and false
// when all are empty.
func (w *Window) Oldest(end int64, n int) (int64, bool) {
	n = min(n, int(w.slots))
	for k := range w.n {
		if i := w.index(w.pos(k)); i > end {
			break
		} else if i > end-int64(n) && i > w.gone() {
			return i, true
		}
	}
	return 0, false
}

// Scale multiplies every slot by f. An f that is not finite is ignored.
func (w *Window) Scale(f float64) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return
	}
	w.sweep()
	old := *w
	w.ring, w.head, w.n = nil, 0, 0
	old.each(func(i int64, v float64) {
		if v *= f; v != 0 && math.Abs(v) < 1<<127 {
			w.add(i, v)
		}
	})
}

// each calls f with the slots that hold something, oldest first.
func (w *Window) each(f func(i int64, v float64)) {
	for k := int32(0); k < w.n; {
		i := w.index(w.pos(k))
		var v float64
		for ; k < w.n && w.index(w.pos(k)) == i; k++ {
			v += w.value(w.pos(k))
		}
		f(i, v)
	}
}

// coarsen turns w into a window with slots f times as long.
func (w *Window) coarsen(f int64) {
	w.sweep()
	c := NewWindow(int((int64(w.slots) + f - 1) / f))
	w.each(func(i int64, v float64) { c.Insert(i/f, v) })
	*w = c
}

// Clear empties the window, frees its memory and forgets the newest index.
func (w *Window) Clear() { *w = Window{slots: w.slots} }
