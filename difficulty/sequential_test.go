package difficulty_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/difficulty/difftest"
)

func newSequential(t testing.TB, opts *difficulty.SequentialOptions) *difficulty.Sequential {
	t.Helper()
	s, err := difficulty.NewSequential(opts)
	require.NoError(t, err)
	return s
}

// sequentialFrom is the default but for where it begins.
func sequentialFrom(start difficulty.Difficulty) difficulty.Policy {
	s, err := difficulty.NewSequential(&difficulty.SequentialOptions{Start: start, Min: difficulty.Min})
	if err != nil {
		panic(err)
	}
	return s
}

func scenario(t testing.TB, name string) difftest.Scenario {
	t.Helper()
	for _, sc := range difftest.Scenarios() {
		if sc.Name == name {
			return sc
		}
	}
	t.Fatalf("there is no scenario %q", name)
	return difftest.Scenario{}
}

// What Sequential is for, at six shares a minute over 1,000 trials. The reference is that of Stratum V2, whose published
// figures for the algorithm in use are named with each goal. A goal holds where the whole 95 % interval is within it.
func TestSequentialGoals(t *testing.T) {
	trials := func(name string) difftest.Result {
		sc := scenario(t, name)
		sc.Options.Duration = min(sc.Options.Duration, 31*time.Minute) // as long as the reference's
		r, err := difftest.Trials(sequentialFrom, sc, 1000, 1, nil)
		require.NoError(t, err)
		return r
	}
	for _, name := range []string{"cold-start", "cold-start-down"} {
		t.Run(name, func(t *testing.T) { // published: 83.3 % converge, half within 12 minutes, nine tenths within 21
			r := trials(name)
			require.GreaterOrEqual(t, r[difftest.Converged].Low, 0.95)
			require.LessOrEqual(t, r[difftest.ConvergeTime].P50, 180.)
			require.GreaterOrEqual(t, r[difftest.ReferenceConverged].Low, 0.95)
			require.LessOrEqual(t, r[difftest.ConvergeTime].P90, 360.)
			require.LessOrEqual(t, r[difftest.ReferenceConvergeTime].P50, 180.)
			require.LessOrEqual(t, r[difftest.ReferenceConvergeTime].P90, 360.)
		})
	}
	t.Run("drop", func(t *testing.T) { // published: 9 to 16 % at 60 shares a minute and more
		require.GreaterOrEqual(t, trials("drop")[difftest.Reacted].Low, 0.8)
	})
	t.Run("at rest", func(t *testing.T) { // published: 0.059 retargets a minute
		require.LessOrEqual(t, trials("steady")[difftest.ReferenceJitter].High, 0.059)
	})
	// Of miners who are far too fast. One that is suddenly 5 to 20 times as fast floods for longer now and then, as the
	// comment of Sequential says.
	t.Run("no flood", func(t *testing.T) {
		for _, name := range []string{"cold-start", "cold-start-down", "rented", "stop-and-return", "flapping", "proxy", "flooding"} {
			sc := scenario(t, name)
			sc.Options.Duration = min(sc.Options.Duration, 150*time.Minute)
			for i := range 40 {
				tr := sc.Run(sequentialFrom, 10*time.Second, difftest.TrialSeed(2, i))
				v := difftest.Measure(&tr, nil)
				require.LessOrEqual(t, v[difftest.LongestFlood], 30., "%s, trial %d", name, i)
			}
		}
	})
}

// At any number of shares a minute it does as well, as long as what is to be noticed lasts for as many shares.
func TestSequentialAtOtherIntervals(t *testing.T) {
	for _, interval := range []time.Duration{time.Second, 3 * time.Second, 20 * time.Second} {
		t.Run(interval.String(), func(t *testing.T) {
			make := func(start difficulty.Difficulty) difficulty.Policy {
				return newSequential(t, &difficulty.SequentialOptions{Start: start, Min: difficulty.Min, Interval: interval})
			}
			measure := &difftest.MeasureOptions{Interval: interval}
			cold := scenario(t, "cold-start")
			cold.Options.Duration = 31 * time.Minute
			r, err := difftest.Trials(make, cold, 100, 1, measure)
			require.NoError(t, err)
			require.GreaterOrEqual(t, r[difftest.Converged].Mean, 0.95)
			require.LessOrEqual(t, r[difftest.ConvergeTime].P50, 180.)
			r, err = difftest.Trials(make, scenario(t, "drop"), 100, 1, measure)
			require.NoError(t, err)
			require.GreaterOrEqual(t, r[difftest.Reacted].Mean, map[bool]float64{true: 0.95, false: 0.35}[interval <= 3*time.Second])
		})
	}
}

func TestSequentialOnEveryGrid(t *testing.T) {
	for _, grid := range grids {
		t.Run(grid.String(), func(t *testing.T) {
			difftest.TestPolicyWith(t, func() difficulty.Policy {
				return newSequential(t, &difficulty.SequentialOptions{Grid: grid, Min: 1})
			}, &difftest.Expect{MinInterval: 5 * time.Second, MaxInterval: 20 * time.Second, MaxChanges: 20})
		})
	}
}

// A pool that sends jobs only when they are due needs longer, and no more than that.
func TestSequentialInAPoolThatDoesNotHurry(t *testing.T) {
	sc := scenario(t, "cold-start")
	sc.Options.NoHurry = true
	sc.Options.Duration = 31 * time.Minute
	r, err := difftest.Trials(sequentialFrom, sc, 200, 1, nil)
	require.NoError(t, err)
	require.GreaterOrEqual(t, r[difftest.Converged].Mean, 0.95)
	require.LessOrEqual(t, r[difftest.ConvergeTime].P50, 180.)
	require.LessOrEqual(t, r[difftest.LongestEasy].P99, 61.)
}

// mine tells p of n shares of difficulty d, one every gap, and returns when the last came.
func mine(p difficulty.Policy, now time.Time, n int, gap time.Duration, d difficulty.Difficulty) time.Time {
	for range n {
		now = now.Add(gap)
		p.Observe(now, d)
	}
	return now
}

// The steps of each test, worked out by hand.
func TestSequentialSteps(t *testing.T) {
	settled := func(t *testing.T) (*difficulty.Sequential, time.Time) {
		s := newSequential(t, &difficulty.SequentialOptions{Start: 1 << 20})
		require.EqualValues(t, 1<<20, s.Next(noon))
		now := mine(s, noon, 13, 10*time.Second, 1<<20)
		require.EqualValues(t, 1<<20, s.Next(now), "a share every ten seconds is right")
		return s, now
	}
	t.Run("silence of a miner that nobody knows gallops down by 16 and 256", func(t *testing.T) {
		s := newSequential(t, &difficulty.SequentialOptions{Start: 1 << 20})
		s.Next(noon)
		require.False(t, s.Hurry(noon.Add(19*time.Second)))
		require.True(t, s.Hurry(noon.Add(20*time.Second)))
		require.EqualValues(t, 1<<16, s.Next(noon.Add(20*time.Second)))
		require.EqualValues(t, 1<<16, s.Next(noon.Add(39*time.Second)))
		require.EqualValues(t, 1<<8, s.Next(noon.Add(40*time.Second)))
		require.EqualValues(t, 64, s.Next(noon.Add(60*time.Second)), "the minimum")
		require.False(t, s.Hurry(noon.Add(time.Hour)), "there is nothing to hurry for")
	})
	t.Run("silence of a settled miner halves once, then quarters", func(t *testing.T) {
		s, now := settled(t)
		s.Reset(1 << 20)
		s.Restore(now, difficulty.State{At: now, Difficulty: 1 << 20, Hashrate: (1 << 20) * (1 << 32) / 10, Shares: 100})
		// half a nat for each share that does not come: 4 after 80 s
		require.EqualValues(t, 1<<20, s.Next(now.Add(79*time.Second)))
		require.EqualValues(t, 1<<19, s.Next(now.Add(80*time.Second)))
		require.EqualValues(t, 1<<19, s.Next(now.Add(159*time.Second)))
		require.EqualValues(t, 1<<17, s.Next(now.Add(160*time.Second)))
	})
	t.Run("half the shares cost a settled miner a factor of 1.2, and then the rest", func(t *testing.T) {
		s, now := settled(t)
		// One share every 20 s: 2/2 - ln 2 = 0.307 nats each, and the 14th brings 4.30.
		for i := 1; ; i++ {
			now = mine(s, now, 1, 20*time.Second, 1<<20)
			if d := s.Next(now); d != 1<<20 {
				require.EqualValues(t, math.Round((1<<20)*math.Exp(-0.2)), d)
				require.Equal(t, 14, i)
				break
			}
		}
		// It was true: shares now come at 0.61 of what they should, where 1.22 would be chance. A share speaks for that by
		// ln 2, and 16.4 s without one against it by 1.64 x 0.61: 0.307 in all, so that the 17th ends it. They say 17/27.8,
		// and what was to be expected, 0.61, counts as four shares more.
		before := s.Next(now)
		gap := time.Duration(20 * float64(before) / (1 << 20) * 1e9)
		for i := 1; ; i++ {
			now = mine(s, now, 1, gap, before)
			if d := s.Next(now); d != before {
				require.Equal(t, 17, i)
				require.InEpsilon(t, 1<<19, float64(d), 0.01)
				break
			}
		}
	})
	t.Run("a step that was chance stays where it is small, and is taken back where the grid is coarse", func(t *testing.T) {
		for grid, back := range map[difficulty.Grid]bool{difficulty.AnyDifficulty: false, difficulty.PowersOfTwo: true} {
			s := newSequential(t, &difficulty.SequentialOptions{Start: 1 << 20, Grid: grid})
			s.Next(noon)
			now := mine(s, noon, 13, 10*time.Second, 1<<20)
			for s.Next(now) == 1<<20 {
				now = mine(s, now, 1, 20*time.Second, 1<<20)
			}
			low := s.Next(now)
			now = mine(s, now, 30, time.Duration(10*float64(low)/(1<<20)*1e9), low)
			if back {
				require.EqualValues(t, 1<<20, s.Next(now), "from %v", low)
			} else {
				require.Equal(t, low, s.Next(now))
			}
		}
	})
	t.Run("a flood is measured and answered at once", func(t *testing.T) {
		s, now := settled(t)
		at := now // a thousand times the shares, in a pool that sends a job a second
		for at.Sub(now) < 10*time.Second {
			d := s.Next(at)
			for end := at.Add(time.Second); at.Before(end); {
				at = mine(s, at, 1, time.Duration(float64(d)/(1<<20)*1e7), d)
			}
		}
		require.InEpsilon(t, 1000<<20, float64(s.Next(at)), 0.3)
	})
	t.Run("shares that a stalled connection held back are no flood", func(t *testing.T) {
		s, now := settled(t)
		now = now.Add(80 * time.Second)
		now = mine(s, now, 8, time.Millisecond, 1<<20) // those of 80 s
		require.False(t, s.Hurry(now))
		require.EqualValues(t, 1<<20, s.Next(now))
		now = mine(s, now, 20, 10*time.Second, 1<<20)
		require.EqualValues(t, 1<<20, s.Next(now))
	})
	t.Run("forty shares correct what no test sees", func(t *testing.T) {
		s, now := settled(t)
		s.Reset(1 << 20)
		s.Restore(now, difficulty.State{At: now, Difficulty: 1 << 20, Hashrate: (1 << 20) * (1 << 32) / 10, Shares: 100})
		// 1.35 times as slow: the test for half grows by 1.35/2 - ln 2 < 0 a share. After 80 shares ln 1.35 = 0.30 is more
		// than 2.6 standard errors of 1/sqrt(80).
		for i := 1; i < 80; i++ {
			now = mine(s, now, 1, 13500*time.Millisecond, 1<<20)
			require.EqualValues(t, 1<<20, s.Next(now), "%d shares", i)
		}
		now = mine(s, now, 1, 13500*time.Millisecond, 1<<20)
		require.InEpsilon(t, (1<<20)/1.35, float64(s.Next(now)), 0.01)
	})
	t.Run("shares in flight are of their own difficulty", func(t *testing.T) {
		s, now := settled(t)
		s.Reset(1 << 30)
		now = mine(s, now, 200, 10*time.Millisecond, 1<<20) // two seconds' worth of a miner that fits 2^30
		require.EqualValues(t, 1<<30, s.Next(now), "200 shares of a 1024th are a fifth of one")
	})
}

// A caller that bounds what is given is seen in what the shares are worth.
func TestSequentialBelowACallersFloor(t *testing.T) {
	s := newSequential(t, &difficulty.SequentialOptions{Start: 64, Min: 1})
	const floor = 1 << 20
	now := noon
	// The miner fits 2^16 and works at the floor: a share every 160 s.
	for range 200 {
		for range 16 {
			now = now.Add(10 * time.Second)
			s.Next(now)
		}
		s.Observe(now, floor)
	}
	d := s.Next(now)
	require.InDelta(t, 16, math.Log2(float64(d)), 1, "%v", d)
}

func ExampleSequential() {
	// A miner of 100 TH/s that begins at the default difficulty.
	miner := difftest.Steady(100e12)
	s, err := difficulty.NewSequential(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	tr := difftest.Run(s, miner, &difftest.Options{Duration: 30 * time.Minute, Seed: 4})
	for _, pt := range tr.Points {
		fmt.Println(pt.At.Round(time.Second), pt.Difficulty)
	}
	fmt.Println("a share every", tr.Interval(2*time.Minute, 30*time.Minute))
	fmt.Println("estimated at", s.State(tr.Start.Add(30*time.Minute)).Hashrate)
	// Output:
	// 0s 16384
	// 4s 298055
	// 8m9s 244027
	// 10m21s 199792
	// a share every 9.6s
	// estimated at 102 TH/s
}

func BenchmarkSequentialHurry(b *testing.B) {
	s := newSequential(b, nil)
	now := noon
	s.Next(now)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		s.Hurry(now)
	}
}
