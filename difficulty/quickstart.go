package difficulty

import (
	"math"
	"time"
)

// DATUM gateway's constants, all of which belong to 8 shares a minute.
const (
	quickInterval            = 7500 * time.Millisecond
	quickStart    Difficulty = 16384

	quickShares  = 8    // as many are enough for a quick raise,
	quickFactor  = 8    // which is for a miner that is so many times too fast,
	quickLeast   = 4    // and is at least by so much
	doubleShares = 16   // as many are enough for doubling
	quickWait    = 1000 // milliseconds; nothing is decided before
	quickSilence = 8    // intervals; without a share for so long is too slow: 60 s
)

// QuickStartOptions tune a [QuickStart]. The zero value is DATUM gateway with the values that it ships.
//
// Every difficulty that a QuickStart uses is a power of two: Start and Min are rounded up to one and Max is rounded
// down.
type QuickStartOptions struct {
	Start Difficulty // of a miner nobody knows; 0 means 16384, brought within Min and Max
	Min   Difficulty // lowest that is assigned, at least [Min]; 0 means 16384, or Start or Max if that is lower
	Max   Difficulty // highest that is assigned; 0 means [Max], which is 2^62

	// Interval is the average time between shares that is aimed at, in whole milliseconds from 100 ms to 24 h; 0 means
	// 7.5 s. The time that a miner settles at is between a half and twice of it. The time without a share after which
	// the difficulty falls is 8 times as long.
	Interval time.Duration

	QuickShares int // shares since the last change that a quick raise needs, at least 1; 0 means 8
	QuickFactor int // how many times too fast a miner is that gets one, at least 2; 0 means 8

	// Window is how much time is counted at most: when as much has passed without a change, half of the time and half
	// of the shares are forgotten. It is at least 32 times Interval; 0 means that nothing is forgotten, as in DATUM,
	// where a miner that slows down after hours of steady work may have to be slow for as long before that is seen.
	Window time.Duration
}

// A QuickStart keeps one miner between a half and twice a rate of shares by counting them since the last change, and
// does not wait for the next job when a miner is far too fast. It is what DATUM gateway does (datum_stratum.c,
// stratum_update_vardiff), in whole milliseconds as there.
//
// After every share from the eighth on, and before every job, it decides, if what it decided before has been sent:
//
//   - Without a share since the last change, the difficulty is halved after more than 60 s.
//   - Within a second of the last change nothing happens. After it, the time divided by the shares is compared with the
//     7.5 s that are aimed at.
//   - After a share, if that is less than an eighth of what is aimed at, and no quick raise has been made since the last
//     job that was due, the difficulty is multiplied by the quotient, rounded down to a power of two, but at least by
//     4. That is a quick raise: a job should be sent at once, see Hurry.
//   - If it is more than twice what is aimed at, the difficulty is halved.
//   - If there were at least 16 shares and it is less than half of what is aimed at, the difficulty is doubled.
//
// With each of these, the count starts again, with a quick raise when it is sent. Every share counts as one, as there,
// of whichever difficulty it is: shares still on their way after a raise look like a faster miner.
//
// A QuickStart reads no clock, starts nothing and allocates nothing.
type QuickStart struct {
	assignment
	timeline
	interval int64  // milliseconds
	enough   uint32 // shares for a quick raise
	factor   int64
	window   time.Duration // 0 for no end

	sent  Difficulty    // that Next gave last; 0 before the first
	start time.Duration // of the count
	count uint32        // saturates
	work  Difficulty    // of what was counted
	quick bool          // a quick raise has not been sent
	calm  bool          // one has been sent, and no job that was due after it
}

var (
	_ Resetter  = (*QuickStart)(nil)
	_ MinSetter = (*QuickStart)(nil)
	_ MaxSetter = (*QuickStart)(nil)
	_ Hurrier   = (*QuickStart)(nil)
	_ Keeper    = (*QuickStart)(nil)
)

// NewQuickStart returns a QuickStart for one miner; nil means default options. It fails when the options contradict
// each other or ask for what cannot be had, and reports all that is wrong with them.
func NewQuickStart(opts *QuickStartOptions) (*QuickStart, error) {
	var o QuickStartOptions
	if opts != nil {
		o = *opts
	}
	e := optionErrors{policy: "quick start"}
	interval := e.interval(o.Interval, quickInterval)
	if interval%time.Millisecond != 0 {
		e.wrong("Interval %v is not in whole milliseconds", interval)
	}
	if o.QuickShares == 0 {
		o.QuickShares = quickShares
	}
	if o.QuickShares < 1 || int64(o.QuickShares) > math.MaxUint32 {
		e.wrong("QuickShares %d is not within 1 and 2^32-1", o.QuickShares)
	}
	if o.QuickFactor == 0 {
		o.QuickFactor = quickFactor
	}
	if o.QuickFactor < 2 {
		e.wrong("QuickFactor %d is below 2", o.QuickFactor)
	}
	if o.Window != 0 && o.Window < 2*doubleShares*interval {
		e.wrong("Window %v is below %d times Interval %v", o.Window, 2*doubleShares, interval)
	}
	p := &QuickStart{
		window:     o.Window,
		assignment: newAssignment(&e, PowersOfTwo, o.Start, o.Min, o.Max, quickStart, quickStart),
		interval:   interval.Milliseconds(), enough: uint32(o.QuickShares), factor: int64(o.QuickFactor),
	}
	if err := e.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// Observe counts a share and decides about the difficulty. A d that is not valid counts as nothing.
func (p *QuickStart) Observe(now time.Time, d Difficulty) {
	if !d.Valid() || !p.tick(now) {
		return
	}
	if p.count < math.MaxUint32 {
		p.count++
		p.work += min(d, Max)
	}
	if p.count >= p.enough && p.cur == p.sent {
		p.decide(true)
	}
}

// Next decides about the shares so far and returns the difficulty for the next job, a power of two. After Hurry it is
// for the job out of turn.
func (p *QuickStart) Next(now time.Time) Difficulty {
	if !p.tick(now) {
		return p.cur
	}
	switch {
	case p.quick:
		p.restart()
		p.quick, p.calm = false, true
	case p.sent == 0:
		p.restart()
	default:
		if p.cur == p.sent {
			p.decide(false)
		}
		p.calm = false
	}
	p.sent = p.cur
	return p.cur
}

// Hurry reports whether a quick raise was decided on that Next has not given yet. A miner which does not get it goes on
// at a rate of more than eight times what is aimed at.
func (p *QuickStart) Hurry(time.Time) bool { return p.quick }

func (p *QuickStart) restart() { p.start, p.count, p.work = p.at, 0, 0 }

// decide decides after a share, or else before a job.
func (p *QuickStart) decide(share bool) {
	passed := (p.at - p.start).Milliseconds()
	if p.count == 0 {
		if passed > quickSilence*p.interval {
			p.change(p.cur / 2)
		}
		return
	}
	if passed < quickWait {
		return
	}
	each := max(passed/int64(p.count), 1)
	switch {
	case share && !p.calm && each < p.interval/p.factor:
		before := p.cur
		p.change(max((Difficulty(p.interval/each) * p.cur).FloorPow2(), quickLeast*p.cur))
		p.quick = p.cur > before
	case each > 2*p.interval:
		p.change(p.cur / 2)
	case p.count >= doubleShares && each < p.interval/2:
		p.change(p.cur * 2)
	case p.window != 0 && p.at-p.start >= p.window:
		p.start += (p.at - p.start) / 2
		p.count /= 2
		p.work /= 2
	}
}

func (p *QuickStart) change(d Difficulty) {
	p.set(d)
	p.restart()
}

// SetMin raises the lowest difficulty for this miner to m, rounded up to a power of two, or lowers it again, but never
// below [QuickStartOptions].Min. A difficulty below m goes up to it at once. An m that is not valid, such as 0, means
// Min.
func (p *QuickStart) SetMin(m Difficulty) { p.followed(p.setMin(m)) }

// SetMax lowers the highest difficulty for this miner to m, rounded down to a power of two, or raises it again, but
// never above [QuickStartOptions].Max nor below Min. A difficulty above m goes down to it at once, even if SetMin asked
// for more. An m that is not valid, such as 0, means Max.
func (p *QuickStart) SetMax(m Difficulty) { p.followed(p.setMax(m)) }

func (p *QuickStart) followed(changed bool) {
	if changed {
		p.restart()
		p.quick = p.quick && p.cur > p.sent
	}
}

// Reset forgets every share and starts over from d, rounded up to a power of two and bounded by the options, SetMin and
// SetMax. A d that is not valid changes nothing.
func (p *QuickStart) Reset(d Difficulty) {
	if !d.Valid() {
		return
	}
	p.change(d.CeilPow2())
	p.sent = 0
	p.quick, p.calm = false, false
}

// State returns the present difficulty and the hashrate of the shares since the last change.
func (p *QuickStart) State(now time.Time) State {
	if !p.tick(now) || p.sent == 0 {
		return State{At: now, Difficulty: p.cur}
	}
	return knownFrom(now, p.cur, p.work, p.at-p.start)
}

// Restore is Reset to the difficulty of s, unless s is older than it is worth: than the time that its shares took, but
// at least 10 minutes and at most a day. Then, and when s is not valid, it changes nothing.
func (p *QuickStart) Restore(now time.Time, s State) {
	if s.fresh(now) {
		p.Reset(s.Difficulty)
	}
}
