package difficulty

import (
	"math"
	"time"
)

// SequentialOptions tune a [Sequential]. The zero value suits miners of every size at six shares a minute.
type SequentialOptions struct {
	Start Difficulty // of a miner nobody knows; 0 means 16384, brought within Min and Max
	Min   Difficulty // lowest that is assigned, at least [Min]; 0 means 64, or Max if that is lower
	Max   Difficulty // highest that is assigned; 0 means [Max]

	// Interval is the average time between shares that is aimed at, from 100 ms to 24 h; 0 means 10 s. How long the
	// policy takes to notice something is a matter of how many shares it sees, so it goes with Interval.
	Interval time.Duration

	// Grid is the set of difficulties to choose from; the zero value is [AnyDifficulty]. A coarser one costs accuracy:
	// with powers of two shares come up to 1.4 times too often or too seldom.
	Grid Grid

	// Vigilance is how much evidence it takes to change the difficulty of a miner that has settled, as the logarithm of
	// a likelihood ratio, from 1 to 100. More makes for fewer changes without cause and notices true ones later: each 0.7
	// more doubles the time between false alarms, and is four or five intervals until half of a miner's hashrate is missed.
	// 0 means 4, and with an Interval below 10 s as much more as keeps the changes in an hour as few: 6.3 with 1 s.
	Vigilance float64
}

// Evidence is in nats, the natural logarithm of a likelihood ratio. Steps are natural logarithms of factors, and times are
// in intervals.
const (
	defaultVigilance = 4
	riseMore         = 1.7 // than Vigilance before the difficulty of a settled miner rises; too many shares do less harm
	surgeVigilance   = 10  // before it rises at once to what four times the shares and more say
	newVigilance     = 4   // of a miner that has not settled
	searchVigilance  = 2.5 // of one of which too few shares are known to say that it is slow
	beyondDoubt      = 25  // of such a surge, which allows any step
	certain          = 7   // evidence for a settled miner's step of any size
	doubtEnds        = 5   // evidence that says whether a cautious step was right

	cautiousStep = 0.2          // of a settled miner, for which it takes certainty to go further
	coarseStep   = 0.35         // where the grid has none that near: over sqrt(2), so that the next power of two is nearest
	tolerable    = 0.3          // a cautious step below it is not taken back when it was wrong
	surgeStep    = 3 * math.Ln2 // at most
	leastStep    = 0.05         // that is worth a job
	caution      = 0.6          // standard errors that a step stays short of the estimate

	settledAfter = 12  // shares at one difficulty
	searching    = 4   // shares, below which a miner is searched for
	hearsay      = 2   // shares that a difficulty is worth which somebody named
	worth        = 4   // shares that an earlier estimate counts as beside a new one
	enough       = 50  // shares that say what a flood amounts to, however soon they come
	enoughTime   = 0.3 // and the time that is enough for fewer
	burst        = 3   // shares of one moment that count as evidence of a rise
	moments      = 10  // of an interval

	inTransit = 1  // after a change, until shares of another difficulty mean that the pool did not take the change over
	firstWait = 2  // without a share, until the difficulty of a miner that has sent nothing yet falls
	firstFall = 16 // by this factor, and each time by this factor more

	firstLook = 40  // shares until the average since the last change is looked at, then twice as many
	lookError = 2.6 // standard errors that it has to be off
	lookLeast = 0.2 // and its logarithm
	lookGain  = 0.1 // and how much nearer a difficulty of the grid has to bring it
)

// A Sequential keeps one miner at a steady rate of shares by sequential tests. It is the policy for new pools.
//
// # Method
//
// Shares are a Poisson process: a miner of hashrate h finds them at the rate h/(2^32 d). Sequential asks how many times
// as fast as wanted they come, r, and tests r = 1 against r = 2, r = 4 and r = 1/2 with each share and with the time that
// passes. A share is evidence of ln q for r = q, and the time in which one share was to be expected is evidence of q-1
// against it. A sum below zero is set to zero, since what spoke against a change before it came says nothing: that is
// Page's CUSUM test (E. S. Page, Continuous inspection schemes, Biometrika 41, 1954), which of all tests with as much time
// between false alarms has the shortest delay in the worst case (G. Lorden, Procedures for reacting to a change in
// distribution, Ann. Math. Stat. 42, 1971; G. V. Moustakides, Optimal stopping times for detecting changes in
// distributions, Ann. Stat. 14, 1986). How many nats it takes is [SequentialOptions].Vigilance.
//
// By how much the difficulty changes then, says the rate since that test last was at zero, which is the most likely time
// of the change: n shares where e were to be expected are r = n/e with a relative standard error of 1/sqrt(n). The step
// falls short of ln r by 0.6 of that error, because a test that stops at the first sufficient evidence has seen more than
// there is. A miner that has settled moves by a factor of 1.2 only, which does little harm if there was no change, and a
// second test asks whether there was: Wald's, between the rates of shares that then follow (A. Wald, Sequential tests of
// statistical hypotheses, Ann. Math. Stat. 16, 1945). It takes a few minutes and ends with another step to where the shares
// say, or not. On a grid that has nothing as near as 1.2 a step is taken back that the second test calls wrong.
//
// These tests do not see what is less than a factor of 1.4 off. So the average since the last change is compared with what
// it should be after 40 shares, 80, 160 and so on, and the difficulty corrected when it is 2.6 standard errors off.
//
// A miner that nobody knows may be off by any factor. Downwards the search gallops (J. L. Bentley, A. C. Yao, An almost
// optimal algorithm for unbounded searching, Inf. Process. Lett. 5, 1976): after two intervals without a share the
// difficulty falls to a 16th, then to a 256th of that, and so on; what is too low is noticed within seconds, because
// shares come so fast then. Sequential is a [Hurrier] for this: with a pool that sends jobs only when they are due each
// step takes until the next one.
//
// A share is evidence at the difficulty that it was found at: the time before it counts as that difficulty's, so shares
// still on their way after a change, and a caller that gives other difficulties, do not mislead it. Of the shares that
// come in a tenth of an interval only three count as evidence of a rise, since a connection that stalls delivers many at
// once.
//
// # What it does
//
// At six shares a minute, over 1,000 simulated miners each (package difftest, seed 1): all miners of 1 PH/s that begin at
// the difficulty for 10 GH/s come to rest within a factor of 1.5 of the right one, half of them after 3 s and nine tenths
// after 4 s; so do all of 10 GH/s that begin for 1 PH/s, half after 64 s and nine tenths within 6 minutes. Of those whose
// hashrate halves 86 % get an easier difficulty within five minutes. A miner at rest has 2.1 changes an hour, of a fifth.
// Of 300 miners each that were suddenly 5, 8, 10 or 20 times as fast, 1 to 4 % sent more than three times the shares for
// longer than 30 s, at worst 45 s: so few shares come in that time that a test which is never later is often wrong.
//
// A Sequential reads no clock, starts nothing, allocates nothing after NewSequential and holds some 300 bytes.
type Sequential struct {
	assignment
	timeline
	interval float64 // seconds
	vigil    float64

	rise, surge, fall evidence
	since             tally         // since the last change
	before            tally         // what is known from before it: shares, and the seconds they took at difficulty 1
	changed           time.Duration // when the last change was
	look              float64       // shares since then at which the average is looked at
	moment            int64
	inMoment          int
	silent            int // changes in a row without a share between them
	settled           bool
	doubtful          float64 // the last step if that was a cautious one, else 0
	doubt             float64 // evidence since then that shares come as fast as without it, or faster
	weight            float64 // shares of the present difficulty to one of the miner's, in time; 1 nearly always
}

// evidence is that of one test, and what it has seen since it was last at zero.
type evidence struct {
	nats float64
	tally
}

// A tally is shares, and how many were to be expected.
type tally struct{ shares, expected float64 }

var (
	_ Resetter  = (*Sequential)(nil)
	_ MinSetter = (*Sequential)(nil)
	_ MaxSetter = (*Sequential)(nil)
	_ Hurrier   = (*Sequential)(nil)
	_ Keeper    = (*Sequential)(nil)
)

// NewSequential returns a Sequential for one miner; nil means default options. It fails when the options contradict each
// other or ask for what cannot be had, and reports all that is wrong with them.
func NewSequential(opts *SequentialOptions) (*Sequential, error) {
	var o SequentialOptions
	if opts != nil {
		o = *opts
	}
	e := optionErrors{policy: "sequential"}
	s := &Sequential{
		assignment: newAssignment(&e, o.Grid, o.Start, o.Min, o.Max, defaultStart, defaultMin),
		interval:   e.interval(o.Interval, defaultInterval).Seconds(),
		vigil:      o.Vigilance,
	}
	if s.vigil == 0 {
		s.vigil = defaultVigilance + max(0, math.Log(defaultInterval.Seconds()/s.interval))
	}
	if !(s.vigil >= 1 && s.vigil <= 100) {
		e.wrong("Vigilance %v is not within 1 and 100", o.Vigilance)
	}
	if err := e.err(); err != nil {
		return nil, err
	}
	s.begin(s.cur)
	return s, nil
}

// begin forgets everything and starts over from d.
func (s *Sequential) begin(d Difficulty) {
	s.set(d)
	s.before = tally{}
	s.silent, s.settled, s.doubtful = 0, false, 0
	s.restart()
}

// restart begins all tests anew.
func (s *Sequential) restart() {
	s.rise, s.surge, s.fall = evidence{}, evidence{}, evidence{}
	s.since = tally{}
	s.look = firstLook
	s.doubt, s.weight = 0, 1
	s.changed = s.at
}

// Observe counts a share. A d that is not valid is no share.
func (s *Sequential) Observe(now time.Time, d Difficulty) {
	if !d.Valid() {
		return
	}
	weight := min(float64(s.cur/d), math.MaxFloat32)
	if !s.pass(now, weight) {
		return
	}
	if (s.at - s.changed).Seconds() > inTransit*s.interval {
		s.weight = weight
	}
	s.since.shares++
	s.silent = 0
	s.doubt += math.Ln2
	s.fall.share(-math.Ln2)
	// A share that was late is no evidence of a rise, but it belongs to the rate if there is one.
	rise, surge := math.Ln2, 2*math.Ln2
	if moment := int64(s.at.Seconds() / s.interval * moments); moment != s.moment {
		s.moment, s.inMoment = moment, 1
	} else if s.inMoment++; s.inMoment > burst {
		rise, surge = 0, 0
	}
	s.rise.share(rise)
	s.surge.share(surge)
}

// pass lets time pass until now, in which a share was to be expected each interval; weight times as many when the miner
// works at another difficulty. It returns false when there is no time yet.
func (s *Sequential) pass(now time.Time, weight float64) bool {
	before := s.at
	if !s.tick(now) {
		return false
	}
	expected := (s.at - before).Seconds() / s.interval * weight
	s.since.expected += expected
	slow, fast := s.ratios()
	s.doubt -= expected * (fast - slow)
	s.rise.time(expected, 2)
	s.surge.time(expected, 4)
	s.fall.time(expected, 0.5)
	return true
}

func (e *evidence) share(nats float64) {
	e.nats += nats
	e.shares++
	e.forget()
}

func (e *evidence) time(expected, ratio float64) {
	e.nats -= (ratio - 1) * expected
	e.expected += expected
	e.forget()
}

func (e *evidence) forget() {
	if e.nats <= 0 {
		*e = evidence{}
	}
}

// Next tests the shares so far and returns the difficulty for the next job, one of the Grid.
func (s *Sequential) Next(now time.Time) Difficulty {
	s.pass(now, s.weight)
	step, ok := s.step()
	if !s.settled && s.since.shares >= settledAfter {
		s.settled = true
	}
	if s.since.shares >= s.look {
		s.look *= 2
	}
	if s.since.shares >= firstLook || math.Abs(s.doubt) >= doubtEnds { // which step has looked at
		s.doubtful = 0
	}
	if ok {
		s.move(step)
	}
	return s.cur
}

// Hurry reports whether Next would return another difficulty at this moment.
func (s *Sequential) Hurry(now time.Time) bool {
	then := *s // on the stack
	then.pass(now, then.weight)
	step, ok := then.step()
	return ok && then.after(step) != s.cur
}

// step returns the logarithm of the factor that the difficulty should change by, if it should.
func (s *Sequential) step() (step float64, ok bool) {
	up, down := s.vigil+riseMore, s.vigil
	if !s.settled {
		up, down = newVigilance, newVigilance
		if s.before.shares < searching {
			down = searchVigilance
		}
	}
	switch {
	case s.since.shares == 0:
		return s.silence(down)
	case s.rise.nats >= up || s.surge.nats >= surgeVigilance:
		t := s.rise.tally
		if t.expected == 0 || t.shares < enough && t.expected < enoughTime { // as much as a connection that stalled delivers
			return 0, false
		}
		step = max(0, math.Log(t.shares/t.expected)-caution/math.Sqrt(t.shares))
		return s.cautious(step, s.rise.nats)
	case s.fall.nats >= down:
		if !s.settled { // the estimate that it was given is worth something
			w := min(max(s.before.shares, 0.5), worth)
			step = min(0, math.Log((s.since.shares+w)/(s.since.expected+w)))
			return step, step <= -leastStep
		}
		shares := s.fall.shares + 0.5
		step = min(0, math.Log(shares/s.fall.expected)+caution/math.Sqrt(shares))
		return s.cautious(step, s.fall.nats)
	case s.doubtful != 0 && math.Abs(s.doubt) >= doubtEnds:
		return s.resolve()
	case s.since.shares >= s.look:
		step = math.Log(s.since.shares / s.since.expected)
		left := step - math.Log(float64(s.after(step)/s.cur))
		return step, math.Abs(step) > max(lookLeast, lookError/math.Sqrt(s.since.shares)) &&
			math.Abs(left) < math.Abs(step)-lookGain
	}
	return 0, false
}

// cautious shortens the step of a miner that has settled to what the evidence allows.
func (s *Sequential) cautious(step, nats float64) (float64, bool) {
	most := math.Inf(1)
	switch {
	case !s.settled || s.surge.nats >= beyondDoubt:
	case s.surge.nats >= surgeVigilance:
		most = surgeStep
	case nats < certain:
		if most = cautiousStep; s.after(math.Copysign(most, step)) == s.cur {
			most = coarseStep
		}
	}
	step = max(-most, min(step, most))
	return step, math.Abs(step) >= leastStep
}

// ratios returns how fast shares come after a cautious step: if nothing had changed before it, and if twice or half as
// many came. The slower is the first.
func (s *Sequential) ratios() (slow, fast float64) {
	r := math.Exp(-s.doubtful)
	if s.doubtful > 0 {
		return r, 2 * r
	}
	return r / 2, r
}

// resolve is step after a cautious one: back, or on to where the shares since then say.
func (s *Sequential) resolve() (step float64, ok bool) {
	slow, fast := s.ratios()
	changed := slow // as the step down said
	if s.doubtful > 0 {
		changed = fast
	}
	if s.doubt > 0 == (s.doubtful < 0) {
		return -s.doubtful, math.Abs(s.doubtful) > tolerable
	}
	return math.Log((s.since.shares + worth*changed) / (s.since.expected + worth)), true
}

// silence is step where no share has come since the last change.
func (s *Sequential) silence(down float64) (step float64, ok bool) {
	switch {
	case s.before.shares < searching:
		wait := float64(firstWait)
		if s.silent == 0 {
			wait *= 1 + s.before.shares
		}
		return -float64(s.silent+1) * math.Log(firstFall), s.since.expected >= wait
	case s.silent == 0:
		return -math.Ln2, s.fall.nats >= down
	}
	return -2 * math.Ln2, s.fall.nats >= down
}

// after returns the difficulty after a step.
func (s *Sequential) after(step float64) Difficulty {
	return s.bound(s.grid.Nearest(Difficulty(float64(s.cur) * math.Exp(step))))
}

// move changes the difficulty by a step.
func (s *Sequential) move(step float64) {
	d := s.after(step)
	taken := math.Log(float64(d / s.cur))
	cautious := math.Abs(step) == cautiousStep || math.Abs(step) == coarseStep
	confirmed := s.doubtful*taken > 0
	if s.since.shares == 0 {
		s.silent++
	} else {
		if math.Abs(step) >= math.Ln2 { // it is another miner, as it were
			s.settled = step > 0 && s.rise.shares >= enough
		}
		s.before = s.estimate()
	}
	if s.doubtful = 0; s.settled && s.since.shares > 0 && taken != 0 && (cautious || confirmed) {
		s.doubtful = taken
	}
	weight := s.weight
	if weight != 1 { // the pool gives another difficulty than it is told to, and goes on to
		weight = min(weight*float64(d/s.cur), math.MaxFloat32)
	}
	s.cur = d
	s.restart()
	s.weight = weight
}

// estimate returns how many shares the miner's hashrate is known from, and the seconds they would have taken it at
// difficulty 1. What was known before the last change is worth little: it was given up for a reason.
func (s *Sequential) estimate() tally {
	t := tally{s.since.shares, s.since.expected * s.interval / float64(s.cur)}
	if s.before.shares > 0 {
		w := min(1, worth/s.before.shares)
		t.shares += w * s.before.shares
		t.expected += w * s.before.expected
	}
	return t
}

// SetMin raises the lowest difficulty for this miner to m, or lowers it again, but never below [SequentialOptions].Min.
// An m that is not valid, such as 0, means that one.
func (s *Sequential) SetMin(m Difficulty) {
	known := s.estimate()
	s.rebound(s.setMin(m), known)
}

// SetMax lowers the highest difficulty for this miner to m, or raises it again, but never above [SequentialOptions].Max.
// It counts more than SetMin. An m that is not valid means that one.
func (s *Sequential) SetMax(m Difficulty) {
	known := s.estimate()
	s.rebound(s.setMax(m), known)
}

func (s *Sequential) rebound(changed bool, known tally) {
	if changed {
		s.before = known
		s.restart()
	}
}

// Reset forgets every share and starts over from d, brought into the bounds, which is worth a few shares: who names it
// may know something. A d that is not valid changes nothing.
func (s *Sequential) Reset(d Difficulty) {
	if !d.Valid() {
		return
	}
	s.begin(d)
	s.before = tally{hearsay, hearsay * s.interval / float64(s.cur)}
}

// State returns what is known of the miner.
func (s *Sequential) State(now time.Time) State {
	then := *s
	then.pass(now, then.weight)
	st := State{At: now, Difficulty: s.cur}
	if t := then.estimate(); t.shares > 0 && t.expected > 0 {
		if h := Hashrate(t.shares / t.expected * HashesPerDifficulty); !math.IsInf(float64(h), 1) {
			st.Hashrate, st.Shares = h, t.shares
		}
	}
	return st
}

// Restore goes on from a State that is no older than its shares took, or than ten minutes if that is more, and at most a
// day. The miner counts as settled if it has sent enough shares to be.
func (s *Sequential) Restore(now time.Time, st State) {
	if !st.fresh(now) {
		return
	}
	s.begin(st.Difficulty)
	if st.Shares > 0 && st.Hashrate > 0 {
		s.before = tally{st.Shares, st.Shares * HashesPerDifficulty / float64(st.Hashrate)}
		s.settled = st.Shares >= settledAfter
	}
}
