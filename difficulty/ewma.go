package difficulty

import (
	"math"
	"time"
)

// What both policies of the Stratum V2 reference have.
const (
	sv2Interval            = 10 * time.Second // 6 shares a minute
	sv2Start    Difficulty = 16384
	sv2Min      Difficulty = 1

	sv2Look   = time.Minute      // how often they look
	sv2TooNew = 15 * time.Second // no change is made so soon after another
)

// looks is the clock of a policy that looks at its miner once a minute.
type looks struct {
	timeline
	begun  bool
	origin time.Duration // when it began
	done   time.Duration // the minutes since then that have been looked at
}

// begin starts the clock if it does not run, and reports whether it had to.
func (l *looks) begin() bool {
	if l.begun {
		return false
	}
	l.begun = true
	l.origin, l.done = l.at, 0
	return true
}

// due reports whether a minute has ended since the last look. A minute in which nobody asked is skipped.
func (l *looks) due() bool {
	minutes := (l.at - l.origin) / sv2Look
	if minutes <= l.done {
		return false
	}
	l.done = minutes
	return true
}

// LadderOptions tune a [Ladder]. The zero value aims at 6 shares a minute.
type LadderOptions struct {
	Start Difficulty // of a miner nobody knows; 0 means 16384, brought within Min and Max
	Min   Difficulty // lowest that is assigned, at least [Min]; 0 means 1, or Start or Max if that is lower
	Max   Difficulty // highest that is assigned; 0 means [Max], which is 2^62

	// Interval is the average time between shares that is aimed at, from 100 ms to 24 h; 0 means 10 s. The times of
	// the ladder do not change with it.
	Interval time.Duration

	// Grid is what the difficulty is rounded to, to the nearest in ratio. Start and Min are rounded up, Max down.
	Grid Grid
}

// A Ladder keeps one miner near a steady rate of shares by counting those since the last change, and asks for less and
// less of a deviation the longer that is ago. It is what the Stratum V2 reference implementation has in its releases
// (channels-sv2, vardiff/classic.rs).
//
// It looks once a minute, counted from the first call after it was made or reset: at the first Next in each minute but
// the first. Any other Next returns what the one before did. At a look, dt is the time since the last change:
//
//   - Up to 15 s, nothing happens.
//   - The difficulty at which the shares that came would have been as many as should, is compared with the present
//     one. The difference has to be 100 % of the present one, or 60 % from dt = 60 s on, 50 % from 120 s, 45 % from
//     180 s, 30 % from 240 s, 15 % from 300 s. With less, the count goes on.
//   - Without any share the difficulty is divided by 3, or by 2 below dt = 60 s, or by 1.5 up to 30 s.
//   - A difference above 1000 % multiplies it by 3, or by 5 below 60 s, or by 10 up to 30 s.
//   - Otherwise it becomes what was found. In any case the count starts again.
//
// Every share counts as one of the difficulty that Next gave last, as there; shares still on their way after a step up
// look like a faster miner. Not taken are hashes per second as the unit, single precision, and the lowest hashrate of
// 1 H/s, in place of which there is Min. Later versions stop after the second division without a share between; this
// one goes on to Min.
//
// A Ladder reads no clock, starts nothing and allocates nothing.
type Ladder struct {
	assignment
	looks
	interval float64    // seconds
	aim      Difficulty // the present difficulty before it is rounded

	start time.Duration // of the count
	count uint32        // saturates
}

var (
	_ Resetter  = (*Ladder)(nil)
	_ MinSetter = (*Ladder)(nil)
	_ MaxSetter = (*Ladder)(nil)
	_ Keeper    = (*Ladder)(nil)
)

// NewLadder returns a Ladder for one miner; nil means default options. It fails when the options contradict each other
// or ask for what cannot be had, and reports all that is wrong with them.
func NewLadder(opts *LadderOptions) (*Ladder, error) {
	var o LadderOptions
	if opts != nil {
		o = *opts
	}
	e := optionErrors{policy: "ladder"}
	p := &Ladder{
		assignment: newAssignment(&e, o.Grid, o.Start, o.Min, o.Max, sv2Start, sv2Min),
		interval:   e.interval(o.Interval, sv2Interval).Seconds(),
	}
	p.aim = p.cur
	if err := e.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// restart counts from here on.
func (p *Ladder) restart() { p.start, p.count = p.at, 0 }

func (p *Ladder) tick(now time.Time) bool {
	if !p.timeline.tick(now) {
		return false
	}
	if p.begin() {
		p.restart()
	}
	return true
}

// Observe counts a share. A d that is not valid counts as nothing.
func (p *Ladder) Observe(now time.Time, d Difficulty) {
	if d.Valid() && p.tick(now) && p.count < math.MaxUint32 {
		p.count++
	}
}

// Next decides about the shares so far, if a look is due, and returns the difficulty for the next job.
func (p *Ladder) Next(now time.Time) Difficulty {
	if p.tick(now) && p.due() {
		p.look()
	}
	return p.cur
}

func (p *Ladder) look() {
	dt := p.at - p.start
	if dt <= sv2TooNew {
		return
	}
	// The difficulties are multiplied by dt rather than divided by it, so that whole numbers are compared exactly.
	found := float64(p.count) * float64(p.cur) * p.interval
	present := float64(p.aim) * dt.Seconds()
	percent := 100 * math.Abs(found-present)
	if percent < ladderRung(dt)*present {
		return
	}
	switch {
	case p.count == 0 && dt <= 30*time.Second:
		p.aim /= 1.5
	case p.count == 0 && dt < time.Minute:
		p.aim /= 2
	case p.count == 0:
		p.aim /= 3
	case percent > 1000*present && dt <= 30*time.Second:
		p.aim *= 10
	case percent > 1000*present && dt < time.Minute:
		p.aim *= 5
	case percent > 1000*present:
		p.aim *= 3
	default:
		p.aim = Difficulty(found / dt.Seconds())
	}
	p.aim = p.bound(p.aim)
	p.set(p.aim)
	p.restart()
}

// ladderRung returns the percentage from which on a deviation counts.
func ladderRung(dt time.Duration) float64 {
	switch {
	case dt < 60*time.Second:
		return 100
	case dt < 120*time.Second:
		return 60
	case dt < 180*time.Second:
		return 50
	case dt < 240*time.Second:
		return 45
	case dt < 300*time.Second:
		return 30
	}
	return 15
}

// SetMin raises the lowest difficulty for this miner to m, rounded up to the grid, or lowers it again, but never below
// [LadderOptions].Min. A difficulty below m goes up to it at once. An m that is not valid, such as 0, means Min.
func (p *Ladder) SetMin(m Difficulty) {
	if p.setMin(m) {
		p.aim = p.cur
		p.restart()
	}
}

// SetMax lowers the highest difficulty for this miner to m, rounded down to the grid, or raises it again, but never
// above [LadderOptions].Max nor below Min. A difficulty above m goes down to it at once, even if SetMin asked for more.
// An m that is not valid, such as 0, means Max.
func (p *Ladder) SetMax(m Difficulty) {
	if p.setMax(m) {
		p.aim = p.cur
		p.restart()
	}
}

// Reset forgets every share and starts over from d, rounded to the grid and bounded by the options, SetMin and SetMax.
// Its minutes are counted from the next call. A d that is not valid changes nothing.
func (p *Ladder) Reset(d Difficulty) {
	if !d.Valid() {
		return
	}
	p.aim = p.bound(d)
	p.set(d)
	p.begun = false
}

// State returns the present difficulty and the hashrate of the shares since the last change.
func (p *Ladder) State(now time.Time) State {
	if !p.begun || !p.tick(now) {
		return State{At: now, Difficulty: p.cur}
	}
	return knownFrom(now, p.cur, Difficulty(p.count)*p.cur, p.at-p.start)
}

// Restore is Reset to the difficulty of s, unless s is older than it is worth: than the time that its shares took, but
// at least 10 minutes and at most a day. Then, and when s is not valid, it changes nothing.
func (p *Ladder) Restore(now time.Time, s State) {
	if s.fresh(now) {
		p.Reset(s.Difficulty)
	}
}

// The parameters of the proposal.
const (
	ewmaMemory = 360.0 // seconds; time constant of the average

	ewmaEnough     = 6.0  // shares a minute, from which on deviations in a row count
	ewmaSensitive  = 1.5  // the threshold after a minute, at ewmaReference
	ewmaReference  = 30.0 // shares a minute
	ewmaSlack      = 0.05 // the threshold after a long time
	ewmaTighten    = 8.0  // times that, to raise the difficulty
	ewmaDiscount   = 0.06 // less for each look in a row with a deviation to the same side
	ewmaDiscounted = 0.6  // less at most

	ewmaSigmas = 2.576 // below ewmaEnough: 99 % of a normal distribution

	ewmaFirst = 0.2  // of the way to the estimate that a change goes,
	ewmaMore  = 0.05 // more for each change in a row to the same side
	ewmaMost  = 0.6
)

// EWMAOptions tune an [EWMA]. The zero value aims at 6 shares a minute.
type EWMAOptions struct {
	Start Difficulty // of a miner nobody knows; 0 means 16384, brought within Min and Max
	Min   Difficulty // lowest that is assigned, at least [Min]; 0 means 1, or Start or Max if that is lower
	Max   Difficulty // highest that is assigned; 0 means [Max], which is 2^62

	// Interval is the average time between shares that is aimed at, from 100 ms to 24 h; 0 means 10 s. Above 10 s, so
	// below 6 shares a minute, another threshold is in force.
	Interval time.Duration

	// Grid is what the difficulty is rounded to, to the nearest in ratio. Start and Min are rounded up, Max down.
	Grid Grid
}

// An EWMA keeps one miner near a steady rate of shares by an exponentially weighted moving average of its hashrate,
// looked at once a minute, and by steps that go only part of the way. It is the proposal for the Stratum V2 reference
// implementation of its pull request 2188: the composition that its simulation selected, of EwmaEstimator(360 s),
// AdaptiveSignPersist(1.5, 0.05, 8, 0.06, 0.6 from 6 shares a minute) and AcceleratingPartialRetarget(0.2, 0.6, 0.05)
// (channels-sv2, vardiff/composed, champion_composed).
//
// It looks when a [Ladder] looks. At a look, dt is the time since the last change and n is dt in minutes, at least 1:
//
//   - The average rate of work goes a part 1-exp(-t/360) of the way to that of the t seconds since the last look, the
//     first time all of it. The difficulty that suits it is the estimate.
//   - The estimate has to deviate from the present difficulty by 1.5*sqrt(r/30)/n + 0.05 of it, where r is the shares a
//     minute that are aimed at; by 8 times as much when it is above; and by 6 % less of that for each look in a row,
//     after the first, at which it was on the same side, but no more than 60 % less.
//   - With r below 6 it has to deviate by (2.576*sqrt(m)+0.5)/m + 0.05 instead, where m is the number of shares that
//     should have come in dt.
//   - Then the difficulty goes 20 % of the way to the estimate, and 5 % more of it for each change in a row, after the
//     first, that goes to the same side, but at most 60 %.
//
// So it rises only on much evidence: a miner that fails must not be left with a difficulty too high for it.
//
// The average is of difficulty per second, not of shares a minute that are rescaled with every change, as in the
// proposal. That is the same number, but shares still on their way, and bounds that the caller applies, are seen for
// what they are; and the average is right when looks are not a minute apart. Not taken are hashes per second as the
// unit, single precision, the lowest hashrate of 1 H/s, in place of which there is Min, and the start from the hashrate
// that a Stratum V2 miner declares, in place of which there is Start.
//
// An EWMA reads no clock, starts nothing and allocates nothing.
type EWMA struct {
	assignment
	looks
	interval float64    // seconds
	aim      Difficulty // the present difficulty before it is rounded

	start   time.Duration // the last change
	seen    time.Duration // the last look
	warm    bool          // whether there was one
	pending Difficulty    // work since then
	average Difficulty    // work per second
	kept    time.Duration // how long it has been averaged

	side  int8   // of the estimate at the last look: above 1, below -1, none 0
	sides uint32 // looks in a row with that; saturates
	step  int8   // of the last change, likewise
	steps uint32
}

var (
	_ Resetter  = (*EWMA)(nil)
	_ MinSetter = (*EWMA)(nil)
	_ MaxSetter = (*EWMA)(nil)
	_ Keeper    = (*EWMA)(nil)
)

// NewEWMA returns an EWMA for one miner; nil means default options. It fails when the options contradict each other or
// ask for what cannot be had, and reports all that is wrong with them.
func NewEWMA(opts *EWMAOptions) (*EWMA, error) {
	var o EWMAOptions
	if opts != nil {
		o = *opts
	}
	e := optionErrors{policy: "ewma"}
	p := &EWMA{
		assignment: newAssignment(&e, o.Grid, o.Start, o.Min, o.Max, sv2Start, sv2Min),
		interval:   e.interval(o.Interval, sv2Interval).Seconds(),
	}
	p.aim = p.cur
	if err := e.err(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *EWMA) tick(now time.Time) bool {
	if !p.timeline.tick(now) {
		return false
	}
	if p.begin() {
		p.start, p.seen = p.at, p.at
	}
	return true
}

// Observe counts a share by its difficulty. A d that is not valid counts as nothing.
func (p *EWMA) Observe(now time.Time, d Difficulty) {
	if d.Valid() && p.tick(now) {
		p.pending += min(d, Max)
	}
}

// Next decides about the shares so far, if a look is due, and returns the difficulty for the next job.
func (p *EWMA) Next(now time.Time) Difficulty {
	if p.tick(now) && p.due() {
		p.look()
	}
	return p.cur
}

func (p *EWMA) look() {
	dt := p.at - p.start
	if dt <= sv2TooNew {
		return
	}
	p.average, p.kept = p.estimate()
	p.warm = true
	p.pending, p.seen = 0, p.at

	estimate := float64(p.average) * p.interval
	aim := float64(p.aim)
	if math.Abs(estimate/aim-1) < p.threshold(dt.Seconds(), estimate > aim) {
		return
	}
	inARow(&p.step, &p.steps, estimate > aim)
	part := min(ewmaFirst+ewmaMore*float64(p.steps-1), ewmaMost)
	p.aim = p.bound(Difficulty(aim + part*(estimate-aim)))
	p.set(p.aim)
	p.start = p.at
}

// estimate returns the average with what came since the last look, and how long it has been averaged.
func (p *EWMA) estimate() (Difficulty, time.Duration) {
	passed := p.at - p.seen
	if passed <= 0 {
		return p.average, p.kept
	}
	rate := p.pending / Difficulty(passed.Seconds())
	if !p.warm {
		return rate, passed
	}
	old := Difficulty(math.Exp(-passed.Seconds() / ewmaMemory))
	return old*p.average + (1-old)*rate, p.kept + passed
}

// threshold returns by which fraction of the present difficulty the estimate has to deviate.
func (p *EWMA) threshold(dt float64, above bool) float64 {
	perMinute := 60 / p.interval
	if perMinute < ewmaEnough {
		m := dt / p.interval
		return (ewmaSigmas*math.Sqrt(m)+0.5)/m + ewmaSlack
	}
	inARow(&p.side, &p.sides, above)
	t := ewmaSensitive*math.Sqrt(perMinute/ewmaReference)/max(dt/60, 1) + ewmaSlack
	if above {
		t *= ewmaTighten
	}
	return t * (1 - min(ewmaDiscount*float64(p.sides-1), ewmaDiscounted))
}

// inARow counts how often something was on the same side.
func inARow(side *int8, n *uint32, above bool) {
	now := int8(-1)
	if above {
		now = 1
	}
	if now != *side {
		*side, *n = now, 0
	}
	if *n < math.MaxUint32 {
		*n++
	}
}

// SetMin raises the lowest difficulty for this miner to m, rounded up to the grid, or lowers it again, but never below
// [EWMAOptions].Min. A difficulty below m goes up to it at once. An m that is not valid, such as 0, means Min.
func (p *EWMA) SetMin(m Difficulty) {
	if p.setMin(m) {
		p.aim = p.cur
		p.start = p.at
	}
}

// SetMax lowers the highest difficulty for this miner to m, rounded down to the grid, or raises it again, but never
// above [EWMAOptions].Max nor below Min. A difficulty above m goes down to it at once, even if SetMin asked for more.
// An m that is not valid, such as 0, means Max.
func (p *EWMA) SetMax(m Difficulty) {
	if p.setMax(m) {
		p.aim = p.cur
		p.start = p.at
	}
}

// Reset forgets every share and starts over from d, rounded to the grid and bounded by the options, SetMin and SetMax.
// Its minutes are counted from the next call. A d that is not valid changes nothing.
func (p *EWMA) Reset(d Difficulty) {
	if !d.Valid() {
		return
	}
	p.aim = p.bound(d)
	p.set(d)
	p.begun, p.warm = false, false
	p.pending, p.average, p.kept = 0, 0, 0
	p.side, p.sides, p.step, p.steps = 0, 0, 0, 0
}

// State returns the present difficulty and the hashrate of the average, with what came since the last look. It is worth
// as many shares as an average of its age sees: up to 12 minutes of them.
func (p *EWMA) State(now time.Time) State {
	if !p.begun || !p.tick(now) {
		return State{At: now, Difficulty: p.cur}
	}
	average, kept := p.estimate()
	sees := 2 * ewmaMemory * math.Tanh(kept.Seconds()/(2*ewmaMemory)) // seconds
	return knownFrom(now, p.cur, average*Difficulty(sees), time.Duration(sees*float64(time.Second)))
}

// Restore is Reset to the difficulty of s, unless s is older than it is worth: than the time that its shares took, but
// at least 10 minutes and at most a day. Then, and when s is not valid, it changes nothing.
func (p *EWMA) Restore(now time.Time, s State) {
	if s.fresh(now) {
		p.Reset(s.Difficulty)
	}
}
