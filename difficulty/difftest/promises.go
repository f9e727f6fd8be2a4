package difftest

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
)

// bounded passes a Policy's calls on and keeps what is wrong with the first difficulty out of bounds, or that is none.
type bounded struct {
	judged
	lo, hi difficulty.Difficulty // 0 is no bound
	out    error
}

func newBounded(p difficulty.Policy, e *Expect, lo, hi difficulty.Difficulty) *bounded {
	return &bounded{judged: judged{Policy: p, expect: e}, lo: lo, hi: hi}
}

func (b *bounded) Next(now time.Time) difficulty.Difficulty {
	d := b.judged.Next(now)
	if b.out == nil && (d < b.lo || b.hi > 0 && d > b.hi) {
		b.out = fmt.Errorf("Next returned %v, which is not within [%v, %v]", d, b.lo, b.hi)
	}
	return d
}

func (b *bounded) wrong() error { return errors.Join(b.err, b.out) }

func checkStaysInBounds(t *testing.T, s suite) error {
	e := &s.expect
	if e.Min == 0 && e.Max == 0 {
		t.Skip("nothing is expected of Min and Max")
	}
	var errs []error
	for _, h := range []difficulty.Hashrate{e.Slowest / 1e6, s.typical(), e.Fastest * 1e6} {
		for _, reset := range []difficulty.Difficulty{0, difficulty.Min, difficulty.Max} {
			p := newBounded(s.newPolicy(), e, e.Min, e.Max)
			what := "not reset"
			if reset > 0 {
				r, ok := difficulty.As[difficulty.Resetter](p.Policy)
				if !ok {
					continue
				}
				r.Reset(reset)
				what = fmt.Sprintf("reset to %v", reset)
			}
			if Run(p, withLag(Steady(h)), &Options{MaxShareRate: 20}); p.wrong() != nil {
				errs = append(errs, fmt.Errorf("a miner of %v, %s: %w", h, what, p.wrong()))
			}
		}
	}
	return errors.Join(errs...)
}

// badDifficulties are those of no share.
var badDifficulties = []difficulty.Difficulty{
	difficulty.Difficulty(math.NaN()), difficulty.Difficulty(math.Inf(1)), difficulty.Difficulty(math.Inf(-1)), 0, -1,
	-math.MaxFloat64, difficulty.Difficulty(math.Copysign(0, -1)),
}

// extremes are those of shares that nobody sends.
var extremes = []difficulty.Difficulty{math.MaxFloat64, math.SmallestNonzeroFloat64, math.MaxFloat64}

// goesOn reports what is wrong with a policy that has been mistreated until begin, when a miner of h follows.
func (s suite) goesOn(p difficulty.Policy, begin time.Time, h difficulty.Hashrate) error {
	settle := 2 * s.expect.Settle // first to where it was driven, then back
	opts := &Options{Duration: settle + time.Hour, Start: begin, MaxShareRate: maxShareRate}
	if s.expect.Constant {
		opts.Duration = time.Hour
	}
	tr := Run(p, withLag(Steady(h)), opts)
	if s.expect.Constant {
		return nil
	}
	return s.settled(&tr, settle)
}

func checkSurvivesBadShares(_ *testing.T, s suite) error {
	begin := defaultStart.Add(time.Hour)
	feed := func(ds []difficulty.Difficulty) *judged {
		j := &judged{Policy: s.newPolicy(), expect: &s.expect}
		for now := defaultStart; now.Before(begin); now = now.Add(10 * time.Second) {
			j.Next(now)
			for _, d := range ds {
				j.Observe(now, d)
			}
			j.Next(now)
		}
		return j
	}
	j := feed(badDifficulties)
	errs := []error{s.goesOn(j, begin, s.typical()), j.err}
	for _, d := range append(extremes, badDifficulties...) {
		j := feed([]difficulty.Difficulty{d})
		// Extremes may be believed, so that only what is returned counts.
		Run(j, withLag(Steady(s.typical())), &Options{Start: begin, MaxShareRate: 20})
		if j.err != nil {
			errs = append(errs, fmt.Errorf("after shares of difficulty %v: %w", d, j.err))
		}
	}
	return errors.Join(errs...)
}

func checkSurvivesTimeGoingBackwards(_ *testing.T, s suite) error {
	j := &judged{Policy: s.newPolicy(), expect: &s.expect}
	const before = 20 * time.Minute
	Run(j, withLag(Steady(s.typical())), &Options{Duration: before, MaxShareRate: maxShareRate})
	now := defaultStart.Add(before)
	d := j.Next(now)
	for range 100 {
		for _, back := range []time.Duration{0, 1, time.Second, 0, time.Hour, 0, 24 * 365 * time.Hour, time.Minute, 0} {
			j.Observe(now.Add(-back), d)
			j.Next(now.Add(-back))
		}
		j.Observe(time.Time{}, d)
		j.Next(time.Time{})
	}
	// Another miner than before, so that a policy which does nothing any more is found out.
	return errors.Join(s.goesOn(j, now, max(s.typical()/16, s.expect.Slowest)), j.err)
}

func checkEndsFloods(_ *testing.T, s suite) error {
	e := s.expect
	var errs []error
	flood := func(m Miner, after time.Duration, what string) {
		tr := Run(s.newPolicy(), withLag(m), &Options{Duration: after + 10*time.Minute, MaxShareRate: maxShareRate})
		tr.Seconds = tr.Seconds[after/time.Second:]
		v := Measure(&tr, &MeasureOptions{Interval: e.Interval})
		if longest := time.Duration(v[LongestFlood]) * time.Second; longest > e.MaxFlood {
			errs = append(errs, fmt.Errorf("%s sent more than 3 shares every %v for %v, want at most %v",
				what, e.Interval, longest, e.MaxFlood))
		}
	}
	for _, h := range hashratesBy(10, s.typical(), e.Fastest) {
		flood(Steady(h), 0, fmt.Sprintf("a new miner of %v", h))
	}
	for _, factor := range []difficulty.Hashrate{10, 100, 1000} {
		if e.Slowest*factor <= e.Fastest {
			h := min(s.typical(), e.Fastest/factor)
			flood(Stepped(h, e.Settle, h*factor), e.Settle, fmt.Sprintf("a miner going from %v to %v", h, h*factor))
		}
	}
	return errors.Join(errs...)
}

// asked asks a question before every call.
type asked struct {
	difficulty.Policy
	question func(now time.Time)
}

func (a asked) Observe(now time.Time, d difficulty.Difficulty) {
	a.question(now)
	a.Policy.Observe(now, d)
	a.question(now)
}

func (a asked) Next(now time.Time) difficulty.Difficulty {
	a.question(now)
	d := a.Policy.Next(now)
	a.question(now)
	return d
}

// unaskedIsTheSame runs a policy with questions and one without.
func (s suite) unaskedIsTheSame(question func(p difficulty.Policy) func(now time.Time), what string) error {
	m := withLag(Stepped(s.typical(), time.Hour, s.typical()/16))
	opts := &Options{MaxShareRate: 20, NoHurry: true}
	p := s.newPolicy()
	with := Run(asked{p, question(p)}, m, opts)
	without := Run(s.newPolicy(), m, opts)
	if !reflect.DeepEqual(with.Points, without.Points) {
		return fmt.Errorf("a session has %v when %s is asked for, else %v", with.Points, what, without.Points)
	}
	return nil
}

func checkHurryChangesNothing(_ *testing.T, s suite) error {
	return s.unaskedIsTheSame(func(p difficulty.Policy) func(time.Time) {
		h, _ := difficulty.As[difficulty.Hurrier](p)
		return func(now time.Time) { h.Hurry(now) }
	}, "Hurry")
}

func checkStateChangesNothing(_ *testing.T, s suite) error {
	return s.unaskedIsTheSame(func(p difficulty.Policy) func(time.Time) {
		k, _ := difficulty.As[difficulty.Keeper](p)
		return func(now time.Time) { k.State(now) }
	}, "State")
}

// aged runs a typical miner until its difficulty has settled, and returns that and the time.
func (s suite) aged(p difficulty.Policy) (d difficulty.Difficulty, now time.Time) {
	tr := Run(p, withLag(Steady(s.typical())), &Options{Duration: s.expect.Settle, MaxShareRate: maxShareRate})
	now = defaultStart.Add(tr.Duration())
	return p.Next(now), now
}

func checkSetMinBounds(_ *testing.T, s suite) error {
	e := &s.expect
	p := s.newPolicy()
	d, now := s.aged(p)
	setter, _ := difficulty.As[difficulty.MinSetter](p)
	lo := 4 * d
	if e.Max > 0 {
		lo = min(lo, e.Max)
	}
	setter.SetMin(lo)
	b := newBounded(p, e, lo, 0)
	run := func(h difficulty.Hashrate, length time.Duration) difficulty.Difficulty {
		tr := Run(b, withLag(Steady(h)), &Options{Duration: length, Start: now, MaxShareRate: 20})
		now = now.Add(tr.Duration())
		return tr.DifficultyAt(tr.Duration())
	}
	run(s.typical(), e.Settle+time.Hour)
	run(0, 3*time.Hour)
	errs := []error{b.wrong()}
	if b.out != nil {
		errs = append(errs, fmt.Errorf("after SetMin(%v)", lo))
	}

	b.lo, b.out = 0, nil
	if slow := s.typical() / 16; slow >= e.Slowest && !e.Constant {
		setter.SetMin(d / 64)
		if got := run(slow, 2*e.Settle); got >= lo {
			errs = append(errs, fmt.Errorf("after SetMin(%v) and then SetMin(%v) the difficulty of a miner that became %v is still %v",
				lo, d/64, slow, got))
		}
	}
	for _, bad := range append(extremes, badDifficulties...) {
		b.err = nil
		setter.SetMin(bad)
		if run(s.typical(), time.Minute); b.err != nil {
			errs = append(errs, fmt.Errorf("after SetMin(%v): %w", bad, b.err))
		}
	}
	return errors.Join(errs...)
}

func checkSetMaxBounds(_ *testing.T, s suite) error {
	e := &s.expect
	p := s.newPolicy()
	d, now := s.aged(p)
	setter, _ := difficulty.As[difficulty.MaxSetter](p)
	hi := max(d/4, e.Min, difficulty.Min)
	setter.SetMax(hi)
	b := newBounded(p, e, 0, hi)
	run := func(h difficulty.Hashrate, length time.Duration) difficulty.Difficulty {
		tr := Run(b, withLag(Steady(h)), &Options{Duration: length, Start: now, MaxShareRate: 20})
		now = now.Add(tr.Duration())
		return tr.DifficultyAt(tr.Duration())
	}
	run(s.typical(), e.Settle)
	run(s.typical()*100, time.Hour)
	if r, ok := difficulty.As[difficulty.Resetter](p); ok {
		r.Reset(4 * d)
		run(s.typical(), 10*time.Minute)
	}
	errs := []error{b.wrong()}
	if b.out != nil {
		errs = append(errs, fmt.Errorf("after SetMax(%v)", hi))
	}

	b.hi, b.out = 0, nil
	if !e.Constant && hi < d {
		setter.SetMax(64 * d)
		if got := run(s.typical(), 2*e.Settle); got <= hi {
			errs = append(errs, fmt.Errorf("after SetMax(%v) and then SetMax(%v) the difficulty of a miner of %v is still %v",
				hi, 64*d, s.typical(), got))
		}
	}
	for _, bad := range append(extremes, badDifficulties...) {
		b.err = nil
		setter.SetMax(bad)
		if run(s.typical(), time.Minute); b.err != nil {
			errs = append(errs, fmt.Errorf("after SetMax(%v): %w", bad, b.err))
		}
	}
	return errors.Join(errs...)
}

// nearEnough is a factor that an estimate may be off by.
const nearEnough = 4

func near(a, b difficulty.Difficulty) bool { return a <= nearEnough*b && b <= nearEnough*a }

func checkStateIsTrue(_ *testing.T, s suite) error {
	var errs []error
	p := s.newPolicy()
	d, now := s.aged(p)
	k, _ := difficulty.As[difficulty.Keeper](p)
	st := k.State(now)
	if !st.Valid() {
		return fmt.Errorf("the state of a settled miner is %+v, which is not valid", st)
	}
	if _, inner := p.(difficulty.Keeper); inner && st.Difficulty != d { // a wrapper changes what was given
		errs = append(errs, fmt.Errorf("the state says difficulty %v, the last one given is %v", st.Difficulty, d))
	}
	if !st.At.Equal(now) {
		errs = append(errs, fmt.Errorf("the state at %v says that it is of %v", now, st.At))
	}
	h := difficulty.Difficulty(st.Hashrate)
	if st.Hashrate > 0 && !near(h, difficulty.Difficulty(s.typical())) {
		errs = append(errs, fmt.Errorf("the state says %v, the miner has %v", st.Hashrate, s.typical()))
	}
	if st.Hashrate > 0 && st.Shares <= 0 {
		errs = append(errs, fmt.Errorf("the state says %v from %v shares", st.Hashrate, st.Shares))
	}
	return errors.Join(errs...)
}

func checkRestoreGoesOn(_ *testing.T, s suite) error {
	var errs []error
	old := s.newPolicy()
	d, now := s.aged(old)
	k, _ := difficulty.As[difficulty.Keeper](old)
	restore := func(st difficulty.State, what string) {
		p := s.newPolicy()
		k, _ := difficulty.As[difficulty.Keeper](p)
		begin := now.Add(time.Minute)
		k.Restore(begin, st)
		tr := Run(p, withLag(Steady(s.typical())), &Options{Duration: 10 * time.Minute, Start: begin, MaxShareRate: maxShareRate})
		for _, pt := range tr.Points {
			if !near(pt.Difficulty, d) {
				errs = append(errs, fmt.Errorf("restored from %s, a miner that had %v got %v after %v", what, d, pt.Difficulty, pt.At))
				return
			}
		}
	}
	restore(k.State(now), "its own state")
	restore(difficulty.State{At: now, Difficulty: d}, "a state without a hashrate")
	restore(difficulty.State{At: now, Difficulty: d, Hashrate: s.typical(), Shares: 60}, "the state of another kind of policy")
	return errors.Join(errs...)
}

func checkRestoreRefuses(_ *testing.T, s suite) error {
	var errs []error
	nan, inf := math.NaN(), math.Inf(1)
	fresh := s.newPolicy().Next(defaultStart)
	at := defaultStart.Add(-time.Minute)
	far := fresh * 1024
	for _, st := range []difficulty.State{
		{}, {At: at}, {At: at, Difficulty: difficulty.Difficulty(nan)}, {At: at, Difficulty: difficulty.Difficulty(inf)},
		{At: at, Difficulty: -far}, {At: at, Difficulty: far, Hashrate: difficulty.Hashrate(nan), Shares: 10},
		{At: at, Difficulty: far, Hashrate: difficulty.Hashrate(inf), Shares: 10}, {At: at, Difficulty: far, Hashrate: -1, Shares: 10},
		{At: at, Difficulty: far, Hashrate: s.typical(), Shares: -1}, {At: at, Difficulty: far, Hashrate: s.typical(), Shares: nan},
		{At: at, Difficulty: far, Hashrate: s.typical(), Shares: inf},
	} {
		p := s.newPolicy()
		k, _ := difficulty.As[difficulty.Keeper](p)
		k.Restore(defaultStart, st)
		if d := p.Next(defaultStart); d != fresh {
			errs = append(errs, fmt.Errorf("restored from %+v, which is not valid, a new policy begins at %v, otherwise at %v", st, d, fresh))
		}
	}

	// What is valid and yet of no use must do no harm.
	for _, st := range []difficulty.State{
		{Difficulty: 1}, {At: at, Difficulty: 1.3}, {At: at, Difficulty: math.SmallestNonzeroFloat64}, {At: at, Difficulty: math.MaxFloat64},
		{At: defaultStart.Add(time.Hour), Difficulty: far}, {At: at.Add(-1e4 * time.Hour), Difficulty: far},
		{At: at, Difficulty: far, Hashrate: math.MaxFloat64, Shares: math.MaxFloat64},
		{At: at, Difficulty: far, Hashrate: math.SmallestNonzeroFloat64, Shares: math.SmallestNonzeroFloat64},
		{At: at, Difficulty: far, Hashrate: s.typical()}, {At: at, Difficulty: far, Shares: 100},
	} {
		b := newBounded(s.newPolicy(), &s.expect, s.expect.Min, s.expect.Max)
		k, _ := difficulty.As[difficulty.Keeper](b.Policy)
		k.Restore(defaultStart, st)
		if Run(b, withLag(Steady(s.typical())), &Options{Duration: 10 * time.Minute, MaxShareRate: 20}); b.wrong() != nil {
			errs = append(errs, fmt.Errorf("restored from %+v: %w", st, b.wrong()))
		}
	}
	j := &judged{Policy: s.newPolicy(), expect: &s.expect}
	k, _ := difficulty.As[difficulty.Keeper](j.Policy)
	k.Restore(defaultStart, k.State(defaultStart))
	j.Next(defaultStart)
	return errors.Join(append(errs, j.err)...)
}
