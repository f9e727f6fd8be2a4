package difftest

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
)

// everything is a policy that is all that a policy can be. Its faults break one promise each.
type everything struct {
	cur, lo, hi difficulty.Difficulty
	since, last time.Time
	work        difficulty.Difficulty
	n           int
	hashrate    difficulty.Hashrate
	known       float64
	fault       fault
}

type fault int

const (
	none fault = iota
	trustsNaN
	diesOfInf
	believesZero
	followsTime
	waitsForTime
	neverHurries
	hurryCounts
	stateCounts
	forgetsMin
	minIsForever
	minTakesNaN
	forgetsMax
	maxIsForever
	maxTakesNaN
	resetsAboveMax
	stateOfNothing
	stateOfAnother
	stateWithoutTime
	stateOfAMillion
	stateFromNowhere
	restoresNothing
	restoresHashrateOnly
	restoresAnything
	restoresWithoutBounds
)

func newEverything(f fault) func() difficulty.Policy {
	return func() difficulty.Policy {
		return &everything{cur: 1024, lo: difficulty.Min, hi: difficulty.Max, fault: f}
	}
}

func (e *everything) bound(d difficulty.Difficulty) difficulty.Difficulty {
	return min(max(d.FloorPow2(), e.lo), e.hi)
}

func (e *everything) tick(now time.Time) {
	if e.since.IsZero() {
		e.since, e.last = now, now
	}
	switch {
	case now.After(e.last) || e.fault == followsTime:
		e.last = now
	case now.Before(e.last) && e.fault == waitsForTime:
		e.since = e.last.Add(24 * time.Hour)
	}
}

func (e *everything) Observe(now time.Time, d difficulty.Difficulty) {
	e.tick(now)
	switch {
	case d.Valid():
	case e.fault == trustsNaN && math.IsNaN(float64(d)):
	case e.fault == diesOfInf && math.IsInf(float64(d), 1):
	case e.fault == believesZero && d == 0:
		d = e.cur
		e.lo = min(e.lo*1.5, difficulty.Max) // for good
	default:
		return
	}
	e.work += d
	e.n++
}

func (e *everything) estimate() difficulty.Difficulty {
	span := max(e.last.Sub(e.since), time.Second)
	if e.fault == followsTime && e.last.Before(e.since) {
		span = e.since.Sub(e.last)
		return -difficulty.HashrateOf(e.work, span).Difficulty(10 * time.Second)
	}
	return difficulty.HashrateOf(e.work, span).Difficulty(10 * time.Second)
}

func (e *everything) Hurry(now time.Time) bool {
	if e.fault == hurryCounts {
		e.work += e.cur / 8
	}
	if e.fault == neverHurries {
		return false
	}
	e.tick(now)
	return e.n >= 20 && e.estimate() > 3*e.cur && e.cur < e.hi
}

func (e *everything) Next(now time.Time) difficulty.Difficulty {
	hurry := e.Hurry(now)
	e.tick(now)
	if d := e.estimate(); d < 0 {
		return d
	}
	if span := e.last.Sub(e.since); hurry || span >= 5*time.Minute {
		d := e.estimate()
		if e.fault == diesOfInf && d > math.MaxFloat64 {
			return d
		}
		e.hashrate, e.known = difficulty.HashrateOf(e.work, max(span, time.Second)), float64(e.n)
		if !(d <= 2.5*e.cur && d >= e.cur/2.5) {
			e.cur = e.bound(d)
			if e.fault == trustsNaN && !d.Valid() && d != 0 {
				e.cur = d
			}
		}
		e.since, e.work, e.n = e.last, 0, 0
	}
	return e.cur
}

func (e *everything) Reset(d difficulty.Difficulty) {
	if d.Valid() {
		e.cur = e.bound(d)
		if e.fault == resetsAboveMax {
			e.cur = d.FloorPow2()
		}
		e.since, e.last, e.work, e.n = time.Time{}, time.Time{}, 0, 0
	}
}

func (e *everything) SetMin(d difficulty.Difficulty) {
	lo := difficulty.Min
	switch {
	case e.fault == forgetsMin:
		return
	case e.fault == minIsForever && e.lo > difficulty.Min:
		return
	case d.Valid():
		lo = d.CeilPow2()
	case e.fault == minTakesNaN:
		lo = d
	}
	e.lo = lo
	e.cur = max(e.cur, e.lo)
}

func (e *everything) SetMax(d difficulty.Difficulty) {
	hi := difficulty.Max
	switch {
	case e.fault == forgetsMax:
		return
	case e.fault == maxIsForever && e.hi < difficulty.Max:
		return
	case d.Valid():
		hi = d.FloorPow2()
	case e.fault == maxTakesNaN:
		hi = d
	}
	e.hi = hi
	e.cur = min(e.cur, e.hi)
}

func (e *everything) State(now time.Time) difficulty.State {
	if e.fault == stateCounts {
		e.work += e.cur / 8
	}
	s := difficulty.State{At: now, Difficulty: e.cur, Hashrate: e.hashrate, Shares: e.known}
	switch e.fault {
	case stateOfNothing:
		s.Difficulty = 0
	case stateOfAnother:
		s.Difficulty *= 2
	case stateWithoutTime:
		s.At = time.Time{}
	case stateOfAMillion:
		s.Hashrate *= 1e6
	case stateFromNowhere:
		s.Shares = 0
	}
	return s
}

func (e *everything) Restore(_ time.Time, s difficulty.State) {
	switch {
	case e.fault == restoresNothing:
		return
	case e.fault == restoresHashrateOnly:
		s.Difficulty = s.Hashrate.Difficulty(10 * time.Second)
	case e.fault == restoresAnything:
		e.cur = s.Difficulty
		return
	}
	if s.Valid() {
		e.cur = e.bound(s.Difficulty)
		if e.fault == restoresWithoutBounds {
			e.cur = s.Difficulty
		}
	}
}

func TestTestPolicyPassesEverything(t *testing.T) {
	TestPolicyWith(t, newEverything(none), &Expect{Min: difficulty.Min, Max: difficulty.Max})
}

// Every check about a capability is skipped for what has none, and is not for what has it.
func TestTestPolicyKnowsWhatAPolicyIs(t *testing.T) {
	for name, is := range capable {
		require.True(t, is(newEverything(none)()), name)
		require.False(t, is(newAverage()), name)
		p, err := difficulty.Clamp(newEverything(none)(), 1, 2)
		require.NoError(t, err)
		require.True(t, is(p), name)
	}
	used := map[string]bool{}
	for _, c := range checks {
		if c.needs != "" {
			require.Contains(t, capable, c.needs)
			used[c.needs] = true
		}
	}
	require.Len(t, used, len(capable))
}

func TestTestPolicyFindsBrokenPromises(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  fault
		expect *Expect
		check  string
		want   string
	}{
		{"below what it is bounded to", none, &Expect{Min: 2048}, "StaysInBounds", "not within [2048, 0]"},
		{"above what it is bounded to", none, &Expect{Max: 512}, "StaysInBounds", "not within [0, 512]"},
		{"below when reset", none, &Expect{Min: 512}, "StaysInBounds", "reset to 0.00000000023283064365386963: Next returned"},
		{"NaN in a sum", trustsNaN, nil, "SurvivesBadShares", "NaN, which is no difficulty"},
		{"an infinite sum", diesOfInf, nil, "SurvivesBadShares", "+Inf, which is no difficulty"},
		{"a bound that bad shares move", believesZero, &Expect{Unrounded: true}, "SurvivesBadShares", "a share came every"},
		{"less than no time", followsTime, nil, "SurvivesTimeGoingBackwards", "which is no difficulty"},
		{"waiting for what went by", waitsForTime, nil, "SurvivesTimeGoingBackwards", "a share came every"},
		{"no hurry", neverHurries, nil, "EndsFloods", "sent more than 3 shares every 10s for"},
		{"hurry that counts", hurryCounts, nil, "HurryChangesNothing", "when Hurry is asked for"},
		{"a minimum that is not kept", forgetsMin, nil, "SetMinBounds", "not within ["},
		{"a minimum that cannot be lowered", minIsForever, nil, "SetMinBounds", "is still"},
		{"a minimum of NaN", minTakesNaN, nil, "SetMinBounds", "after SetMin(NaN)"},
		{"a maximum that is not kept", forgetsMax, nil, "SetMaxBounds", "not within [0, "},
		{"a maximum that Reset exceeds", resetsAboveMax, nil, "SetMaxBounds", "not within [0, "},
		{"a maximum that cannot be raised", maxIsForever, nil, "SetMaxBounds", "is still"},
		{"a maximum of NaN", maxTakesNaN, nil, "SetMaxBounds", "after SetMax(NaN)"},
		{"a state without a difficulty", stateOfNothing, nil, "StateIsTrue", "which is not valid"},
		{"a state with another difficulty", stateOfAnother, nil, "StateIsTrue", "the last one given is"},
		{"a state without a time", stateWithoutTime, nil, "StateIsTrue", "says that it is of 0001"},
		{"a state of a hashrate that is not the miner's", stateOfAMillion, nil, "StateIsTrue", "the miner has"},
		{"a state of a hashrate from no shares", stateFromNowhere, nil, "StateIsTrue", "from 0 shares"},
		{"a state that counts", stateCounts, nil, "StateChangesNothing", "when State is asked for"},
		{"a Restore that does nothing", restoresNothing, nil, "RestoreGoesOn", "restored from its own state"},
		{"a Restore that needs a hashrate", restoresHashrateOnly, nil, "RestoreGoesOn", "restored from a state without a hashrate"},
		{"a Restore that trusts", restoresAnything, nil, "RestoreRefusesWhatIsNotValid", "which is not valid, a new policy begins at"},
		{"a Restore beyond all bounds", restoresWithoutBounds, nil, "RestoreRefusesWhatIsNotValid", "which is neither whole"},
		{"a Restore beyond the bounds of all", restoresWithoutBounds, &Expect{Unrounded: true, Max: difficulty.Max},
			"RestoreRefusesWhatIsNotValid", "which is not within"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var found bool
			for _, check := range checks {
				if check.name != c.check {
					continue
				}
				found = true
				require.ErrorContains(t, check.run(t, suite{newEverything(c.fault), c.expect.orDefaults()}), c.want)
			}
			require.True(t, found)
		})
	}
}

func TestTestPolicyBoundsFloodsAsExpected(t *testing.T) {
	for _, e := range []*Expect{{MaxFlood: time.Hour}, {Interval: time.Millisecond}} {
		require.NoError(t, checkEndsFloods(t, suite{newEverything(neverHurries), e.orDefaults()}))
	}
	require.Error(t, checkEndsFloods(t, suite{newEverything(none), (&Expect{MaxFlood: 3 * time.Second}).orDefaults()}))
}
