package difficulty

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// What VardiffOptions stands for when its fields are zero, and what it may at most ask for.
const (
	defaultStart    Difficulty = 16384
	defaultMin      Difficulty = 64
	defaultInterval            = 10 * time.Second
	defaultWindow              = 900 * time.Second

	maxSlots  = 4096 // of one window
	maxLevels = 256
)

// The fixed proportions of BTCPool's algorithm.
const (
	tooFast     = 1.40 // of the expected shares: above it the difficulty rises
	tooSlow     = 0.40 // of the expected shares: below it the difficulty falls
	slowStart   = time.Minute
	enterLevel  = 1.50 // of a level's hashrate: at it a miner rises into the level
	leaveLevel  = 0.75 // of a level's hashrate: at it a miner falls out of the level
	enoughToSay = 10   // shares that a decision before the window is full is made from, with Improved
)

// VardiffOptions tune a [Vardiff]. The zero value is BTCPool's algorithm with the values that BTCPool ships.
//
// Every difficulty that a Vardiff uses is a power of two: Start and Min are rounded up to one and Max is rounded down.
type VardiffOptions struct {
	Start Difficulty // of a miner nobody knows; 0 means 16384, brought within Min and Max
	Min   Difficulty // lowest that is assigned, at least [Min]; 0 means 64, or Max if that is lower
	Max   Difficulty // highest that is assigned; 0 means [Max], which is 2^62

	// Interval is the average time between shares that is aimed at, and how finely the window is divided. It is at
	// least a second; 0 means 10 s. The time that a miner settles at is between 0.7 and 2.5 of it.
	Interval time.Duration

	// Window is the time over which shares are counted. It is at least Interval and at most 4096 of it; 0 means 900 s.
	Window time.Duration

	// Improved departs from BTCPool in how a new miner finds its difficulty. BTCPool compares a window that is not
	// full yet with what a full one should hold, so a fast miner climbs in several steps for a quarter of an hour,
	// overshoots and falls back. Improved compares with what should have come in the time that has passed, at the
	// miner's own level, so that the first decision from ten shares or more is the final one, up or down. It also
	// weighs a share by the difficulty it was found at, where BTCPool counts one for each: shares still on their way
	// after a step up do not cause another, and bounds that the caller applies are seen.
	Improved bool

	// Levels say how many more shares are wanted from large miners, so that their hashrate shows more smoothly. Nil
	// means [BTCPoolLevels]. Of a table of one's own the first entry is from hashrate 0 and the others rise.
	Levels []VardiffLevel
}

// A VardiffLevel is a class of miners, from a hashrate up.
//
// A miner enters a level from below at 1.5 times From and leaves it downwards at 0.75 times From, so that one between
// the two does not go to and fro.
type VardiffLevel struct {
	From   Hashrate // hashes per second at which the level begins
	Factor float64  // number of shares wanted, as a multiple of Window/Interval; at most one share a second is wanted
}

var btcpoolLevels = [...]VardiffLevel{
	{0, 1}, {4e12, 1}, {8e12, 1}, {16e12, 1.2}, {32e12, 1.5}, {64e12, 2}, {128e12, 3}, {256e12, 4}, {512e12, 6},
}

// BTCPoolLevels returns the levels that BTCPool has: nine, from 0 to 512 TH/s, the highest with 6 times the shares of
// the lowest. The slice is the caller's, to change or extend.
func BTCPoolLevels() []VardiffLevel {
	return append([]VardiffLevel(nil), btcpoolLevels[:]...)
}

// A Vardiff keeps one miner near a steady rate of shares: it counts them over a sliding window and doubles or halves
// the difficulty when there are more than 1.4 or fewer than 0.4 times as many as there should be. Unless
// [VardiffOptions.Improved] says otherwise it takes every decision that BTCPool takes, at the same job:
//
//   - until the window has filled once, a miner that sends no more than one share a minute is halved with every job
//     from the first minute on;
//   - too many shares are acted on at any time, by as many doublings as bring their number to what it should be;
//   - too few are acted on once the window has filled, by as many halvings;
//   - from then on the number that there should be grows with the miner's hashrate.
//
// A Vardiff reads no clock and starts nothing. It holds 160 bytes, and 720 more for the default window (360 with
// Improved) from the first share until the miner has been silent for a window. Observe and Next otherwise allocate
// nothing.
type Vardiff struct {
	lo, hi   Difficulty // bounds from the options
	min      Difficulty // at least lo
	max      Difficulty // at most hi; has the last word
	cur      Difficulty
	interval time.Duration
	window   time.Duration
	levels   []VardiffLevel

	// slots are rings of one float32 for each interval of the window. BTCPool doubles and halves its share counts with
	// every change of difficulty; counting each share as the difficulty of that moment, and dividing the total by the
	// present one, is the same and touches nothing. Powers of two keep it exact up to 2^24 shares in a slot.
	//
	// The first ring is that. The second sums what the shares were worth. With improved both are the same one. Nil is
	// a window without shares.
	slots []float32

	base  time.Time     // the first time seen
	phase time.Duration // of base within its interval of Unix time
	at    time.Duration // the latest time seen, counted from base-phase
	start time.Duration // of the first job, likewise; negative before it
	seen  uint32        // shares since start; saturates

	level    uint8
	improved bool
}

var (
	_ Resetter  = (*Vardiff)(nil)
	_ MinSetter = (*Vardiff)(nil)
	_ MaxSetter = (*Vardiff)(nil)
	_ Keeper    = (*Vardiff)(nil)
)

// NewVardiff returns a Vardiff for one miner; nil means default options. It fails when the options contradict each
// other or ask for what cannot be had, and reports all that is wrong with them.
func NewVardiff(opts *VardiffOptions) (*Vardiff, error) {
	var o VardiffOptions
	if opts != nil {
		o = *opts
	}
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("difficulty: vardiff: "+format, args...))
	}
	bound := func(name string, d Difficulty) bool {
		if d == 0 || d.Valid() && d >= Min && d <= Max {
			return d != 0
		}
		wrong("%s %v is not within [2^-32, 2^62]", name, d)
		return false
	}

	hi, hiSet := Max, bound("Max", o.Max)
	if hiSet {
		hi = o.Max.FloorPow2()
	}
	lo, loSet := min(defaultMin, hi), bound("Min", o.Min)
	if loSet {
		lo = o.Min.CeilPow2()
		if lo > hi {
			wrong("Min %v is above Max %v", lo, hi)
		}
	}
	start := max(lo, min(defaultStart, hi))
	if bound("Start", o.Start) {
		start = o.Start.CeilPow2()
		if start < lo || start > hi {
			wrong("Start %v is not within Min %v and Max %v", start, lo, hi)
		}
	}

	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	switch {
	case o.Interval < time.Second:
		wrong("Interval %v is below 1s", o.Interval)
	case o.Window < o.Interval:
		wrong("Window %v is below Interval %v", o.Window, o.Interval)
	case o.Window/o.Interval > maxSlots:
		wrong("Window %v is more than %d times Interval %v", o.Window, maxSlots, o.Interval)
	}

	levels := btcpoolLevels[:]
	if o.Levels != nil {
		levels = append([]VardiffLevel(nil), o.Levels...)
		switch {
		case len(levels) == 0:
			wrong("Levels is empty")
		case len(levels) > maxLevels:
			wrong("Levels has %d entries, more than %d", len(levels), maxLevels)
		case levels[0].From != 0:
			wrong("Levels begins at %v, not at 0", levels[0].From)
		}
		for i, l := range levels {
			if i > 0 && !(l.From > levels[i-1].From) || math.IsInf(float64(l.From), 1) {
				wrong("Levels[%d] from %v does not rise from the one before", i, l.From)
			}
			if !(l.Factor > 0) || math.IsInf(l.Factor, 1) {
				wrong("Levels[%d] has factor %v, not a positive finite number", i, l.Factor)
			}
		}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return &Vardiff{
		lo: lo, hi: hi, min: lo, max: hi, cur: start,
		interval: o.Interval, window: o.Window, levels: levels,
		start: -1, improved: o.Improved,
	}, nil
}

// Observe counts a share. A d that is not valid is work worth nothing: it counts as a share all the same, as in
// BTCPool, but with Improved it does not.
func (v *Vardiff) Observe(now time.Time, d Difficulty) {
	if !v.tick(now) {
		return
	}
	if !d.Valid() {
		if v.improved {
			return
		}
		d = 0
	}
	d = min(d, Max)
	n := v.ring()
	if v.slots == nil {
		size := 2 * n
		if v.improved {
			size = n
		}
		v.slots = make([]float32, size)
	}
	i := int(v.slot() % int64(n))
	if v.improved {
		v.slots[i] += float32(d)
	} else {
		v.slots[i] += float32(v.cur)
		v.slots[n+i] += float32(d)
	}
	if v.seen < math.MaxUint32 {
		v.seen++
	}
}

// Next decides about the shares so far and returns the difficulty for the next job, a power of two.
func (v *Vardiff) Next(now time.Time) Difficulty {
	if v.tick(now) {
		v.decide()
	}
	return v.cur
}

// SetMin raises the lowest difficulty for this miner to m, rounded up to a power of two, or lowers it again, but never
// below [VardiffOptions].Min: what a miner asks for with minimum-difficulty or its password. A difficulty below m goes
// up to m at once, which it does not in BTCPool: there a fast miner's first doublings are lost on catching up with m.
// An m that is not valid, such as 0, means [VardiffOptions].Min.
func (v *Vardiff) SetMin(m Difficulty) {
	v.min = v.lo
	if m.Valid() {
		v.min = v.bound(m)
	}
	v.follow()
}

// SetMax lowers the highest difficulty for this miner to m, rounded down to a power of two, or raises it again, but
// never above [VardiffOptions].Max nor below Min. A difficulty above m goes down to it at once, even if SetMin asked
// for more. An m that is not valid, such as 0, means [VardiffOptions].Max.
func (v *Vardiff) SetMax(m Difficulty) {
	v.max = v.hi
	if m.Valid() {
		v.max = min(max(m.FloorPow2(), v.lo), v.hi)
	}
	v.follow()
}

// follow brings the present difficulty within what SetMin and SetMax leave.
func (v *Vardiff) follow() { v.cur = min(max(v.cur, v.min), v.max) }

// Reset forgets every share and starts over from d, rounded up to a power of two and bounded by the options,
// SetMin and SetMax. A d that is not valid changes nothing.
//
// Starting over includes the time until the window is full. In BTCPool it does not, and a miner whose difficulty is set
// late falls to the minimum with the next job, because its window is empty and counts as full.
func (v *Vardiff) Reset(d Difficulty) {
	if !d.Valid() {
		return
	}
	v.cur = v.bound(d)
	v.follow()
	v.slots = nil
	v.start = -1
	v.seen = 0
	v.level = 0
}

// State returns the present difficulty and the hashrate of the window, or of the time since the first job while that is
// shorter.
func (v *Vardiff) State(now time.Time) State {
	if !v.tick(now) || v.start < 0 {
		return State{At: now, Difficulty: v.cur}
	}
	return knownFrom(now, v.cur, v.work(), min(v.at-v.start, v.window))
}

// Restore is Reset to the difficulty of s, unless s is older than it is worth: than the time that its shares took, but
// at least 10 minutes and at most a day. Then, and when s is not valid, it changes nothing.
func (v *Vardiff) Restore(now time.Time, s State) {
	if s.fresh(now) {
		v.Reset(s.Difficulty)
	}
}

// lowest returns the lowest difficulty that is allowed at present.
func (v *Vardiff) lowest() Difficulty { return min(v.min, v.max) }

func (v *Vardiff) bound(d Difficulty) Difficulty { return min(max(d.CeilPow2(), v.lo), v.hi) }

// decide is the algorithm; the steps are in BTCPool's order, and at most one of them acts.
func (v *Vardiff) decide() {
	if v.start < 0 {
		v.start = v.at
	}
	elapsed := v.at - v.start
	full := elapsed >= v.window
	span := v.window
	known := full // whether the hashrate is
	if v.improved && !full && v.seen >= enoughToSay && elapsed >= v.interval {
		span = elapsed
		known = true
	}

	want := math.Round(float64(v.window) / float64(v.interval))
	if known {
		v.updateLevel(HashrateOf(v.work(), span))
		want *= v.levels[v.level].Factor
	}
	want = min(want, v.window.Seconds())
	if span < v.window {
		want *= float64(span) / float64(v.window)
	}
	got := v.count()

	switch {
	case !known && elapsed >= slowStart && got <= float64(elapsed/slowStart) && v.cur >= 2*v.lowest():
		v.cur /= 2
	case got > tooFast*want:
		for ; got > want && v.cur < v.max; got /= 2 {
			v.cur *= 2
		}
	case known:
		for ; got < tooSlow*want && v.cur >= 2*v.lowest(); got *= 2 {
			v.cur /= 2
		}
	}
}

func (v *Vardiff) updateLevel(h Hashrate) {
	level := int(v.level)
	switch top := len(v.levels) - 1; {
	case level > 0 && h < v.levels[level].From:
		for level > 0 && h <= leaveLevel*v.levels[level].From {
			level--
		}
	default:
		for level < top && h >= enterLevel*v.levels[level+1].From {
			level++
		}
	}
	v.level = uint8(level)
}

// count returns how many shares of the present difficulty the window holds.
func (v *Vardiff) count() float64 {
	if v.slots == nil {
		return 0
	}
	return total(v.slots[:v.ring()]) / float64(v.cur)
}

// work returns the sum of the difficulties of the shares in the window.
func (v *Vardiff) work() Difficulty {
	if v.improved || v.slots == nil {
		return Difficulty(total(v.slots))
	}
	return Difficulty(total(v.slots[v.ring():]))
}

func total(slots []float32) float64 {
	var sum float64
	for _, s := range slots {
		sum += float64(s)
	}
	return sum
}

// ring returns the number of slots in the window.
func (v *Vardiff) ring() int { return int(v.window / v.interval) }

// slot returns the number of the present interval.
func (v *Vardiff) slot() int64 { return int64(v.at / v.interval) }

// tick moves the window on to now. A time before one that was seen counts as that one. The zero Time before any other
// is no time at all, and tick returns false; the window would be full of nothing when the real time comes.
func (v *Vardiff) tick(now time.Time) bool {
	if v.base.IsZero() {
		if now.IsZero() {
			return false
		}
		v.base = now
		// BTCPool's slots begin at whole multiples of the interval in Unix time.
		v.phase = now.Sub(time.Unix(0, 0)) % v.interval
		if v.phase < 0 {
			v.phase += v.interval
		}
		v.at = v.phase
		return true
	}
	// Sub reads the monotonic clock where both times have one, so a wall clock that is set changes nothing. An overflow,
	// after 292 years, is a time before.
	at := now.Sub(v.base) + v.phase
	if at <= v.at {
		return true
	}
	before := v.slot()
	v.at = at
	if v.slots == nil {
		return true
	}
	n := int64(v.ring())
	after := v.slot()
	if after-before >= n {
		v.slots = nil
		return true
	}
	for i := before + 1; i <= after; i++ {
		v.slots[i%n] = 0
		if !v.improved {
			v.slots[n+i%n] = 0
		}
	}
	return true
}
