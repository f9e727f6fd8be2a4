package difftest

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
)

// Expect says what [TestPolicyWith] expects of a Policy where Policies may differ. The zero value suits one that keeps
// miners from 100 GH/s to 100 PH/s at a share every 1 to 60 seconds.
type Expect struct {
	// MinInterval and MaxInterval bound the average time between the shares of a miner whose difficulty has settled; 0
	// means 1s and 1m.
	MinInterval, MaxInterval time.Duration

	// Settle is the time by which a miner's difficulty has settled after the miner came or changed; 0 means 30m.
	Settle time.Duration

	// MaxChanges is how often the difficulty of a steady miner may change in an hour once it has settled; 0 means 6,
	// below 0 means never.
	MaxChanges int

	// Slowest and Fastest bound the hashrates that the Policy can serve at such intervals; 0 means 100 GH/s and
	// 100 PH/s.
	Slowest, Fastest difficulty.Hashrate

	// Unrounded says that the Policy returns difficulties which are not Assignable, and leaves rounding them to its
	// caller.
	Unrounded bool

	// Min and Max bound what the Policy returns, whatever it is told; 0 means that there is no such bound. A Policy in a
	// difficulty.Clamp has those of the Clamp.
	Min, Max difficulty.Difficulty

	// Interval is the time between shares that the Policy aims at, for MaxFlood; 0 means 10s.
	Interval time.Duration

	// MaxFlood is how long a difficulty.Hurrier may let a miner that is suddenly far too fast send more than 3 shares
	// every Interval, averaged over 10 s; 0 means 1m. Other Policies wait for jobs that are due and are not held to it.
	MaxFlood time.Duration

	// Constant says that the Policy never adapts. What is about adapting is skipped then, and a difficulty that does
	// change is an error. It is implied for difficulty.Fixed.
	Constant bool
}

func (e *Expect) orDefaults() Expect {
	var r Expect
	if e != nil {
		r = *e
	}
	setDefault(&r.MinInterval, time.Second)
	setDefault(&r.MaxInterval, time.Minute)
	setDefault(&r.Settle, 30*time.Minute)
	setDefault(&r.MaxChanges, 6)
	r.MaxChanges = max(r.MaxChanges, 0)
	setDefault(&r.Slowest, 100e9)
	setDefault(&r.Fastest, 100e15)
	setDefault(&r.Interval, 10*time.Second)
	setDefault(&r.MaxFlood, time.Minute)
	return r
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// TestPolicy checks the promises of difficulty.Policy, and those of Resetter, MinSetter, MaxSetter, Hurrier and Keeper
// when the Policy is one or wraps one, with the defaults of [Expect]. newPolicy returns a new Policy, for a new session,
// at every call.
//
// A Policy is run against simulated miners of many hashrates: steady, doubling, halving, much faster or slower at once,
// silent and coming back, flooding. It is also given what it should never be: shares without a difficulty, and times that
// go backwards. The chances in the simulation are the same every time, so a Policy that passes once
// always does. difficulty.Fixed passes too; what is about adapting is skipped for it.
func TestPolicy(t *testing.T, newPolicy func() difficulty.Policy) {
	t.Helper()
	TestPolicyWith(t, newPolicy, nil)
}

// TestPolicyWith is [TestPolicy] with expectations of one's own; nil means the defaults.
func TestPolicyWith(t *testing.T, newPolicy func() difficulty.Policy, expect *Expect) {
	t.Helper()
	e := expect.orDefaults()
	p := newPolicy()
	if p == nil {
		t.Fatal("newPolicy returned nil")
	}
	if _, ok := p.(difficulty.Fixed); ok {
		e.Constant = true
	}
	if !(e.Slowest > 0) || !(e.Slowest <= e.Fastest) || e.MinInterval > e.MaxInterval || e.Max > 0 && e.Min > e.Max {
		t.Fatalf("the expectations contradict each other: %+v", e)
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			switch {
			case c.adapts && e.Constant:
				t.Skip("a constant policy does not adapt")
			case c.constant && !e.Constant:
				t.Skip("the policy adapts")
			case c.needs != "" && !capable[c.needs](p):
				t.Skipf("the policy is no difficulty.%s", c.needs)
			}
			if err := c.run(t, suite{newPolicy, e}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A check is one subtest. It returns what is wrong rather than failing, so that it can itself be tested.
type check struct {
	name             string
	adapts, constant bool   // what it takes for the check to apply
	needs            string // what the policy must be; a key of capable
	run              func(t *testing.T, s suite) error
}

var capable = map[string]func(difficulty.Policy) bool{
	"Resetter":  is[difficulty.Resetter],
	"MinSetter": is[difficulty.MinSetter],
	"MaxSetter": is[difficulty.MaxSetter],
	"Hurrier":   is[difficulty.Hurrier],
	"Keeper":    is[difficulty.Keeper],
}

func is[T difficulty.Policy](p difficulty.Policy) bool {
	_, ok := difficulty.As[T](p)
	return ok
}

var checks = []check{
	{name: "AlwaysValid", run: checkAlwaysValid},
	{name: "ReadsNoClock", run: checkReadsNoClock},
	{name: "ServesOneSession", run: checkServesOneSession},
	{name: "NeverChanges", constant: true, run: checkNeverChanges},
	{name: "SurvivesSilence", run: checkSurvivesSilence},
	{name: "SurvivesStandstill", run: checkSurvivesStandstill},
	{name: "SurvivesFlood", run: checkSurvivesFlood},
	{name: "SettlesAfterFlood", adapts: true, run: checkSettlesAfterFlood},
	{name: "Steady", adapts: true, run: checkSteady},
	{name: "Doubling", adapts: true, run: changing(2)},
	{name: "Halving", adapts: true, run: changing(1. / 2)},
	{name: "Surge", adapts: true, run: changing(16)},
	{name: "Slump", adapts: true, run: changing(1. / 16)},
	{name: "ComingBack", adapts: true, run: checkComingBack},
	{name: "ResetGoesOn", adapts: true, needs: "Resetter", run: checkResetGoesOn},
	{name: "StaysInBounds", run: checkStaysInBounds},
	{name: "SurvivesBadShares", run: checkSurvivesBadShares},
	{name: "SurvivesTimeGoingBackwards", run: checkSurvivesTimeGoingBackwards},
	{name: "EndsFloods", adapts: true, needs: "Hurrier", run: checkEndsFloods},
	{name: "HurryChangesNothing", needs: "Hurrier", run: checkHurryChangesNothing},
	{name: "SetMinBounds", needs: "MinSetter", run: checkSetMinBounds},
	{name: "SetMaxBounds", needs: "MaxSetter", run: checkSetMaxBounds},
	{name: "StateIsTrue", needs: "Keeper", run: checkStateIsTrue},
	{name: "StateChangesNothing", needs: "Keeper", run: checkStateChangesNothing},
	{name: "RestoreGoesOn", adapts: true, needs: "Keeper", run: checkRestoreGoesOn},
	{name: "RestoreRefusesWhatIsNotValid", needs: "Keeper", run: checkRestoreRefuses},
}

type suite struct {
	newPolicy func() difficulty.Policy
	expect    Expect
}

// lag is that of every miner of the suite: far for a network, near for a miner that finishes old work first.
const lag = 2 * time.Second

// maxShareRate is that of every simulation in which the difficulty should suit the miner. It is far above what suits,
// and keeps a Policy that fails from taking minutes to.
const maxShareRate = 200

func withLag(m Miner) Miner {
	m.Lag = lag
	return m
}

// hashrates returns the hashrates from lo to hi in steps of about 5.
func hashrates(lo, hi difficulty.Hashrate) []difficulty.Hashrate { return hashratesBy(5, lo, hi) }

func hashratesBy(step float64, lo, hi difficulty.Hashrate) []difficulty.Hashrate {
	steps := int(math.Round(math.Log(float64(hi/lo)) / math.Log(step)))
	if steps < 1 {
		return []difficulty.Hashrate{lo, hi}
	}
	var hs []difficulty.Hashrate
	for i := range steps + 1 {
		hs = append(hs, lo*difficulty.Hashrate(math.Pow(float64(hi/lo), float64(i)/float64(steps))))
	}
	return hs
}

// judged passes a Policy's calls on and keeps what is wrong with the first bad difficulty.
type judged struct {
	difficulty.Policy
	expect *Expect
	err    error
}

func (j *judged) Unwrap() difficulty.Policy { return j.Policy }

func (j *judged) Next(now time.Time) difficulty.Difficulty {
	d := j.Policy.Next(now)
	switch {
	case j.err != nil:
	case !d.Valid():
		j.err = fmt.Errorf("Next returned %v, which is no difficulty", d)
	case !j.expect.Unrounded && !d.Assignable():
		j.err = fmt.Errorf("Next returned %v, which is neither whole nor a power of two", d)
	}
	return d
}

func checkAlwaysValid(_ *testing.T, s suite) error {
	var errs []error
	for _, interval := range []time.Duration{time.Second, 30 * time.Second, 20 * time.Minute} {
		opts := &Options{Duration: time.Hour, JobInterval: interval, MaxShareRate: 20}
		// Far beyond what the policy serves well, it may serve badly but not wrongly.
		for _, h := range hashratesBy(50, s.expect.Slowest/1e4, s.expect.Fastest*1e4) {
			m := withLag(Miner{Hashrate: func(at time.Duration) difficulty.Hashrate {
				switch at / (20 * time.Minute) % 3 {
				case 0:
					return h
				case 1:
					return 0
				}
				return h * 100
			}})
			j := &judged{Policy: s.newPolicy(), expect: &s.expect}
			if Run(j, m, opts); j.err != nil {
				errs = append(errs, fmt.Errorf("a miner about %v, a job every %v: %w", h, interval, j.err))
			}
		}
	}
	return errors.Join(errs...)
}

// typical returns a hashrate in the middle of those served.
func (s suite) typical() difficulty.Hashrate {
	return difficulty.Hashrate(math.Sqrt(float64(s.expect.Slowest) * float64(s.expect.Fastest)))
}

// sleepy lets the clock of its synctest bubble run between calls.
type sleepy struct {
	difficulty.Policy
	pause time.Duration
}

func (p sleepy) Unwrap() difficulty.Policy { return p.Policy }

func (p sleepy) Next(now time.Time) difficulty.Difficulty {
	time.Sleep(p.pause)
	return p.Policy.Next(now)
}

func checkReadsNoClock(t *testing.T, s suite) error {
	m := withLag(Stepped(s.typical(), time.Hour, s.typical()/16))
	var traces [2]Trace
	for i, pause := range []time.Duration{0, 11 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			traces[i] = Run(sleepy{s.newPolicy(), pause}, m, &Options{MaxShareRate: 20})
		})
	}
	if !reflect.DeepEqual(traces[0].Points, traces[1].Points) {
		return fmt.Errorf("the same calls give %v when the clock stands still and %v when it runs",
			traces[0].Points, traces[1].Points)
	}
	return nil
}

// disturbed calls another Policy, of another session, in between.
type disturbed struct {
	difficulty.Policy
	other difficulty.Policy
}

func (p disturbed) Observe(now time.Time, d difficulty.Difficulty) {
	for range 5 {
		p.other.Observe(now, d*16)
	}
	p.Policy.Observe(now, d)
}

func (p disturbed) Unwrap() difficulty.Policy { return p.Policy }

func (p disturbed) Next(now time.Time) difficulty.Difficulty {
	p.other.Next(now)
	return p.Policy.Next(now)
}

func checkServesOneSession(_ *testing.T, s suite) error {
	m := withLag(Stepped(s.typical(), time.Hour, s.typical()/16))
	opts := &Options{MaxShareRate: 20}
	alone := Run(s.newPolicy(), m, opts)
	together := Run(disturbed{s.newPolicy(), s.newPolicy()}, m, opts)
	if !reflect.DeepEqual(alone.Points, together.Points) {
		return fmt.Errorf("a session that has %v alone has %v beside another", alone.Points, together.Points)
	}
	return nil
}

func checkNeverChanges(_ *testing.T, s suite) error {
	for _, h := range hashrates(s.expect.Slowest, s.expect.Fastest) {
		tr := Run(s.newPolicy(), withLag(Steady(h)), &Options{MaxShareRate: 20})
		if len(tr.Points) != 1 {
			return fmt.Errorf("a constant policy was at %v", tr.Points)
		}
	}
	return nil
}

func checkSurvivesSilence(_ *testing.T, s suite) error {
	j := &judged{Policy: s.newPolicy(), expect: &s.expect}
	tr := Run(j, Miner{}, &Options{Duration: 48 * time.Hour})
	errs := []error{j.err}
	for i, p := range tr.Points {
		if i > 0 && p.Difficulty > tr.Points[i-1].Difficulty {
			errs = append(errs, fmt.Errorf("without a share the difficulty rose to %v after %v", p.Difficulty, p.At))
		}
	}
	return errors.Join(errs...)
}

func checkSurvivesStandstill(_ *testing.T, s suite) error {
	j := &judged{Policy: s.newPolicy(), expect: &s.expect}
	const before = 5 * time.Minute
	Run(j, withLag(Steady(s.typical())), &Options{Duration: before})
	now := defaultStart.Add(before)
	last := j.Next(now)
	for range 1000 {
		d := j.Next(now)
		if d > last {
			return fmt.Errorf("with neither a share nor time passing the difficulty rose from %v to %v", last, d)
		}
		last = d
	}
	return j.err
}

// flood sends p many shares and asks for many difficulties at one moment.
func (s suite) flood(p difficulty.Policy) {
	for range 20 {
		d := p.Next(defaultStart)
		for range 5000 {
			p.Observe(defaultStart, d)
		}
	}
}

func checkSurvivesFlood(_ *testing.T, s suite) error {
	j := &judged{Policy: s.newPolicy(), expect: &s.expect}
	s.flood(j)
	Run(j, Miner{}, nil)
	return j.err
}

func checkSettlesAfterFlood(_ *testing.T, s suite) error {
	p := s.newPolicy()
	s.flood(p)
	settle := 2 * s.expect.Settle // first down, then to where the miner belongs
	tr := Run(p, withLag(Steady(s.typical())), &Options{Duration: settle + time.Hour, MaxShareRate: maxShareRate})
	return s.settled(&tr, settle)
}

// settled reports what is wrong with the last hour of a simulation, which begins at from.
func (s suite) settled(tr *Trace, from time.Duration) error {
	e, to := s.expect, from+time.Hour
	var errs []error
	if i := tr.Interval(from, to); i < e.MinInterval || i > e.MaxInterval {
		errs = append(errs, fmt.Errorf("at difficulty %v a share came every %v, want every %v to %v",
			tr.DifficultyAt(to), i, e.MinInterval, e.MaxInterval))
	}
	if changes := tr.Changes(from, to); len(changes) > e.MaxChanges {
		errs = append(errs, fmt.Errorf("settled, the difficulty changed %d times in an hour, want at most %d: %v",
			len(changes), e.MaxChanges, changes))
	}
	if tr.Invalid > 0 {
		errs = append(errs, fmt.Errorf("%d of %d difficulties were not valid", tr.Invalid, tr.Jobs))
	}
	return errors.Join(errs...)
}

func checkSteady(_ *testing.T, s suite) error {
	var errs []error
	for _, h := range hashrates(s.expect.Slowest, s.expect.Fastest) {
		for seed := range uint64(3) {
			tr := Run(s.newPolicy(), withLag(Steady(h)), &Options{
				Duration: s.expect.Settle + time.Hour, Seed: seed, MaxShareRate: maxShareRate,
			})
			if err := s.settled(&tr, s.expect.Settle); err != nil {
				errs = append(errs, fmt.Errorf("a miner of %v: %w", h, err))
			}
		}
	}
	return errors.Join(errs...)
}

// changing returns the check of a miner whose hashrate changes by a factor, as far as the policy serves both.
func changing(factor difficulty.Hashrate) func(*testing.T, suite) error {
	return func(t *testing.T, s suite) error {
		lo, hi := s.expect.Slowest, s.expect.Fastest
		if factor < 1 {
			lo /= factor
		} else {
			hi /= factor
		}
		if lo > hi {
			t.Skipf("no hashrate between %v and %v can change by a factor of %v",
				s.expect.Slowest, s.expect.Fastest, factor)
		}
		var errs []error
		for _, h := range hashrates(lo, hi) {
			step := s.expect.Settle + 10*time.Minute
			from := step + s.expect.Settle
			tr := Run(s.newPolicy(), withLag(Stepped(h, step, h*factor)), &Options{
				Duration: from + time.Hour, MaxShareRate: maxShareRate,
			})
			err := s.settled(&tr, from)
			before, after := tr.DifficultyAt(step), tr.DifficultyAt(from+time.Hour)
			// A difficulty that suits a miner suits one of twice its hashrate as well, so there is nothing that it has
			// to become after such a small change; but it has no reason to go far the other way.
			var wrong bool
			switch {
			case factor > 2:
				wrong = after <= before
			case factor > 1:
				wrong = after < before/2
			case factor < 0.5:
				wrong = after >= before
			default:
				wrong = after > 2*before
			}
			if wrong {
				err = errors.Join(err, fmt.Errorf("the difficulty went from %v to %v", before, after))
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("a miner going from %v to %v: %w", h, h*factor, err))
			}
		}
		return errors.Join(errs...)
	}
}

func checkComingBack(_ *testing.T, s suite) error {
	const goes, comes = 2 * time.Hour, 8 * time.Hour
	var errs []error
	for _, h := range hashrates(s.expect.Slowest, s.expect.Fastest) {
		m := withLag(Miner{Hashrate: func(at time.Duration) difficulty.Hashrate {
			if at >= goes && at < comes {
				return 0
			}
			return h
		}})
		from := comes + s.expect.Settle
		tr := Run(s.newPolicy(), m, &Options{Duration: from + time.Hour, MaxShareRate: maxShareRate})
		if err := s.settled(&tr, from); err != nil {
			errs = append(errs, fmt.Errorf("a miner of %v that was silent for %v: %w", h, comes-goes, err))
		}
	}
	return errors.Join(errs...)
}

func checkResetGoesOn(_ *testing.T, s suite) error {
	var errs []error
	hs := hashrates(s.expect.Slowest, s.expect.Fastest)
	for i, h := range hs {
		m := withLag(Steady(h))
		known := Run(s.newPolicy(), m, &Options{Duration: s.expect.Settle + time.Hour, MaxShareRate: maxShareRate})
		d := known.DifficultyAt(known.Duration())

		reset := func(p difficulty.Policy, what string, start time.Time) {
			if r, ok := difficulty.As[difficulty.Resetter](p); ok {
				r.Reset(d)
			}
			tr := Run(p, m, &Options{Duration: 10 * time.Minute, Start: start, MaxShareRate: maxShareRate})
			for _, pt := range tr.Points {
				if pt.At == 0 && pt.Difficulty != d || pt.Difficulty > 4*d || pt.Difficulty < d/4 {
					errs = append(errs, fmt.Errorf("a miner of %v, reset to %v %s, had %v after %v",
						h, d, what, pt.Difficulty, pt.At))
				}
			}
		}
		reset(s.newPolicy(), "at the start", defaultStart)

		p := s.newPolicy()
		other := Run(p, withLag(Steady(hs[len(hs)-1-i])), &Options{MaxShareRate: maxShareRate})
		reset(p, "in a session of another difficulty", defaultStart.Add(other.Duration()))
	}
	return errors.Join(errs...)
}
