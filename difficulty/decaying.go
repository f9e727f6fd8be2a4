package difficulty

import (
	"math"
	"time"
)

// ckpool's constants, all of which belong to a share every 3.33 s.
const (
	decayingInterval            = 3330 * time.Millisecond
	decayingStart    Difficulty = 42
	decayingMin      Difficulty = 1

	decayingWindow = 300.0 // seconds; time constant of the average
	decayingCheck  = 240.0 // seconds; a decision is made after so long, or
	decayingShares = 72    // after so many shares, as should come in that time
	decayingIdle   = 60.0  // seconds; how often the average of a silent miner is brought down
	decayingLow    = 0.15  // average of difficulty per second over the difficulty: up to here it falls
	decayingHigh   = 0.4   // and from here on it rises; 0.3 is aimed at

	decayingInstant = 0.001 // seconds; the least time that passes between shares
	decayingNothing = 2e-16 // an average below it is none
)

// DecayingOptions tune a [Decaying]. The zero value is ckpool with what it does when nothing is configured.
type DecayingOptions struct {
	Start Difficulty // of a miner nobody knows; 0 means 42, brought within Min and Max
	Min   Difficulty // lowest that is assigned, at least [Min]; 0 means 1, or Start or Max if that is lower
	Max   Difficulty // highest that is assigned; 0 means [Max], which is 2^62

	// Interval is the average time between shares that is aimed at, from 100 ms to 24 h; 0 means 3.33 s. All other
	// times grow with it, so that an average is always over as many shares as in ckpool: with 10 s it is over 15
	// minutes, and a decision waits for 12 minutes or 72 shares.
	Interval time.Duration

	// Grid is what the difficulty is rounded to. With AnyDifficulty it is rounded as usual, half up, as in ckpool;
	// otherwise, and below 1, to the nearest in ratio. Start and Min are rounded up, Max down.
	Grid Grid
}

// A Decaying keeps one miner near a steady rate of shares by an exponentially decaying average of the work it does, as
// ckpool does (stratifier.c, add_submit, and libckpool.c, decay_time). It decides only when a share comes:
//
//   - Every share is worth its difficulty. The average of difficulty per second, over 300 s, is divided by
//     1-exp(-t/300), where t is the time since the first share, because it began at nothing.
//   - From 72 shares or 240 s after the last change on, the first time after the first share, every share is a reason
//     to decide. Before, it goes on counting.
//   - If that share is of another difficulty than the present one, counting starts again: the miner has not got the new
//     one yet.
//   - If the average is between 0.15 and 0.4 times the difficulty each second, it is good enough.
//   - Otherwise the difficulty becomes 3.33 times the average, rounded and bounded.
//   - Not so when it would fall and this is the first share that was counted since the last change: the miner was away.
//     It is given another 240 s.
//
// Silence alone never lowers the difficulty. It brings the average down, once a minute, so that the first shares after
// it lower the difficulty more. A miner that never again finds a share because its difficulty is too high is therefore
// never helped, as in ckpool: Max should be what the largest miner needs and no more, or the policy be bounded as
// [Clamp] does, so that whoever hands in at once what it held back still finds one after a while.
//
// One thing differs. ckpool knows what its miners have; a Decaying may be bounded or rounded by its caller. When shares
// of one other difficulty have come for 240 s, and none of the present one, then that is what the miner has, and is
// decided about.
//
// The ckpool that is meant decides by one average; later ones decide by an average over one minute when the 72 shares
// came first. What it does for miners that chose a minimum themselves is not taken: SetMin is a bound only.
//
// A Decaying reads no clock, starts nothing and allocates nothing.
type Decaying struct {
	assignment
	timeline
	scale    float64 // of all times
	interval float64 // seconds

	average Difficulty    // difficulty per second, before it is corrected
	last    time.Duration // the latest share
	first   time.Duration // the first; -1 before it
	changed time.Duration // the last change
	count   uint32        // shares since then; saturates

	other      Difficulty // of shares that come instead of the present one; 0 for none
	otherSince time.Duration
}

var (
	_ Resetter  = (*Decaying)(nil)
	_ MinSetter = (*Decaying)(nil)
	_ MaxSetter = (*Decaying)(nil)
	_ Keeper    = (*Decaying)(nil)
)

// NewDecaying returns a Decaying for one miner; nil means default options. It fails when the options contradict each
// other or ask for what cannot be had, and reports all that is wrong with them.
func NewDecaying(opts *DecayingOptions) (*Decaying, error) {
	var o DecayingOptions
	if opts != nil {
		o = *opts
	}
	e := optionErrors{policy: "decaying"}
	interval := e.interval(o.Interval, decayingInterval)
	p := &Decaying{
		assignment: newAssignment(&e, o.Grid, o.Start, o.Min, o.Max, decayingStart, decayingMin),
		scale:      float64(interval) / float64(decayingInterval),
		interval:   interval.Seconds(),
		first:      -1,
	}
	if err := e.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// Observe counts a share and decides about the difficulty. A d that is not valid counts as nothing.
func (p *Decaying) Observe(now time.Time, d Difficulty) {
	if !d.Valid() || !p.tick(now) {
		return
	}
	if p.first < 0 {
		p.first, p.last, p.changed = p.at, p.at, p.at
	}
	p.average = p.decayed(min(d, Max))
	p.last = p.at
	if p.count < math.MaxUint32 {
		p.count++
	}
	switch d {
	case p.cur:
		p.other = 0
	case p.other:
	default:
		p.other, p.otherSince = d, p.at
	}
	if p.count >= decayingShares || (p.at-p.changed).Seconds() >= decayingCheck*p.scale {
		p.decide(d)
	}
}

// decide decides when a share of difficulty d has come.
func (p *Decaying) decide(d Difficulty) {
	if d != p.cur && (p.at-p.otherSince).Seconds() < decayingCheck*p.scale {
		p.count = 0
		return
	}
	average := p.corrected(p.average)
	ratio := float64(average/d) * p.scale
	if ratio > decayingLow && ratio < decayingHigh {
		return
	}
	best := p.bound(p.round(average * Difficulty(p.interval)))
	if best == p.cur {
		return
	}
	if best < p.cur && p.count == 1 {
		p.changed = p.at
		return
	}
	p.cur = best
	p.restart()
}

func (p *Decaying) restart() {
	p.count, p.other = 0, 0
	p.changed = p.at
}

// decayed returns the average after a share of difficulty d now; d of 0 is none.
func (p *Decaying) decayed(d Difficulty) Difficulty {
	average := float64(p.average)
	passed := (p.at - p.last).Seconds()
	window, idle := decayingWindow*p.scale, decayingIdle*p.scale
	if passed > idle {
		// Over so long at once, the average would not fall to less than half. ckpool does it in steps.
		steps := math.Ceil(passed/idle) - 1
		average /= math.Pow(2-math.Exp(-idle/window), steps)
		passed -= steps * idle
	}
	passed = max(passed, decayingInstant)
	part := 1 - math.Exp(-passed/window)
	average = (average + float64(d)/passed*part) / (1 + part)
	if average < decayingNothing {
		return 0
	}
	return Difficulty(average)
}

// corrected makes up for the time before the first share, of which the average holds nothing.
func (p *Decaying) corrected(average Difficulty) Difficulty {
	known := max((p.at - p.first).Seconds(), decayingInstant)
	return average / Difficulty(-math.Expm1(-known/(decayingWindow*p.scale)))
}

func (p *Decaying) round(d Difficulty) Difficulty {
	if p.grid == AnyDifficulty && d >= 1 {
		return Difficulty(math.Round(float64(min(d, Max))))
	}
	return p.grid.Nearest(d)
}

// Next returns the difficulty that was decided on last.
func (p *Decaying) Next(now time.Time) Difficulty {
	p.tick(now)
	return p.cur
}

// SetMin raises the lowest difficulty for this miner to m, rounded up to the grid, or lowers it again, but never below
// [DecayingOptions].Min. A difficulty below m goes up to it at once. An m that is not valid, such as 0, means Min.
func (p *Decaying) SetMin(m Difficulty) {
	if p.setMin(m) {
		p.restart()
	}
}

// SetMax lowers the highest difficulty for this miner to m, rounded down to the grid, or raises it again, but never
// above [DecayingOptions].Max nor below Min. A difficulty above m goes down to it at once, even if SetMin asked for
// more. An m that is not valid, such as 0, means Max.
func (p *Decaying) SetMax(m Difficulty) {
	if p.setMax(m) {
		p.restart()
	}
}

// Reset forgets every share and starts over from d, rounded to the grid and bounded by the options, SetMin and SetMax.
// A d that is not valid changes nothing.
func (p *Decaying) Reset(d Difficulty) {
	if !d.Valid() {
		return
	}
	p.cur = p.bound(p.round(d))
	p.average = 0
	p.first = -1
	p.restart()
}

// State returns the present difficulty and the hashrate of the average at now, which is worth as many shares as an
// exponentially decaying average of its age sees: up to twice the window.
func (p *Decaying) State(now time.Time) State {
	if !p.tick(now) || p.first < 0 || p.at == p.first {
		return State{At: now, Difficulty: p.cur}
	}
	average := p.average
	if p.at > p.last {
		average = p.decayed(0)
	}
	window := decayingWindow * p.scale
	sees := 2 * window * math.Tanh((p.at-p.first).Seconds()/(2*window)) // seconds
	average = p.corrected(average)
	return knownFrom(now, p.cur, average*Difficulty(sees), time.Duration(sees*float64(time.Second)))
}

// Restore is Reset to the difficulty of s, unless s is older than it is worth: than the time that its shares took, but
// at least 10 minutes and at most a day. Then, and when s is not valid, it changes nothing.
func (p *Decaying) Restore(now time.Time, s State) {
	if s.fresh(now) {
		p.Reset(s.Difficulty)
	}
}
