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

const (
	ths = difficulty.Hashrate(1e12)
	phs = 1000 * ths
)

// noon is a whole multiple of every interval used here, in Unix time.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func newVardiff(t testing.TB, opts *difficulty.VardiffOptions) *difficulty.Vardiff {
	t.Helper()
	v, err := difficulty.NewVardiff(opts)
	require.NoError(t, err)
	return v
}

func at(seconds int, d difficulty.Difficulty) difftest.Point {
	return difftest.Point{At: time.Duration(seconds) * time.Second, Difficulty: d}
}

// workedCases are worked out by hand, and again by a second implementation, from BTCPool's algorithm: shares evenly
// spaced, a job every 30 s, window 900 s.
var workedCases = []struct {
	name  string
	miner difftest.Miner
	want  []difftest.Point // after the start at 16384
	// Shares in the fourth quarter of an hour, when all of them have settled; -1 where the case says nothing.
	shares int
}{
	{"5 GH/s falls to the minimum step by step", difftest.Steady(0.005 * ths), []difftest.Point{
		at(60, 8192), at(90, 4096), at(120, 2048), at(150, 1024), at(180, 512), at(210, 256), at(240, 128), at(270, 64),
	}, 16},
	{"0.5 TH/s stays at its third step down", difftest.Steady(0.5 * ths), []difftest.Point{
		at(60, 8192), at(90, 4096), at(120, 2048),
	}, 51},
	{"14 TH/s doubles once", difftest.Steady(14 * ths), []difftest.Point{at(660, 32768)}, 89},
	{"100 TH/s stays at a level with twice the shares", difftest.Steady(100 * ths), []difftest.Point{
		at(90, 32768), at(180, 65536), at(360, 131072), at(720, 262144),
	}, 80},
	{"200 TH/s overshoots and falls back when the window is full", difftest.Steady(200 * ths), []difftest.Point{
		at(60, 32768), at(90, 65536), at(180, 131072), at(360, 262144), at(720, 524288), at(900, 262144),
	}, 160},
	{"1000 TH/s doubles three times in one call", difftest.Steady(1000 * ths), []difftest.Point{
		at(30, 131072), at(90, 262144), at(150, 524288), at(300, 1<<20), at(570, 1<<21), at(900, 1<<19),
	}, 400},
	{"a proxy of 100 PH/s doubles nine times in one call", difftest.Steady(100 * phs), []difftest.Point{
		at(30, 8388608), at(60, 1<<24), at(120, 1<<25), at(210, 1<<26), at(390, 1<<27), at(750, 1<<28), at(900, 1<<26),
	}, 312},
	{"200 TH/s that become 20 after an hour", difftest.Stepped(200*ths, time.Hour, 20*ths), []difftest.Point{
		at(60, 32768), at(90, 65536), at(180, 131072), at(360, 262144), at(720, 524288), at(900, 262144),
		at(3930, 131072), at(4440, 65536),
	}, -1},
	{"100 TH/s that stop after an hour", difftest.Stepped(100*ths, time.Hour, 0), []difftest.Point{
		at(90, 32768), at(180, 65536), at(360, 131072), at(720, 262144),
		at(3690, 131072), at(4200, 65536), at(4380, 32768), at(4440, 16384), at(4470, 8192), at(4500, 64),
	}, -1},
}

func TestVardiffWorkedCases(t *testing.T) {
	for _, c := range workedCases {
		t.Run(c.name, func(t *testing.T) {
			v := newVardiff(t, nil)
			tr := difftest.Run(v, c.miner, &difftest.Options{Ideal: true, Start: noon, Duration: 3 * time.Hour})
			require.Equal(t, append([]difftest.Point{at(0, 16384)}, c.want...), tr.Points)
			require.Zero(t, tr.Lost)
			if c.shares >= 0 {
				require.InDelta(t, c.shares, tr.Shares(45*time.Minute, time.Hour), 1)
			}
		})
	}
}

func TestVardiffTooFastBoundary(t *testing.T) {
	for _, c := range []struct {
		shares int
		want   difficulty.Difficulty
	}{
		{125, 16384},    // 1.4 * 90 = 126
		{127, 32768},    // 63.5 <= 90
		{180, 32768},    // 90 is not above 90
		{181, 65536},    // 90.5 is
		{1440, 1 << 18}, // four doublings in one call
	} {
		v := newVardiff(t, nil)
		v.Next(noon)
		for range c.shares {
			v.Observe(noon, 16384)
		}
		require.Equal(t, c.want, v.Next(noon), "%d shares", c.shares)
		require.Equal(t, c.want, v.Next(noon), "%d shares, asked again", c.shares)
	}
}

func TestVardiffTooSlowBoundary(t *testing.T) {
	for _, c := range []struct {
		shares int
		want   difficulty.Difficulty
	}{
		{36, 16384}, // 0.4 * 90 = 36
		{35, 8192},
		{18, 8192}, // 36 is not below 36
		{17, 4096},
		{0, 64},
	} {
		v := newVardiff(t, nil)
		v.Next(noon)
		now := noon.Add(14 * time.Minute) // within the window that ends at 15 minutes
		for range c.shares {
			v.Observe(now, 16384)
		}
		require.Equal(t, c.want, v.Next(noon.Add(15*time.Minute)), "%d shares", c.shares)
	}
}

func TestVardiffSlowStartBoundary(t *testing.T) {
	run := func(shares int, last time.Duration) difficulty.Difficulty {
		v := newVardiff(t, nil)
		v.Next(noon)
		for range shares {
			v.Observe(noon, 16384)
		}
		return v.Next(noon.Add(last))
	}
	require.Equal(t, difficulty.Difficulty(16384), run(0, time.Minute-1), "not before a minute")
	require.Equal(t, difficulty.Difficulty(8192), run(0, time.Minute))
	require.Equal(t, difficulty.Difficulty(8192), run(1, time.Minute), "one share a minute is too slow")
	require.Equal(t, difficulty.Difficulty(16384), run(2, time.Minute))
	require.Equal(t, difficulty.Difficulty(16384), run(2, 2*time.Minute-1), "the rest of a minute does not count")
	require.Equal(t, difficulty.Difficulty(8192), run(2, 2*time.Minute))
}

// Slots are whole multiples of the interval in Unix time, whenever the miner came: a share just before such a boundary
// leaves the window almost a slot earlier than one just after it.
func TestVardiffSlotsAreAligned(t *testing.T) {
	run := func(share, last time.Duration) difficulty.Difficulty {
		v := newVardiff(t, nil)
		v.Next(noon.Add(-7 * time.Hour).Add(3 * time.Second))
		for range 40 {
			v.Observe(noon.Add(share), 16384)
		}
		return v.Next(noon.Add(last))
	}
	require.Equal(t, difficulty.Difficulty(16384), run(9999*time.Millisecond, 900*time.Second-1))
	require.Equal(t, difficulty.Difficulty(64), run(9999*time.Millisecond, 900*time.Second), "its slot has left")
	require.Equal(t, difficulty.Difficulty(16384), run(10*time.Second, 910*time.Second-1))
	require.Equal(t, difficulty.Difficulty(64), run(10*time.Second, 910*time.Second), "its slot has left")
}

func TestVardiffLevelHysteresis(t *testing.T) {
	levels := []difficulty.VardiffLevel{{From: 0, Factor: 1}, {From: 100 * ths, Factor: 2}, {From: 1000 * ths, Factor: 4}}
	// The hashrate decides, through the level, whether a number of shares is enough:
	// want = 90 at level 0 (36 enough), 180 at level 1 (72 enough), 360 at level 2 (144 enough).
	window := func(v *difficulty.Vardiff, start time.Time, n int, d difficulty.Difficulty) difficulty.Difficulty {
		for range n {
			v.Observe(start.Add(890*time.Second), d)
		}
		return v.Next(start.Add(900 * time.Second))
	}
	hashrate := func(h difficulty.Hashrate, n int) difficulty.Difficulty { // of each of n shares in a window
		return h.Difficulty(900*time.Second) / difficulty.Difficulty(n)
	}
	for _, c := range []struct {
		name   string
		before difficulty.Hashrate // for one window, or 0
		h      difficulty.Hashrate
		shares int
		falls  bool
	}{
		{"below the first level", 0, 149 * ths, 50, false},
		{"enters at 1.5 times its hashrate", 0, 151 * ths, 50, true},
		{"holds the level down to 0.75 of it", 200 * ths, 76 * ths, 50, true},
		{"leaves it at 0.75", 200 * ths, 74 * ths, 50, false},
		{"climbs several levels at once", 0, 1501 * ths, 100, true},
		{"not the second below 1.5 times its hashrate", 0, 1499 * ths, 100, false},
		{"falls several levels at once", 2000 * ths, 70 * ths, 50, false},
		{"falls one level and holds the next", 2000 * ths, 700 * ths, 100, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVardiff(t, &difficulty.VardiffOptions{Start: 1 << 20, Levels: levels})
			now := noon
			v.Next(now)
			if c.before > 0 {
				require.Equal(t, difficulty.Difficulty(1<<20), window(v, now, 200, hashrate(c.before, 200)))
				now = now.Add(900 * time.Second)
			}
			got := window(v, now, c.shares, hashrate(c.h, c.shares))
			if c.falls {
				require.Less(t, got, difficulty.Difficulty(1<<20))
			} else {
				require.Equal(t, difficulty.Difficulty(1<<20), got)
			}
		})
	}
}

func TestVardiffAtMostOneShareASecond(t *testing.T) {
	// 2000 s in slots of 1 s want 2000 shares; a factor of 6 does not make it 12000.
	v := newVardiff(t, &difficulty.VardiffOptions{Interval: time.Second, Window: 2000 * time.Second,
		Levels: []difficulty.VardiffLevel{{From: 0, Factor: 6}}})
	v.Next(noon)
	for range 2801 {
		v.Observe(noon.Add(1999*time.Second), 16384)
	}
	require.Equal(t, difficulty.Difficulty(32768), v.Next(noon.Add(2000*time.Second)))
}

func TestVardiffImprovedLandsInOneCall(t *testing.T) {
	for _, c := range []struct {
		name  string
		miner difftest.Miner
		want  []difftest.Point
	}{
		// The levels that the worked cases end at, without the detours.
		{"14 TH/s", difftest.Steady(14 * ths), []difftest.Point{at(60, 32768)}},
		{"100 TH/s", difftest.Steady(100 * ths), []difftest.Point{at(30, 131072)}},
		{"200 TH/s", difftest.Steady(200 * ths), []difftest.Point{at(30, 262144)}},
		{"1000 TH/s", difftest.Steady(1000 * ths), []difftest.Point{at(30, 1<<19)}},
		{"100 PH/s", difftest.Steady(100 * phs), []difftest.Point{at(30, 1<<26)}},
		{"5 GH/s has too few shares for it", difftest.Steady(0.005 * ths), []difftest.Point{
			at(60, 8192), at(90, 4096), at(120, 2048), at(150, 1024), at(180, 512), at(210, 256), at(240, 128), at(270, 64),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVardiff(t, &difficulty.VardiffOptions{Improved: true})
			tr := difftest.Run(v, c.miner, &difftest.Options{Ideal: true, Start: noon})
			require.Equal(t, append([]difftest.Point{at(0, 16384)}, c.want...), tr.Points)
		})
	}
}

func TestVardiffImprovedFallsBeforeTheWindowIsFull(t *testing.T) {
	// 5 TH/s for three minutes and then a 250th of that: 12 shares, too many for the slow start to act on.
	opts := difficulty.VardiffOptions{Start: 16384, Window: time.Hour}
	miner := difftest.Stepped(5*ths, 3*time.Minute, 0.02*ths)
	run := func() difftest.Trace {
		return difftest.Run(newVardiff(t, &opts), miner,
			&difftest.Options{Ideal: true, Start: noon, Duration: 50 * time.Minute})
	}
	exact := run()
	opts.Improved = true
	improved := run()
	require.Greater(t, exact.Changes(0, time.Hour)[0].At, 11*time.Minute)
	first := improved.Changes(0, time.Hour)[0]
	require.LessOrEqual(t, first.At, 10*time.Minute)
	require.Less(t, first.Difficulty, difficulty.Difficulty(16384))
}

func TestVardiffImprovedNeedsTenShares(t *testing.T) {
	run := func(shares int) difficulty.Difficulty {
		v := newVardiff(t, &difficulty.VardiffOptions{Improved: true})
		v.Next(noon)
		for range shares {
			v.Observe(noon.Add(25*time.Second), 16384)
		}
		return v.Next(noon.Add(30 * time.Second)) // wants 3
	}
	require.Equal(t, difficulty.Difficulty(16384), run(9))
	require.Equal(t, difficulty.Difficulty(65536), run(10))

	// And an interval of time: a miner that hands in at once what it held back is not a fast one.
	v := newVardiff(t, &difficulty.VardiffOptions{Improved: true})
	v.Next(noon)
	for range 100 {
		v.Observe(noon, 16384)
	}
	require.Equal(t, difficulty.Difficulty(16384), v.Next(noon.Add(10*time.Second-1)))
	require.Greater(t, v.Next(noon.Add(10*time.Second)), difficulty.Difficulty(16384))
}

func TestVardiffImprovedWeighsShares(t *testing.T) {
	// Thousands of shares were on their way when the difficulty rose. They say no more than what rose it.
	run := func(improved bool) difftest.Trace {
		m := difftest.Steady(100 * phs)
		m.Lag = 5 * time.Second
		v := newVardiff(t, &difficulty.VardiffOptions{Improved: improved})
		return difftest.Run(v, m, &difftest.Options{Ideal: true, Start: noon, Duration: 10 * time.Minute})
	}
	improved, exact := run(true), run(false)
	require.Equal(t, []difftest.Point{at(0, 16384), at(30, 1<<25)}, improved.Points) // 25 s of work in 30 s
	require.Greater(t, exact.DifficultyAt(9*time.Minute), difficulty.Difficulty(1<<28), "BTCPool counts them in full")

	// A bound that the caller applies is seen for what it is, so the policy does not run away behind it.
	v := newVardiff(t, &difficulty.VardiffOptions{Improved: true})
	p, err := difficulty.Clamp(v, 64, 1<<20)
	require.NoError(t, err)
	difftest.Run(p, difftest.Steady(100*phs), &difftest.Options{Start: noon, Duration: 40 * time.Minute})
	require.Equal(t, difficulty.Difficulty(1<<26), v.Next(noon.Add(40*time.Minute)))
}

func TestVardiffTinyMiners(t *testing.T) {
	// A CPU of 40 kH/s finds a share of 2^-14 every 6.6 s, one of 2^-15 every 3.3 s.
	for _, improved := range []bool{false, true} {
		v := newVardiff(t, &difficulty.VardiffOptions{Start: 1, Min: difficulty.Min, Improved: improved})
		tr := difftest.Run(v, difftest.Steady(40e3), &difftest.Options{Start: noon})
		require.InDelta(t, 10, tr.Interval(time.Hour, 2*time.Hour).Seconds(), 10)
		require.LessOrEqual(t, len(tr.Changes(time.Hour, 2*time.Hour)), 2)

		// One hash an hour: down to the lowest and no further.
		v = newVardiff(t, &difficulty.VardiffOptions{Start: 1, Min: difficulty.Min, Improved: improved})
		tr = difftest.Run(v, difftest.Steady(1./3600), &difftest.Options{Start: noon})
		require.Equal(t, difficulty.Min, tr.DifficultyAt(2*time.Hour))
	}
}

func TestVardiffStaysWithinBounds(t *testing.T) {
	opts := difficulty.VardiffOptions{Start: 1024, Min: 512, Max: 4096}
	tr := difftest.Run(newVardiff(t, &opts), difftest.Steady(phs), nil)
	require.Equal(t, difficulty.Difficulty(4096), tr.DifficultyAt(tr.Duration()))
	tr = difftest.Run(newVardiff(t, &opts), difftest.Miner{}, nil)
	require.Equal(t, difficulty.Difficulty(512), tr.DifficultyAt(tr.Duration()))

	v := newVardiff(t, &difficulty.VardiffOptions{Start: difficulty.Max / 2})
	for range 100_000 {
		v.Observe(noon, difficulty.Max)
	}
	require.Equal(t, difficulty.Max, v.Next(noon))
}

func TestVardiffRoundsOptions(t *testing.T) {
	for _, c := range []struct {
		name  string
		opts  difficulty.VardiffOptions
		start difficulty.Difficulty
		low   difficulty.Difficulty
		high  difficulty.Difficulty
	}{
		{"defaults", difficulty.VardiffOptions{}, 16384, 64, 1 << 62},
		{"start rounded up", difficulty.VardiffOptions{Start: 1000}, 1024, 64, 1 << 62},
		{"minimum rounded up, maximum down", difficulty.VardiffOptions{Min: 100, Max: 50000}, 16384, 128, 32768},
		{"minimum above the default start", difficulty.VardiffOptions{Min: 65536}, 65536, 65536, 1 << 62},
		{"maximum below the default start", difficulty.VardiffOptions{Max: 1024}, 1024, 64, 1024},
		{"maximum below the default minimum", difficulty.VardiffOptions{Max: 16}, 16, 16, 16},
		{"below 1", difficulty.VardiffOptions{Start: 0.001, Min: 0.0005}, 1. / 512, 1. / 1024, 1 << 62},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := c.opts
			v := newVardiff(t, &opts)
			require.Equal(t, c.opts, opts, "the caller's options are changed")
			require.Equal(t, c.start, v.Next(noon))
			v.Reset(1e-300)
			require.Equal(t, c.low, v.Next(noon))
			v.Reset(1e300)
			require.Equal(t, c.high, v.Next(noon))
		})
	}
}

func TestNewVardiffRefuses(t *testing.T) {
	nan, inf := difficulty.Difficulty(math.NaN()), difficulty.Difficulty(math.Inf(1))
	type levels = []difficulty.VardiffLevel
	for _, c := range []struct {
		name string
		opts difficulty.VardiffOptions
		want []string
	}{
		{"a start that is not a number", difficulty.VardiffOptions{Start: nan}, []string{"Start NaN"}},
		{"an infinite maximum", difficulty.VardiffOptions{Max: inf}, []string{"Max +Inf"}},
		{"a maximum above 2^62", difficulty.VardiffOptions{Max: 1 << 63}, []string{"Max 9.223372036854776e+18"}},
		{"a minimum below 2^-32", difficulty.VardiffOptions{Min: 1e-10}, []string{"Min 0.0000000001"}},
		{"a negative minimum", difficulty.VardiffOptions{Min: -1}, []string{"Min -1"}},
		{"crossed bounds", difficulty.VardiffOptions{Min: 128, Max: 64, Start: 64},
			[]string{"Min 128 is above Max 64", "Start 64 is not within"}},
		{"bounds that cross when rounded", difficulty.VardiffOptions{Min: 65, Max: 127},
			[]string{"Min 128 is above Max 64"}},
		{"a start below the minimum", difficulty.VardiffOptions{Start: 1}, []string{"Start 1 is not within Min 64"}},
		{"an interval below a second", difficulty.VardiffOptions{Interval: 999 * time.Millisecond},
			[]string{"Interval 999ms"}},
		{"a negative interval", difficulty.VardiffOptions{Interval: -1}, []string{"Interval -1ns"}},
		{"a window below the interval", difficulty.VardiffOptions{Interval: time.Minute, Window: 59 * time.Second},
			[]string{"Window 59s is below Interval 1m0s"}},
		{"a negative window", difficulty.VardiffOptions{Window: -time.Hour}, []string{"Window -1h0m0s"}},
		{"a window of too many intervals", difficulty.VardiffOptions{Interval: time.Second, Window: 2 * time.Hour},
			[]string{"more than 4096 times"}},
		{"no level", difficulty.VardiffOptions{Levels: levels{}}, []string{"Levels is empty"}},
		{"too many levels", difficulty.VardiffOptions{Levels: make(levels, 257)}, []string{"257 entries"}},
		{"levels that do not begin at 0", difficulty.VardiffOptions{Levels: levels{{ths, 1}}},
			[]string{"begins at 1.00 TH/s"}},
		{"levels that do not rise", difficulty.VardiffOptions{Levels: levels{{0, 1}, {5, 1}, {5, 1}}}, []string{"Levels[2]"}},
		{"an infinite level", difficulty.VardiffOptions{Levels: levels{{0, 1}, {difficulty.Hashrate(inf), 1}}},
			[]string{"Levels[1]"}},
		{"a level that is not a number", difficulty.VardiffOptions{Levels: levels{{0, 1}, {difficulty.Hashrate(nan), 1}}},
			[]string{"Levels[1]"}},
		{"a factor of 0", difficulty.VardiffOptions{Levels: levels{{0, 0}}}, []string{"Levels[0] has factor 0"}},
		{"a factor that is not a number", difficulty.VardiffOptions{Levels: levels{{0, math.NaN()}}}, []string{"factor NaN"}},
		{"everything at once", difficulty.VardiffOptions{Start: -1, Min: -2, Max: -3, Interval: -4, Levels: levels{}},
			[]string{"Start -1", "Min -2", "Max -3", "Interval -4ns", "Levels is empty"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := difficulty.NewVardiff(&c.opts)
			require.Nil(t, v)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

func TestVardiffCopiesLevels(t *testing.T) {
	mine := difficulty.BTCPoolLevels()
	require.Len(t, mine, 9)
	v := newVardiff(t, &difficulty.VardiffOptions{Levels: mine})
	for i := range mine {
		mine[i].Factor = 1e-9
	}
	tr := difftest.Run(v, difftest.Steady(200*ths), &difftest.Options{Ideal: true, Start: noon})
	require.Equal(t, difficulty.Difficulty(262144), tr.DifficultyAt(tr.Duration()))
	require.Equal(t, 1.2, difficulty.BTCPoolLevels()[3].Factor, "the table is the caller's copy")
}

func TestVardiffSetMin(t *testing.T) {
	v := newVardiff(t, &difficulty.VardiffOptions{Min: 64, Max: 1 << 20})
	v.SetMin(50000)
	require.Equal(t, difficulty.Difficulty(65536), v.Next(noon), "raised at once, rounded up")
	v.SetMin(1 << 30)
	require.Equal(t, difficulty.Difficulty(1<<20), v.Next(noon), "bounded by Max")
	v.SetMin(1024)
	require.Equal(t, difficulty.Difficulty(1<<20), v.Next(noon), "lowering it does not lower the difficulty")
	require.Equal(t, difficulty.Difficulty(1024), v.Next(noon.Add(time.Hour)), "an empty window does")
	v.SetMin(1)
	require.Equal(t, difficulty.Difficulty(64), v.Next(noon.Add(time.Hour)), "bounded by Min")
	for _, off := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		v.SetMin(256)
		v.SetMin(difficulty.Difficulty(off))
		v.Reset(64)
		require.Equal(t, difficulty.Difficulty(64), v.Next(noon.Add(time.Hour)), "%v", off)
	}
	v.SetMin(512)
	v.Reset(64)
	require.Equal(t, difficulty.Difficulty(512), v.Next(noon), "Reset stays above it")

	// md=65536 with 100 TH/s: the first doubling comes when the window says so, not after two that change nothing.
	v = newVardiff(t, nil)
	v.SetMin(65536)
	tr := difftest.Run(v, difftest.Steady(100*ths), &difftest.Options{Ideal: true, Start: noon})
	require.Equal(t, []difftest.Point{at(0, 65536), at(360, 131072), at(720, 262144)}, tr.Points)
}

func TestVardiffSetMax(t *testing.T) {
	v := newVardiff(t, &difficulty.VardiffOptions{Start: 16384})
	v.SetMax(5000)
	require.Equal(t, difficulty.Difficulty(4096), v.Next(noon), "lowered at once, rounded down")
	for range 10_000 {
		v.Observe(noon, 4096)
	}
	require.Equal(t, difficulty.Difficulty(4096), v.Next(noon), "it does not climb past it")
	v.SetMin(8192)
	require.Equal(t, difficulty.Difficulty(4096), v.Next(noon), "it has the last word")
	require.Equal(t, difficulty.Difficulty(4096), v.Next(noon.Add(time.Hour)), "nor does silence lower it then")
	v.SetMax(0)
	require.Equal(t, difficulty.Difficulty(8192), v.Next(noon.Add(time.Hour)), "without it SetMin holds again")
}

func TestVardiffImprovedCountsNothingForNothing(t *testing.T) {
	for _, d := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1)} {
		v := newVardiff(t, &difficulty.VardiffOptions{Improved: true})
		v.Next(noon)
		for range 9 { // one less than it takes to decide
			v.Observe(noon, 16384)
			v.Observe(noon, difficulty.Difficulty(d))
		}
		require.Equal(t, difficulty.Difficulty(16384), v.Next(noon.Add(30*time.Second)), "%v", d)
		require.InEpsilon(t, 9*16384*4294967296./30, float64(v.State(noon.Add(30*time.Second)).Hashrate), 1e-9, "%v", d)
	}
}

func TestVardiffKeeps(t *testing.T) {
	v := newVardiff(t, nil)
	difftest.Run(v, difftest.Steady(200*ths), &difftest.Options{Start: noon, Duration: 2 * time.Hour, Ideal: true})
	now := noon.Add(2 * time.Hour)
	s := v.State(now)
	require.Equal(t, now, s.At)
	require.Equal(t, difficulty.Difficulty(262144), s.Difficulty)
	require.InEpsilon(t, 200e12, float64(s.Hashrate), 0.02)
	require.InDelta(t, 160, s.Shares, 3) // of a window of 15 minutes

	w := newVardiff(t, nil)
	w.Restore(now.Add(16*time.Minute), s)
	require.Equal(t, difficulty.Difficulty(16384), w.Next(now.Add(16*time.Minute)), "older than its window")
	w.Restore(now.Add(14*time.Minute), s)
	require.Equal(t, difficulty.Difficulty(262144), w.Next(now.Add(16*time.Minute)))
	w.Restore(now, difficulty.State{At: now, Difficulty: 0})
	require.Equal(t, difficulty.Difficulty(262144), w.Next(now.Add(16*time.Minute)), "no State")
}

func TestVardiffReset(t *testing.T) {
	v := newVardiff(t, nil)
	difftest.Run(v, difftest.Steady(200*ths), &difftest.Options{Start: noon, Duration: time.Hour})
	now := noon.Add(time.Hour)
	for _, bad := range []float64{0, -5, math.NaN(), math.Inf(1)} {
		v.Reset(difficulty.Difficulty(bad))
		require.Equal(t, difficulty.Difficulty(262144), v.Next(now), "%v changes nothing", bad)
	}
	v.Reset(5000)
	require.Equal(t, difficulty.Difficulty(8192), v.Next(now), "rounded up")
	require.Equal(t, difficulty.Difficulty(8192), v.Next(now.Add(59*time.Second)), "the window does not count as full")
	require.Equal(t, difficulty.Difficulty(4096), v.Next(now.Add(60*time.Second)), "the slow start begins again")

	// The level is forgotten: 120 TH/s hold the second one, but do not enter it.
	v = newVardiff(t, &difficulty.VardiffOptions{Levels: []difficulty.VardiffLevel{{0, 1}, {100 * ths, 2}}})
	difftest.Run(v, difftest.Steady(200*ths), &difftest.Options{Start: noon, Duration: time.Hour})
	v.Reset(1 << 20)
	v.Next(now)
	for range 50 {
		v.Observe(now.Add(890*time.Second), (120*ths).Difficulty(900*time.Second)/50)
	}
	require.Equal(t, difficulty.Difficulty(1<<20), v.Next(now.Add(900*time.Second)))

	// So is that there were shares enough to decide from.
	v = newVardiff(t, &difficulty.VardiffOptions{Improved: true})
	difftest.Run(v, difftest.Steady(200*ths), &difftest.Options{Start: noon, Duration: time.Hour})
	v.Reset(16384)
	v.Next(now)
	require.Equal(t, difficulty.Difficulty(16384), v.Next(now.Add(30*time.Second)))
}

func TestVardiffOddTimes(t *testing.T) {
	t.Run("the zero Time", func(t *testing.T) {
		v := newVardiff(t, nil)
		require.Equal(t, difficulty.Difficulty(16384), v.Next(time.Time{}))
		v.Observe(time.Time{}, 16384)
		require.Equal(t, difficulty.Difficulty(16384), v.Next(noon), "and not an empty window of two thousand years")
		require.Equal(t, difficulty.Difficulty(16384), v.Next(time.Time{}))
		for range 127 {
			v.Observe(time.Time{}, 16384)
		}
		require.Equal(t, difficulty.Difficulty(32768), v.Next(time.Time{}), "counts as the latest time")
	})
	t.Run("a step back", func(t *testing.T) {
		v := newVardiff(t, nil)
		w := newVardiff(t, nil)
		for s := range 3600 {
			now := noon.Add(time.Duration(s) * time.Second)
			for _, v := range []*difficulty.Vardiff{v, w} {
				v.Observe(now, 16384)
			}
			if s%30 == 0 {
				v.Next(now.Add(-time.Hour))
				v.Next(noon.Add(-1000 * time.Hour))
				require.Equal(t, w.Next(now), v.Next(now), "after %d s", s)
			}
		}
	})
	t.Run("far apart", func(t *testing.T) {
		times := []time.Time{
			time.Unix(0, 1), time.Unix(-1<<40, 7), time.Unix(1<<40, 999), time.Unix(1<<62, 0), time.Unix(-1<<62, 0), noon,
			time.Unix(math.MaxInt64, math.MaxInt64), time.Unix(math.MinInt64, math.MinInt64), time.Now(), {},
		}
		for _, improved := range []bool{false, true} {
			for i := range times {
				v := newVardiff(t, &difficulty.VardiffOptions{Improved: improved, Interval: 7 * time.Second})
				for j := range times {
					now := times[(i+j)%len(times)]
					v.Observe(now, 1)
					require.True(t, v.Next(now).Assignable())
					v.Observe(now.Add(time.Second), 1)
				}
			}
		}
	})
}

func TestVardiffOddShares(t *testing.T) {
	odd := []difficulty.Difficulty{0, -1, difficulty.Difficulty(math.NaN()), difficulty.Difficulty(math.Inf(1)),
		difficulty.Difficulty(math.Inf(-1)), 5e-324, math.MaxFloat64, 1e30}
	for _, improved := range []bool{false, true} {
		v := newVardiff(t, &difficulty.VardiffOptions{Improved: improved})
		for s := range 3600 {
			now := noon.Add(time.Duration(s) * time.Second)
			for _, d := range odd {
				v.Observe(now, d)
			}
			if d := v.Next(now); !d.Assignable() || d < 64 || d > difficulty.Max {
				t.Fatalf("improved %v: %v after %d s", improved, d, s)
			}
		}
		// Nothing of that stays: the miner ends where any other of its hashrate does.
		tr := difftest.Run(v, difftest.Steady(14*ths), &difftest.Options{Start: noon.Add(time.Hour)})
		require.Equal(t, difficulty.Difficulty(32768), tr.DifficultyAt(tr.Duration()))
	}

	// What is worth nothing does not spoil the rest.
	for _, d := range []difficulty.Difficulty{0, difficulty.Difficulty(math.NaN()), -1 << 40} {
		v := newVardiff(t, &difficulty.VardiffOptions{Improved: true})
		v.Next(noon)
		for range 48 {
			v.Observe(noon, d)
			v.Observe(noon, 16384)
		}
		require.Equal(t, difficulty.Difficulty(1<<17), v.Next(noon.Add(30*time.Second)), "%v", d)
	}

	// A share worth nothing counts as one in BTCPool: a job that is not found anymore is answered all the same.
	v := newVardiff(t, nil)
	w := newVardiff(t, &difficulty.VardiffOptions{Improved: true})
	for range 127 {
		v.Observe(noon, 0)
		w.Observe(noon, 0)
	}
	require.Equal(t, difficulty.Difficulty(32768), v.Next(noon))
	require.Equal(t, difficulty.Difficulty(16384), w.Next(noon))
}

// reference is BTCPool's algorithm as it is written down, with counts that are doubled and halved in place, to hold
// against the one that never touches them.
type reference struct {
	start, min, max, cur float64
	begun                bool
	level                int
	cnt, sum             map[int64]float64
}

func (r *reference) total(m map[int64]float64, k int64) (sum float64) {
	for i := k - 89; i <= k; i++ {
		sum += m[i]
	}
	return sum
}

func (r *reference) scale(f float64) {
	for k := range r.cnt {
		r.cnt[k] *= f
	}
}

func (r *reference) observe(now float64, d float64) {
	r.cnt[int64(now)/10]++
	r.sum[int64(now)/10] += d
}

func (r *reference) next(now float64) float64 {
	lower := []float64{0, 4, 8, 16, 32, 64, 128, 256, 512}
	upper := append(lower[1:len(lower):len(lower)], math.Inf(1))
	coef := []float64{1, 1, 1, 1.2, 1.5, 2, 3, 4, 6}
	k := int64(now) / 10
	c := r.total(r.cnt, k)
	if !r.begun {
		r.start, r.begun = now, true
	}
	e := 90.0
	full := now >= r.start+900
	if full {
		h := r.total(r.sum, k) * 4294967296 / 900 / 1e12
		if r.level > 0 && h < lower[r.level] {
			for r.level > 0 && h <= 0.75*lower[r.level] {
				r.level--
			}
		} else if r.level <= 7 && h > upper[r.level] {
			for r.level <= 7 && h >= 1.5*upper[r.level] {
				r.level++
			}
		}
		e *= coef[r.level]
	}
	switch {
	case !full && now >= r.start+60 && c <= math.Floor((now-r.start)/60) && r.cur >= 2*r.min:
		r.cur /= 2
		r.scale(2)
	case c > 1.4*e:
		for r.total(r.cnt, k) > e && r.cur < r.max {
			r.cur *= 2
			r.scale(0.5)
		}
	case full && r.cur >= 2*r.min:
		for r.total(r.cnt, k) < 0.4*e && r.cur >= 2*r.min {
			r.cur /= 2
			r.scale(2)
		}
	}
	return r.cur
}

func TestVardiffAgreesWithTheReference(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		v := newVardiff(t, nil)
		r := reference{min: 64, max: 1 << 62, cur: 16384, cnt: map[int64]float64{}, sum: map[int64]float64{}}
		rate := math.Exp(rng.Float64() * 5)
		work := rate * 16384
		var asked, changed int
		last := 16384.0
		for now := float64(noon.Unix()); asked < 400; {
			if rng.IntN(100) == 0 { // the miner changes, stops or goes away for a while
				work *= math.Exp(rng.NormFloat64() * 2)
				if rng.IntN(10) == 0 {
					now += float64(rng.IntN(4000))
				}
			}
			// Shares at the present difficulty or, in flight, at another one, in hundredths of seconds.
			gap := math.Round(rng.ExpFloat64()*100*min(last/work*20, 200)) / 100
			now += gap
			d := math.Ldexp(last, -rng.IntN(2)*rng.IntN(2))
			r.observe(now, d)
			when := time.Unix(int64(now), int64(math.Round((now-math.Floor(now))*100))*1e7)
			v.Observe(when, difficulty.Difficulty(d))
			if rng.IntN(5) == 0 {
				want := r.next(now)
				require.Equal(t, difficulty.Difficulty(want), v.Next(when), "seed %d, call %d", seed, asked)
				if want != last {
					changed++
				}
				last = want
				asked++
			}
		}
		require.Greater(t, changed, 3, "seed %d tests nothing", seed)
	}
}

func TestVardiffConforms(t *testing.T) {
	t.Run("exact", func(t *testing.T) {
		difftest.TestPolicy(t, func() difficulty.Policy { return newVardiff(t, nil) })
	})
	t.Run("improved", func(t *testing.T) {
		difftest.TestPolicyWith(t, func() difficulty.Policy {
			return newVardiff(t, &difficulty.VardiffOptions{Improved: true})
		}, &difftest.Expect{MaxChanges: 4})
	})
	t.Run("tiny miners", func(t *testing.T) {
		difftest.TestPolicyWith(t, func() difficulty.Policy {
			return newVardiff(t, &difficulty.VardiffOptions{Start: 1, Min: difficulty.Min})
		}, &difftest.Expect{Slowest: 1, Fastest: 1e9})
	})
}

func TestVardiffAllocatesNothing(t *testing.T) {
	for _, improved := range []bool{false, true} {
		v := newVardiff(t, &difficulty.VardiffOptions{Improved: improved})
		now := noon
		v.Observe(now, 16384)
		if n := testing.AllocsPerRun(1000, func() {
			now = now.Add(7 * time.Second)
			v.Observe(now, 16384)
			v.Next(now)
		}); n != 0 {
			t.Errorf("improved %v: Observe and Next allocate %v times, want 0", improved, n)
		}
	}
	if n := testing.AllocsPerRun(1000, func() {
		v, _ := difficulty.NewVardiff(nil)
		v.Next(noon)
		v.Next(noon.Add(time.Hour))
	}); n != 1 {
		t.Errorf("a session without shares allocates %v times, want 1", n)
	}
}

func ExampleVardiff() {
	v, err := difficulty.NewVardiff(&difficulty.VardiffOptions{Start: 8192})
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fmt.Println("first job:", v.Next(now))
	for range 200 { // a fast miner: 200 shares in a minute
		now = now.Add(300 * time.Millisecond)
		v.Observe(now, 8192)
	}
	fmt.Println("next job:", v.Next(now))
	// Output:
	// first job: 8192
	// next job: 32768
}

func ExampleNewVardiff_levels() {
	// Miners of 1 PH/s and more get twice the shares of others, and nobody gets more.
	v, err := difficulty.NewVardiff(&difficulty.VardiffOptions{
		Improved: true,
		Levels:   []difficulty.VardiffLevel{{From: 0, Factor: 1}, {From: 1e15, Factor: 2}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	tr := difftest.Run(v, difftest.Steady(2e15), &difftest.Options{Ideal: true})
	fmt.Printf("a share every %.1f s\n", tr.Interval(time.Hour, 2*time.Hour).Seconds())
	// Output: a share every 9.0 s
}

func BenchmarkVardiff(b *testing.B) {
	for _, c := range []struct {
		name     string
		improved bool
	}{{"exact", false}, {"improved", true}} {
		opts := &difficulty.VardiffOptions{Improved: c.improved}
		b.Run(c.name+"/Observe", func(b *testing.B) {
			v := newVardiff(b, opts)
			now := noon
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Second)
				v.Observe(now, 16384)
			}
		})
		b.Run(c.name+"/Next", func(b *testing.B) {
			v := newVardiff(b, opts)
			now := noon
			v.Observe(now, 16384)
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Millisecond)
				v.Next(now)
			}
		})
		b.Run(c.name+"/New", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				v, err := difficulty.NewVardiff(opts)
				if err != nil {
					b.Fatal(err)
				}
				v.Observe(noon, 16384) // what a session holds
			}
		})
	}
}
