package difficulty_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/difficulty/difftest"
)

func TestHysteresis(t *testing.T) {
	for _, c := range []struct {
		name       string
		factor     float64
		next, want []difficulty.Difficulty
	}{
		{"keeps what is less than the factor away", 2, []difficulty.Difficulty{100, 199, 51, 100, 150}, []difficulty.Difficulty{100, 100, 100, 100, 100}},
		{"gives what is the factor away, up", 2, []difficulty.Difficulty{100, 200, 399, 101}, []difficulty.Difficulty{100, 200, 200, 200}},
		{"gives what is the factor away, down", 2, []difficulty.Difficulty{100, 50, 26, 25}, []difficulty.Difficulty{100, 50, 50, 25}},
		{"measures from what it gave, so that a drift is seen", 1.5, []difficulty.Difficulty{10, 12, 14, 15, 20, 23}, []difficulty.Difficulty{10, 10, 10, 15, 15, 23}},
		{"keeps the last good one", 2, []difficulty.Difficulty{8, nan, inf, -inf, 0, -1, 16}, []difficulty.Difficulty{8, 8, 8, 8, 8, 8, 16}},
		{"has nothing good at first", 2, []difficulty.Difficulty{nan, inf, 0, 3}, []difficulty.Difficulty{difficulty.Min, difficulty.Min, difficulty.Min, 3}},
		{"extremes", 2, []difficulty.Difficulty{math.MaxFloat64, 5e-324, math.MaxFloat64}, []difficulty.Difficulty{math.MaxFloat64, 5e-324, math.MaxFloat64}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := difficulty.Hysteresis(&says{next: c.next}, c.factor)
			require.NoError(t, err)
			require.Equal(t, c.want, given(p, len(c.want)))
		})
	}
	_, err := difficulty.Hysteresis(nil, 2)
	require.EqualError(t, err, "difficulty: hysteresis: the policy is nil")
	for _, bad := range []float64{1, 0.5, 0, -2, math.NaN(), math.Inf(1)} {
		_, err := difficulty.Hysteresis(difficulty.Fixed(1), bad)
		require.ErrorContains(t, err, "is not a finite number above 1")
	}
}

func TestLimitStep(t *testing.T) {
	for _, c := range []struct {
		name       string
		up, down   float64
		next, want []difficulty.Difficulty
	}{
		{"up step by step", 2, 4, []difficulty.Difficulty{100, 700}, []difficulty.Difficulty{100, 200, 400, 700, 700}},
		{"down step by step", 2, 4, []difficulty.Difficulty{100, 1}, []difficulty.Difficulty{100, 25, 6.25, 1.5625, 1}},
		{"only down", 1, 2, []difficulty.Difficulty{8, 100, 5, 1}, []difficulty.Difficulty{8, 8, 5, 2.5}},
		{"no limit upwards", math.Inf(1), 2, []difficulty.Difficulty{1, 1e9, 1}, []difficulty.Difficulty{1, 1e9, 5e8}},
		{"no limit downwards", 2, math.Inf(1), []difficulty.Difficulty{1e9, 1, 4}, []difficulty.Difficulty{1e9, 1, 2}},
		{"keeps the last good one", 2, 2, []difficulty.Difficulty{8, nan, inf, 0, -1, 32}, []difficulty.Difficulty{8, 8, 8, 8, 8, 16}},
		{"has nothing good at first", 2, 2, []difficulty.Difficulty{nan, 64}, []difficulty.Difficulty{difficulty.Min, 64}},
		{"extremes", 2, 2, []difficulty.Difficulty{1e308, math.MaxFloat64, 5e-324}, []difficulty.Difficulty{1e308, math.MaxFloat64, math.MaxFloat64 / 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := difficulty.LimitStep(&says{next: c.next}, c.up, c.down)
			require.NoError(t, err)
			require.Equal(t, c.want, given(p, len(c.want)))
		})
	}
	t.Run("calls at one moment are one step", func(t *testing.T) {
		p, err := difficulty.LimitStep(&says{next: []difficulty.Difficulty{1, 100}}, 2, 2)
		require.NoError(t, err)
		require.Equal(t, difficulty.Difficulty(1), p.Next(noon))
		require.Equal(t, difficulty.Difficulty(2), p.Next(noon.Add(1)))
		for range 5 {
			require.Equal(t, difficulty.Difficulty(2), p.Next(noon.Add(1)))
			require.Equal(t, difficulty.Difficulty(2), p.Next(noon), "nor does going back begin another")
		}
		require.Equal(t, difficulty.Difficulty(4), p.Next(noon.Add(2)))
	})
	t.Run("small steps are not lost by rounding outside", func(t *testing.T) {
		p, err := difficulty.LimitStep(&says{next: []difficulty.Difficulty{1, 100}}, 1.1, 2)
		require.NoError(t, err)
		p, err = difficulty.Quantize(p, difficulty.PowersOfTwo)
		require.NoError(t, err)
		ds := given(p, 60)
		require.Equal(t, difficulty.Difficulty(1), ds[3])    // 1.331
		require.Equal(t, difficulty.Difficulty(2), ds[4])    // 1.464
		require.Equal(t, difficulty.Difficulty(128), ds[59]) // 100
	})
	_, err := difficulty.LimitStep(nil, 2, 2)
	require.EqualError(t, err, "difficulty: limit step: the policy is nil")
	_, err = difficulty.LimitStep(difficulty.Fixed(1), 0.5, math.NaN())
	require.ErrorContains(t, err, "up 0.5 is not at least 1")
	require.ErrorContains(t, err, "down NaN is not at least 1")
	_, err = difficulty.LimitStep(difficulty.Fixed(1), 1, 1)
	require.ErrorContains(t, err, "never let it change")
}

// wrappers are all that there are, around p.
func wrappers(t *testing.T, p difficulty.Policy) map[string]difficulty.Policy {
	t.Helper()
	all := map[string]difficulty.Policy{}
	add := func(name string, w difficulty.Policy, err error) {
		require.NoError(t, err)
		all[name] = w
	}
	w, err := difficulty.Hysteresis(p, 1.5)
	add("Hysteresis", w, err)
	w, err = difficulty.LimitStep(p, 2, 2)
	add("LimitStep", w, err)
	w, err = difficulty.Quantize(p, difficulty.PowersOfSqrt2)
	add("Quantize", w, err)
	return all
}

func TestWrappersHideNothing(t *testing.T) {
	for name := range wrappers(t, difficulty.Fixed(1)) {
		t.Run(name, func(t *testing.T) {
			_, resets := wrappers(t, difficulty.Fixed(8))[name].(difficulty.Resetter)
			require.False(t, resets, "a Fixed cannot be reset, wrapped or not")

			inner := &saysResettable{says: says{next: []difficulty.Difficulty{8}}}
			p := wrappers(t, inner)[name]
			p.Observe(noon, 1)
			require.Equal(t, 1, inner.seen)
			require.Equal(t, difficulty.Policy(inner), p.(difficulty.Wrapper).Unwrap())

			h, ok := difficulty.As[difficulty.Hurrier](p)
			require.True(t, ok && h.Hurry(noon))
			lo, ok := difficulty.As[difficulty.MinSetter](p)
			require.True(t, ok)
			lo.SetMin(3)
			hi, ok := difficulty.As[difficulty.MaxSetter](p)
			require.True(t, ok)
			hi.SetMax(4)
			require.Equal(t, []difficulty.Difficulty{3, 4}, []difficulty.Difficulty{inner.min, inner.max})
			hi.SetMax(0)
			k, ok := difficulty.As[difficulty.Keeper](p)
			require.True(t, ok)
			require.Equal(t, difficulty.Difficulty(7), k.State(noon).Difficulty)

			// After Reset, what is wanted is given whole, and before an invalid Reset nothing is forgotten.
			require.Equal(t, difficulty.Difficulty(8), p.Next(noon))
			inner.next = []difficulty.Difficulty{8.1}
			r, ok := p.(difficulty.Resetter)
			require.True(t, ok)
			r.Reset(nan)
			inner.next = []difficulty.Difficulty{8 * 1.2}
			if name == "Hysteresis" {
				require.Equal(t, difficulty.Difficulty(8), p.Next(noon.Add(1)))
			}
			inner.next = []difficulty.Difficulty{1024}
			r.Reset(1024)
			require.Equal(t, difficulty.Difficulty(1024), inner.reset)
			require.Equal(t, difficulty.Difficulty(1024), p.Next(noon.Add(1)))
		})
	}
}

// A wrapper that says something else than what it wraps is held to the bounds too, even where the other is not.
func TestWrappersAreBounded(t *testing.T) {
	for _, name := range []string{"Hysteresis", "LimitStep"} {
		t.Run(name, func(t *testing.T) {
			inner := &says{next: []difficulty.Difficulty{1000}}
			p := wrappers(t, inner)[name]
			lo, hi := p.(difficulty.MinSetter), p.(difficulty.MaxSetter)
			require.Equal(t, difficulty.Difficulty(1000), p.Next(noon))
			hi.SetMax(16)
			require.Equal(t, difficulty.Difficulty(16), p.Next(noon.Add(1)))
			lo.SetMin(32)
			require.Equal(t, difficulty.Difficulty(16), p.Next(noon.Add(2)), "the maximum counts more")
			hi.SetMax(nan)
			inner.next = []difficulty.Difficulty{1}
			require.GreaterOrEqual(t, p.Next(noon.Add(3)), difficulty.Difficulty(32))
			for i := range 20 {
				p.Next(noon.Add(time.Duration(4 + i)))
			}
			require.Equal(t, difficulty.Difficulty(32), p.Next(noon.Add(time.Minute)))
		})
	}
}

func TestWrappersGiveOnlyDifficulties(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	odd := []difficulty.Difficulty{nan, inf, -inf, 0, -1, 5e-324, math.MaxFloat64, difficulty.Min, difficulty.Max, 1, 1e5}
	for range 200 {
		inner := &says{}
		for range 100 {
			inner.next = append(inner.next, odd[rng.IntN(len(odd))])
		}
		p, err := difficulty.Hysteresis(inner, 1+rng.Float64()*3)
		require.NoError(t, err)
		p, err = difficulty.LimitStep(p, 1.0001+rng.Float64()*9, 1+rng.Float64()*9)
		require.NoError(t, err)
		for i, d := range given(p, 100) {
			require.True(t, d.Valid(), "%v at %d", d, i)
		}
	}
}

func TestWrappersConform(t *testing.T) {
	for name := range wrappers(t, difficulty.Fixed(1)) {
		t.Run(name, func(t *testing.T) {
			difftest.TestPolicyWith(t, func() difficulty.Policy {
				return wrappers(t, newVardiff(t, &difficulty.VardiffOptions{Improved: true}))[name]
			}, &difftest.Expect{Unrounded: name == "LimitStep"})
		})
	}
}

func TestWrappersAllocateNothing(t *testing.T) {
	for name, p := range wrappers(t, difficulty.Fixed(100)) {
		now := noon
		if n := testing.AllocsPerRun(100, func() {
			now = now.Add(time.Second)
			p.Observe(now, 100)
			p.Next(now)
		}); n != 0 {
			t.Errorf("%s allocates %v times, want 0", name, n)
		}
	}
}

func ExampleHysteresis() {
	ladder, err := difficulty.NewLadder(&difficulty.LadderOptions{Start: 1000})
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := difficulty.Hysteresis(ladder, 2) // only what is worth telling the miner
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p.Next(now)
	for range 10 { // in a minute, where 6 should come: a Ladder wants 1667
		p.Observe(now, 1000)
	}
	fmt.Println(p.Next(now.Add(time.Minute)))
	// Output: 1000
}
