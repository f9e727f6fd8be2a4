package stats

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
)

const (
	hour   = 3600 // seconds a share stays live, and of silence after which a worker is gone
	minute = 60

	// largeSlot is the length of the large window's slots. Two minutes of three hours are 1.1 %; an hour of shares tells a
	// hashrate to 5 %.
	largeSlot = 120

	// coarseEntries is the size at which a worker's accepted window goes from 1 s to 10 s slots. So many entries are
	// 2.5 KB, which leaves the other windows and the worker itself room within 4 KB; a sixteenth of them may be old.
	coarseEntries = 420
)

// A counter is what workers, users and the pool have in common. Times are Unix seconds, 0 for never.
type counter struct {
	accept Window // slots of c.slot seconds over an hour
	large  Window // slots of largeSlot over the large window
	other  []otherCounter

	acceptCount uint64
	accepted    Tally

	first, last, lastAccept int64

	ip   netip.Addr
	slot int64
}

// An otherCounter counts one verdict that is not accepted.
type otherCounter struct {
	VerdictTally
	window Window // slots of a minute over an hour
}

func (c *counter) init(o *Options) {
	c.slot = int64(o.AcceptSlot / time.Second)
	c.accept = NewWindow(int(hour / c.slot))
	c.large = NewWindow(largeSlots(o))
}

// count adds one share of time t.
func (c *counter) count(now, t int64, v share.Verdict, accepted bool, d difficulty.Difficulty) {
	if accepted {
		c.acceptCount++
		c.accepted.Count++
		c.accepted.Sum += d
		c.lastAccept = max(c.lastAccept, t)
	} else {
		o := c.verdict(v)
		o.Count++
		o.Sum += d
	}
	c.window(now, t, v, accepted, d)
}

// window adds d to the windows only.
func (c *counter) window(now, t int64, v share.Verdict, accepted bool, d difficulty.Difficulty) {
	switch live := now-t <= hour; {
	case accepted:
		if live {
			c.accept.Insert(t/c.slot, float64(d))
		}
		c.large.Insert(t/largeSlot, float64(d))
	case live:
		c.verdict(v).window.Insert(t/minute, float64(d))
	}
}

func (c *counter) seen(t int64, ip netip.Addr) {
	if t >= c.last {
		c.last = t
		if ip.IsValid() {
			c.ip = ip
		}
	}
	if c.first == 0 || t < c.first {
		c.first = t
	}
}

func (c *counter) verdict(v share.Verdict) *otherCounter {
	i := 0
	for ; i < len(c.other) && c.other[i].Verdict <= v; i++ {
		if c.other[i].Verdict == v {
			return &c.other[i]
		}
	}
	c.other = slices.Insert(c.other, i, otherCounter{VerdictTally{Verdict: v}, NewWindow(hour / minute)})
	return &c.other[i]
}

// rest sets the counter back to what a new object has, but for the large window and the last share. A worker loses
// its totals; a user keeps them.
func (c *counter) rest(o *Options, keepTotals bool) {
	c.acceptCount = 0
	c.slot = int64(o.AcceptSlot / time.Second)
	c.accept = NewWindow(int(hour / c.slot))
	if keepTotals {
		for i := range c.other {
			c.other[i].window.Clear()
		}
		return
	}
	c.other, c.accepted, c.first = nil, Tally{}, 0
}

// load takes over what a Total says.
func (c *counter) load(t *Total) {
	c.acceptCount, c.accepted = t.AcceptCount, t.Accepted
	c.first, c.last, c.lastAccept = unix(t.First), unix(t.LastShare), unix(t.LastAccepted)
	c.ip = t.LastIP
	for _, o := range t.Other {
		c.verdict(o.Verdict).Tally = o.Tally
	}
}

// total is the opposite of load.
func (c *counter) total(k Key) Total {
	t := Total{
		Key: k, AcceptCount: c.acceptCount, Accepted: c.accepted,
		First: fromUnix(c.first), LastShare: fromUnix(c.last), LastAccepted: fromUnix(c.lastAccept), LastIP: c.ip,
	}
	if len(c.other) > 0 {
		t.Other = make([]VerdictTally, len(c.other))
		for i := range c.other {
			t.Other[i] = c.other[i].VerdictTally
		}
	}
	return t
}

func largeSlots(o *Options) int { return int(o.LargeWindow / (largeSlot * time.Second)) }

// within returns the time of the counter's first share if it lies in slot i, and else when that slot begins.
func (c *counter) within(i, slot int64) int64 {
	if c.first/slot == i {
		return c.first
	}
	return i * slot
}

// gone reports whether the last share is more than an hour old.
func (c *counter) gone(now int64) bool { return c.last+hour < now }

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}

// live is the window part of Live at one moment.
func (c *counter) live(now int64, o *Options) Live {
	l := Live{
		AcceptCount: c.acceptCount, Accepted: c.accepted,
		FirstShare: fromUnix(c.first), LastShare: fromUnix(c.last), LastAccepted: fromUnix(c.lastAccept), LastIP: c.ip,
	}
	if c.gone(now) {
		l.AcceptCount = 0
	}
	var sums [5]float64
	slots := func(d time.Duration) int { return int(int64(d/time.Second) / c.slot) }
	small := slots(o.SmallWindow)
	// The windows that sums are taken over must ascend, so the small one is put where it belongs.
	n := [5]int{slots(time.Minute), slots(5 * time.Minute), slots(15 * time.Minute), slots(time.Hour), small}
	order := [5]int{0, 1, 2, 3, 4}
	slices.SortFunc(order[:], func(a, b int) int { return n[a] - n[b] })
	var sorted [5]int
	for i, j := range order {
		sorted[i] = n[j]
	}
	end := now / c.slot
	c.accept.Sums(sums[:], end, sorted[:])
	dst := [5]*difficulty.Difficulty{&l.Accept1m, &l.Accept5m, &l.Accept15m, &l.Accept1h, &l.Small.Sum}
	for i, j := range order {
		*dst[j] = difficulty.Difficulty(sums[i])
	}
	if first, ok := c.accept.Oldest(end, small); ok {
		l.Small.First = fromUnix(c.within(first, c.slot))
	}

	n3 := largeSlots(o)
	l.Large.Sum = difficulty.Difficulty(c.large.Sum(now/largeSlot, n3))
	if first, ok := c.large.Oldest(now/largeSlot, n3); ok {
		l.Large.First = fromUnix(c.within(first, largeSlot))
	}

	for i := range c.other {
		w := &c.other[i]
		q, h := w.window.Sum(now/minute, 15), w.window.Sum(now/minute, 60)
		v := VerdictSums{w.Verdict, difficulty.Difficulty(q), difficulty.Difficulty(h)}
		stale := v.Verdict.AcceptedStale() || v.Verdict.RejectedStale()
		if stale && o.SplitStale {
			l.Stale15m += v.Sum15m
			l.Stale1h += v.Sum1h
			continue
		}
		l.Reject15m += v.Sum15m
		l.Reject1h += v.Sum1h
		l.Rejects = append(l.Rejects, v)
	}
	return l
}

// A Rate is accepted difficulty over a window and the hashrate that the pool API makes of it.
type Rate struct {
	Sum   difficulty.Difficulty
	First time.Time // oldest share in the window, zero when it is empty

	// Hashrate divides Sum by the time since First, but by no less than ten minutes and no more than the window: a
	// newcomer's first share must not look like a farm.
	Hashrate difficulty.Hashrate
}

// rampSeconds is the shortest time that a Rate divides by.
const rampSeconds = 600

// divide fills Hashrate in; first is when the shares began.
func (r *Rate) divide(now, first time.Time, window time.Duration) {
	if r.Sum == 0 || first.IsZero() {
		return
	}
	online := max(rampSeconds*time.Second, now.Sub(first))
	r.Hashrate = difficulty.HashrateOf(r.Sum, min(online, window))
	if math.IsInf(float64(r.Hashrate), 0) {
		r.Hashrate = 0
	}
}

// VerdictSums are the difficulties of shares with one verdict.
type VerdictSums struct {
	Verdict       share.Verdict
	Sum15m, Sum1h difficulty.Difficulty
}

// Live is what a worker, a user or the pool did lately. Sums named for a time cover it up to now, the slot that is
// still filling included; divide by the whole time for a hashrate, as BTCPool does, or use Small and Large.
type Live struct {
	AcceptCount uint64 // accepted shares since the object was made, which starts anew after an hour of silence
	Accepted    Tally  // all accepted shares there were; of a worker, since it was made

	Accept1m, Accept5m, Accept15m, Accept1h difficulty.Difficulty

	// Reject15m and Reject1h are in slots of a minute. They include stale shares unless [Options.SplitStale] is set;
	// Stale15m and Stale1h are 0 then.
	Reject15m, Reject1h difficulty.Difficulty
	Stale15m, Stale1h   difficulty.Difficulty

	// Rejects has the parts of Reject15m and Reject1h in order of verdicts, zero ones included once they were seen.
	Rejects []VerdictSums

	FirstShare   time.Time
	LastShare    time.Time // accepted or not
	LastAccepted time.Time
	LastIP       netip.Addr // of LastShare; invalid when unknown

	Small, Large Rate // over [Options.SmallWindow] and [Options.LargeWindow]
}
