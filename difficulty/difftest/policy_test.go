package difftest

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
)

// average is a policy of another kind than Vardiff: every few minutes it sets what the work since then calls for.
type average struct {
	target   time.Duration
	every    time.Duration
	cur      difficulty.Difficulty
	since    time.Time
	work     difficulty.Difficulty
	fraction bool
}

func newAverage() *average {
	return &average{target: 10 * time.Second, every: 5 * time.Minute, cur: 1024}
}

func (a *average) Observe(_ time.Time, d difficulty.Difficulty) {
	if d.Valid() {
		a.work += d
	}
}

func (a *average) Next(now time.Time) difficulty.Difficulty {
	if a.since.IsZero() {
		a.since = now
	}
	if span := now.Sub(a.since); span >= a.every {
		d := min(max(difficulty.HashrateOf(a.work, span).Difficulty(a.target), 1), difficulty.Max)
		if d > 2.5*a.cur || d < a.cur/2.5 {
			a.cur = d.FloorPow2()
			if a.fraction {
				a.cur = d
			}
		}
		a.since, a.work = now, 0
	}
	return a.cur
}

func TestTestPolicyPasses(t *testing.T) {
	t.Run("a policy of another kind", func(t *testing.T) {
		TestPolicy(t, func() difficulty.Policy { return newAverage() })
	})
	t.Run("one that does not round", func(t *testing.T) {
		TestPolicyWith(t, func() difficulty.Policy {
			a := newAverage()
			a.fraction = true
			return a
		}, &Expect{Unrounded: true})
	})
	t.Run("one that aims at a share a minute", func(t *testing.T) {
		TestPolicyWith(t, func() difficulty.Policy {
			a := newAverage()
			a.target, a.every = time.Minute, 10*time.Minute
			return a
		}, &Expect{MinInterval: 20 * time.Second, MaxInterval: 3 * time.Minute, Slowest: 1e12, Settle: time.Hour})
	})
	t.Run("Fixed", func(t *testing.T) {
		TestPolicy(t, func() difficulty.Policy { return difficulty.Fixed(1024) })
	})
	t.Run("a bounded Fixed", func(t *testing.T) {
		TestPolicyWith(t, func() difficulty.Policy {
			p, err := difficulty.Clamp(difficulty.Fixed(math.NaN()), 64, 128)
			require.NoError(t, err)
			return p
		}, &Expect{Constant: true})
	})
	t.Run("a bounded Vardiff", func(t *testing.T) {
		TestPolicyWith(t, func() difficulty.Policy {
			v, err := difficulty.NewVardiff(nil)
			require.NoError(t, err)
			p, err := difficulty.Clamp(v, 64, 1<<40)
			require.NoError(t, err)
			return p
		}, nil)
	})
}

// A bend returns something else than d, what the Vardiff of b returned.
type bend func(b *bent, now time.Time, d difficulty.Difficulty) difficulty.Difficulty

// bent changes what a Vardiff returns.
type bent struct {
	*difficulty.Vardiff
	begin time.Time
	last  time.Time             // share
	kept  difficulty.Difficulty // for bend
	bend  bend
}

func (b *bent) Observe(now time.Time, d difficulty.Difficulty) {
	b.last = now
	b.Vardiff.Observe(now, d)
}

func (b *bent) Next(now time.Time) difficulty.Difficulty {
	if b.begin.IsZero() {
		b.begin, b.last = now, now
	}
	return b.bend(b, now, b.Vardiff.Next(now))
}

// newBent is improved, so that the Vardiff below goes by the work and does not make up for what is bent.
func newBent(bend bend) func() difficulty.Policy {
	return func() difficulty.Policy {
		v, err := difficulty.NewVardiff(&difficulty.VardiffOptions{Improved: true})
		if err != nil {
			panic(err)
		}
		return &bent{Vardiff: v, bend: bend}
	}
}

// deaf ignores Reset.
type deaf struct{ *difficulty.Vardiff }

func (deaf) Reset(difficulty.Difficulty) {}

// impulsive doubles without bound with every tenth share.
type impulsive struct {
	n   int
	cur difficulty.Difficulty
}

func (p *impulsive) Observe(time.Time, difficulty.Difficulty) {
	if p.n++; p.n%10 == 0 {
		p.cur *= 2
	}
}
func (p *impulsive) Next(time.Time) difficulty.Difficulty { return p.cur }

// clocked believes its own clock rather than what it is told.
type clocked struct{ *average }

func (c clocked) Next(time.Time) difficulty.Difficulty { return c.average.Next(time.Now()) }

func TestTestPolicyFindsWhatIsWrong(t *testing.T) {
	type d = difficulty.Difficulty
	// keep returns what a policy had after 33 minutes, settled and before every change.
	keep := func(b *bent, now time.Time, cur d) d {
		if b.kept == 0 && now.Sub(b.begin) >= 33*time.Minute {
			b.kept = cur
		}
		if b.kept == 0 {
			return cur
		}
		return b.kept
	}
	vardiff := func() *difficulty.Vardiff {
		v, err := difficulty.NewVardiff(nil)
		require.NoError(t, err)
		return v
	}
	shared := newAverage()
	for _, c := range []struct {
		name   string
		policy func() difficulty.Policy
		expect *Expect
		check  string
		want   string
	}{
		{"NaN when there is no share", newBent(func(b *bent, now time.Time, cur d) d {
			if now.Sub(b.last) > 5*time.Minute {
				return d(math.NaN())
			}
			return cur
		}), nil, "AlwaysValid", "NaN, which is no difficulty"},
		{"a difficulty of 0", func() difficulty.Policy { return difficulty.Fixed(0) }, nil, "AlwaysValid", "returned 0"},
		{"a fraction that is no power of two", func() difficulty.Policy { return difficulty.Fixed(1.5) }, nil, "AlwaysValid",
			"1.5, which is neither whole"},
		{"NaN in silence", newBent(func(b *bent, now time.Time, cur d) d {
			if now.Sub(b.last) > 24*time.Hour {
				return d(math.NaN())
			}
			return cur
		}), nil, "SurvivesSilence", "NaN"},
		{"a clock", func() difficulty.Policy { return clocked{newAverage()} }, nil, "ReadsNoClock", "when it runs"},
		{"one state for all sessions", func() difficulty.Policy { return shared }, nil, "ServesOneSession", "beside another"},
		{"a constant that adapts", func() difficulty.Policy { return vardiff() }, &Expect{Constant: true}, "NeverChanges",
			"constant policy"},
		{"rising in silence", newBent(func(b *bent, now time.Time, cur d) d {
			if now.Sub(b.last) > 24*time.Hour {
				return 2 * cur
			}
			return cur
		}), nil, "SurvivesSilence", "rose to 128"},
		{"rising with every call", newBent(func(b *bent, now time.Time, cur d) d {
			b.Vardiff.SetMin(cur * 2)
			return cur
		}), nil, "SurvivesStandstill", "rose from"},
		{"no upper bound", func() difficulty.Policy { return &impulsive{cur: 1} }, nil, "SurvivesFlood", "+Inf"},
		{"stuck after a flood", newBent(func(b *bent, now time.Time, cur d) d {
			if cur > 1<<40 {
				b.Vardiff.SetMin(cur)
			}
			return cur
		}), nil, "SettlesAfterFlood", "a share came every"},
		{"a constant that is not declared", func() difficulty.Policy { return constant(1024) }, &Expect{Fastest: 2e13},
			"Steady", "a share came every"},
		{"to and fro", newBent(func(b *bent, now time.Time, cur d) d {
			if now.Minute()%10 == 0 {
				return 2 * cur
			}
			return cur
		}), nil, "Steady", "changed 12 times in an hour"},
		{"a policy that is too slow", newBent(func(b *bent, now time.Time, cur d) d { return cur * 8 }), nil, "Steady",
			"want every 1s to 1m0s"},
		{"falling when the hashrate doubles", newBent(func(b *bent, now time.Time, cur d) d {
			if now.Sub(b.begin) > 50*time.Minute {
				return cur / 8
			}
			return cur
		}), nil, "Doubling", "the difficulty went from"},
		{"rising when the hashrate halves", newBent(func(b *bent, now time.Time, cur d) d {
			if now.Sub(b.begin) > 50*time.Minute {
				return cur * 8
			}
			return cur
		}), nil, "Halving", "the difficulty went from"},
		{"deaf to a surge", newBent(func(b *bent, now time.Time, cur d) d {
			return min(cur, keep(b, now, cur))
		}), nil, "Surge", "the difficulty went from"},
		{"deaf to a slump", newBent(func(b *bent, now time.Time, cur d) d {
			return max(cur, keep(b, now, cur))
		}), nil, "Slump", "the difficulty went from"},
		{"giving up on a silent miner", newBent(func(b *bent, now time.Time, cur d) d {
			if now.Sub(b.last) > time.Hour {
				b.bend = func(*bent, time.Time, d) d { return 64 }
			}
			return cur
		}), &Expect{Fastest: 2e12}, "ComingBack", "that was silent"},
		{"deaf to Reset", func() difficulty.Policy { return deaf{vardiff()} }, nil, "ResetGoesOn", "reset to"},
		{"falling at once after a late Reset", newBent(func(b *bent, now time.Time, cur d) d {
			if now.Sub(b.begin) == 2*time.Hour+time.Minute {
				return 64
			}
			return cur
		}), nil, "ResetGoesOn", "in a session of another difficulty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var found bool
			for _, check := range checks {
				if check.name != c.check {
					continue
				}
				found = true
				require.ErrorContains(t, check.run(t, suite{c.policy, c.expect.orDefaults()}), c.want)
			}
			require.True(t, found)
		})
	}
}

// constant is a Fixed of another name.
type constant difficulty.Difficulty

func (constant) Observe(time.Time, difficulty.Difficulty) {}
func (c constant) Next(time.Time) difficulty.Difficulty   { return difficulty.Difficulty(c) }

func TestHashrates(t *testing.T) {
	hs := hashrates(100e9, 100e15)
	require.Len(t, hs, 10)
	require.EqualValues(t, 100e9, hs[0])
	require.InEpsilon(t, 100e15, float64(hs[9]), 1e-9)
	require.Equal(t, []difficulty.Hashrate{5, 6}, hashrates(5, 6))
}
