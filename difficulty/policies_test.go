package difficulty_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/difficulty/difftest"
)

// policyOptions is what the options of all policies have in common.
type policyOptions struct {
	start, min, max difficulty.Difficulty
	interval        time.Duration
	grid            difficulty.Grid
}

// A bounded is what every policy of this package but Fixed is.
type bounded interface {
	difficulty.Resetter
	difficulty.MinSetter
	difficulty.MaxSetter
	difficulty.Keeper
}

// policies make each of them; a grid that is not its own is ignored.
var policies = []struct {
	name string
	grid func(difficulty.Grid) difficulty.Grid
	make func(o policyOptions) (bounded, error)
}{
	{"vardiff", powersOfTwo, func(o policyOptions) (bounded, error) {
		return difficulty.NewVardiff(&difficulty.VardiffOptions{Start: o.start, Min: o.min, Max: o.max, Interval: o.interval})
	}},
	{"improved vardiff", powersOfTwo, func(o policyOptions) (bounded, error) {
		return difficulty.NewVardiff(&difficulty.VardiffOptions{
			Start: o.start, Min: o.min, Max: o.max, Interval: o.interval, Improved: true,
		})
	}},
	{"decaying", anyGrid, func(o policyOptions) (bounded, error) {
		return difficulty.NewDecaying(&difficulty.DecayingOptions{
			Start: o.start, Min: o.min, Max: o.max, Interval: o.interval, Grid: o.grid,
		})
	}},
	{"ladder", anyGrid, func(o policyOptions) (bounded, error) {
		return difficulty.NewLadder(&difficulty.LadderOptions{
			Start: o.start, Min: o.min, Max: o.max, Interval: o.interval, Grid: o.grid,
		})
	}},
	{"ewma", anyGrid, func(o policyOptions) (bounded, error) {
		return difficulty.NewEWMA(&difficulty.EWMAOptions{
			Start: o.start, Min: o.min, Max: o.max, Interval: o.interval, Grid: o.grid,
		})
	}},
	{"quick start", powersOfTwo, func(o policyOptions) (bounded, error) {
		return difficulty.NewQuickStart(&difficulty.QuickStartOptions{
			Start: o.start, Min: o.min, Max: o.max, Interval: o.interval,
		})
	}},
	{"sequential", anyGrid, func(o policyOptions) (bounded, error) {
		return difficulty.NewSequential(&difficulty.SequentialOptions{
			Start: o.start, Min: o.min, Max: o.max, Interval: o.interval, Grid: o.grid,
		})
	}},
}

func powersOfTwo(difficulty.Grid) difficulty.Grid { return difficulty.PowersOfTwo }

func anyGrid(g difficulty.Grid) difficulty.Grid { return g }

func eachPolicy(t *testing.T, test func(t *testing.T, make func(o policyOptions) bounded)) {
	for _, p := range policies {
		t.Run(p.name, func(t *testing.T) {
			test(t, func(o policyOptions) bounded {
				b, err := p.make(o)
				require.NoError(t, err)
				return b
			})
		})
	}
}

// Whatever happens to a policy, in whatever order, what it gives is of its grid and within its bounds.
func TestPoliciesStayWithinBounds(t *testing.T) {
	odd := []difficulty.Difficulty{
		nan, inf, -inf, 0, -1, 5e-324, math.MaxFloat64, difficulty.Min, difficulty.Max, 1, 0.3, 1e-9, 1e18, 77.7,
	}
	for _, kind := range policies {
		t.Run(kind.name, func(t *testing.T) {
			for seed := range uint64(60) {
				rng := rand.New(rand.NewPCG(seed, 3))
				any := func() difficulty.Difficulty {
					if rng.IntN(3) == 0 {
						return odd[rng.IntN(len(odd))]
					}
					return difficulty.Difficulty(math.Exp2(rng.Float64()*100 - 36))
				}
				o := policyOptions{
					interval: []time.Duration{0, time.Second, time.Hour}[rng.IntN(3)],
					grid:     grids[rng.IntN(len(grids))],
				}
				if kind.name == "vardiff" || kind.name == "improved vardiff" {
					o.interval = min(o.interval, 900*time.Second)
				}
				grid := kind.grid(o.grid)
				lo, hi := difficulty.Difficulty(0), difficulty.Max
				if rng.IntN(2) == 0 {
					o.min = difficulty.Difficulty(math.Exp2(rng.Float64()*40 - 20))
					o.max = o.min * difficulty.Difficulty(math.Exp2(2+rng.Float64()*10))
					o.start = o.min
					lo, hi = grid.Ceil(o.min), grid.Floor(o.max)
				}
				p, err := kind.make(o)
				require.NoError(t, err, "%+v", o)
				if lo == 0 { // the default
					q, err := kind.make(o)
					require.NoError(t, err)
					q.Reset(5e-324)
					lo = q.Next(noon)
				}
				now := noon
				askedMin, askedMax := lo, hi
				hurries, hurried := difficulty.As[difficulty.Hurrier](p)
				last := p.Next(now)
				for i := range 400 {
					switch rng.IntN(20) {
					case 0:
						now = now.Add(-time.Duration(rng.Int64N(int64(time.Hour))))
					case 1:
						now = now.Add(time.Duration(rng.Int64N(int64(24 * time.Hour))))
					case 2, 3, 4, 5, 6:
						now = now.Add(time.Duration(rng.Int64N(int64(time.Minute))))
					case 7:
						d := any()
						p.SetMin(d)
						askedMin = lo
						if d.Valid() {
							askedMin = min(max(grid.Ceil(d), lo), hi)
						}
					case 8:
						d := any()
						p.SetMax(d)
						askedMax = hi
						if d.Valid() {
							askedMax = min(max(grid.Floor(d), lo), hi)
						}
					case 9:
						p.Reset(any())
					case 10:
						s := difficulty.State{At: now, Difficulty: any(), Hashrate: difficulty.Hashrate(any()), Shares: float64(any())}
						p.Restore(now, s)
					case 11:
						s := p.State(now)
						require.True(t, s.Valid(), "%+v", s)
					case 12:
						p.Observe(now, any())
						p.Observe(time.Time{}, any())
					default:
						for range rng.IntN(100) {
							now = now.Add(time.Duration(rng.IntN(3)) * time.Millisecond * time.Duration(rng.IntN(2000)))
							p.Observe(now, last)
						}
					}
					if hurried {
						hurries.Hurry(now)
					}
					last = p.Next(now)
					if !last.Valid() || grid.Nearest(last) != last || last < min(askedMin, askedMax) || last > askedMax {
						t.Fatalf("seed %d, step %d: %v of %v, want from %v to %v", seed, i, last, grid, askedMin, askedMax)
					}
				}
			}
		})
	}
}

func TestPoliciesBounds(t *testing.T) {
	eachPolicy(t, func(t *testing.T, make func(policyOptions) bounded) {
		p := make(policyOptions{start: 1024, min: 64, max: 1 << 20})
		next := func() difficulty.Difficulty { return p.Next(noon) }
		require.Equal(t, difficulty.Difficulty(1024), next())
		p.SetMin(4096)
		require.Equal(t, difficulty.Difficulty(4096), next(), "SetMin raises at once")
		p.SetMax(2048)
		require.Equal(t, difficulty.Difficulty(2048), next(), "SetMax lowers at once and has the last word")
		p.Reset(1 << 30)
		require.Equal(t, difficulty.Difficulty(2048), next(), "Reset stays below SetMax")
		p.SetMax(0)
		require.Equal(t, difficulty.Difficulty(4096), next(), "without SetMax SetMin holds again")
		p.Reset(64)
		require.Equal(t, difficulty.Difficulty(4096), next(), "Reset stays above SetMin")
		p.SetMin(nan)
		p.Reset(1)
		require.Equal(t, difficulty.Difficulty(64), next(), "Reset stays above Min")
		p.Reset(1e30)
		require.Equal(t, difficulty.Difficulty(1<<20), next(), "Reset stays below Max")
		p.SetMax(1)
		require.Equal(t, difficulty.Difficulty(64), next(), "SetMax stays above Min")
		p.SetMax(inf)
		p.SetMin(1e30)
		require.Equal(t, difficulty.Difficulty(1<<20), next(), "SetMin stays below Max")
		p.SetMin(0)
		for _, bad := range []difficulty.Difficulty{nan, inf, 0, -1} {
			p.Reset(bad)
			require.Equal(t, difficulty.Difficulty(1<<20), next(), "Reset to %v changes nothing", bad)
		}
	})
}

// A difficulty that SetMax lowered does not climb past it again.
func TestPoliciesHoldSetMax(t *testing.T) {
	eachPolicy(t, func(t *testing.T, make func(policyOptions) bounded) {
		p := make(policyOptions{start: 1024, min: 64})
		p.SetMax(5000)
		tr := difftest.Run(p, difftest.Steady(phs), &difftest.Options{Start: noon, MaxShareRate: 50, Duration: time.Hour})
		require.Equal(t, difficulty.Difficulty(4096), difficulty.PowersOfTwo.Floor(tr.DifficultyAt(time.Hour)))
		require.LessOrEqual(t, tr.DifficultyAt(time.Hour), difficulty.Difficulty(5000))
	})
}

func TestPoliciesKeep(t *testing.T) {
	eachPolicy(t, func(t *testing.T, make func(policyOptions) bounded) {
		o := policyOptions{start: 16384, min: 1, max: 1 << 30, interval: 10 * time.Second}
		p := make(o)
		require.Equal(t, difficulty.State{At: noon, Difficulty: 16384}, p.State(noon), "nothing is known of a new miner")
		tr := difftest.Run(p, difftest.Steady(14*ths), &difftest.Options{Start: noon, Duration: 2 * time.Hour, Ideal: true})
		now := noon.Add(2 * time.Hour)
		s := p.State(now)
		require.Equal(t, now, s.At)
		require.Equal(t, tr.DifficultyAt(2*time.Hour), s.Difficulty)
		require.InEpsilon(t, 14e12, float64(s.Hashrate), 0.1)
		require.Greater(t, s.Shares, 10.)
		require.Less(t, s.Shares, 3000.)

		for _, c := range []struct {
			name  string
			state difficulty.State
			now   time.Time
			taken bool
		}{
			{"at once", s, now, true},
			{"after ten minutes", s, now.Add(10 * time.Minute), true},
			{"after two days", s, now.Add(48 * time.Hour), false},
			{"from a clock that is ahead", s, now.Add(-5 * time.Minute), true},
			{"from a clock that is days ahead", s, now.Add(-48 * time.Hour), false},
			{"without a time", difficulty.State{Difficulty: 512}, now, false},
			{"with no hashrate", difficulty.State{At: now, Difficulty: 512}, now.Add(10 * time.Minute), true},
			{"with no hashrate, too old", difficulty.State{At: now, Difficulty: 512}, now.Add(10*time.Minute + 1), false},
			{"worth an hour", difficulty.State{At: now, Difficulty: 512, Hashrate: 512 << 32, Shares: 3600}, now.Add(time.Hour), true},
			{"worth an hour, too old", difficulty.State{At: now, Difficulty: 512, Hashrate: 512 << 32, Shares: 3600}, now.Add(time.Hour + 1), false},
			{"worth years", difficulty.State{At: now, Difficulty: 512, Hashrate: 1e-300, Shares: 1e300}, now.Add(24 * time.Hour), true},
			{"worth years, too old", difficulty.State{At: now, Difficulty: 512, Hashrate: 1e-300, Shares: 1e300}, now.Add(24*time.Hour + 1), false},
			{"no difficulty", difficulty.State{At: now, Difficulty: nan}, now, false},
			{"no hashrate", difficulty.State{At: now, Difficulty: 512, Hashrate: difficulty.Hashrate(nan)}, now, false},
			{"negative shares", difficulty.State{At: now, Difficulty: 512, Shares: -1}, now, false},
			{"of the zero time, told at the zero time", difficulty.State{Difficulty: 512}, time.Time{}, true},
		} {
			p := make(o)
			p.Restore(c.now, c.state)
			want := difficulty.Difficulty(16384)
			if c.taken {
				want = c.state.Difficulty
			}
			require.Equal(t, want, p.Next(c.now), c.name)
		}
	})
}

func TestPoliciesOddShares(t *testing.T) {
	for _, kind := range policies {
		if kind.name == "vardiff" {
			continue // BTCPool counts every answer
		}
		t.Run(kind.name, func(t *testing.T) {
			var with, without [2]bounded
			for i := range with {
				var err error
				with[i], err = kind.make(policyOptions{start: 1024, min: 1})
				require.NoError(t, err)
				without[i], err = kind.make(policyOptions{start: 1024, min: 1})
				require.NoError(t, err)
			}
			for s := range 3600 {
				now := noon.Add(time.Duration(s) * time.Second)
				for i := range with {
					d := without[i].Next(now)
					require.Equal(t, d, with[i].Next(now), "after %d s", s)
					for _, bad := range []difficulty.Difficulty{0, -5, nan, inf, -inf} {
						with[i].Observe(now, bad)
					}
					if i == 0 || s%100 == 0 { // a fast miner and a slow one
						with[i].Observe(now, d)
						without[i].Observe(now, d)
					}
				}
			}
			require.NotEqual(t, with[0].Next(noon.Add(time.Hour)), with[1].Next(noon.Add(time.Hour)), "they adapt")
		})
	}
}

func TestPoliciesOddTimes(t *testing.T) {
	times := []time.Time{
		time.Unix(0, 1), time.Unix(-1<<40, 7), time.Unix(1<<40, 999), time.Unix(1<<62, 0), time.Unix(-1<<62, 0), noon,
		time.Unix(math.MaxInt64, math.MaxInt64), time.Unix(math.MinInt64, math.MinInt64), time.Now(), {},
	}
	eachPolicy(t, func(t *testing.T, make func(policyOptions) bounded) {
		for i := range times {
			p := make(policyOptions{start: 1024, min: 64})
			for j := range 3 * len(times) {
				now := times[(i+j)%len(times)]
				p.Observe(now, 1)
				d := p.Next(now)
				require.True(t, d.Assignable() && d >= 64)
				require.True(t, p.State(now).Valid())
				p.Observe(now.Add(time.Second), 1)
			}
		}

		// A clock that is set back counts as one that stands still.
		p, q := make(policyOptions{start: 1024, min: 1}), make(policyOptions{start: 1024, min: 1})
		require.Equal(t, difficulty.Difficulty(1024), p.Next(time.Time{}), "the zero Time is none")
		p.Observe(time.Time{}, 1024)
		rng := rand.New(rand.NewPCG(5, 5))
		latest := noon // that p was told; q is never told an earlier one
		for s := range 7200 {
			if (s%4 != 0 || s >= 3600) && s%100 != 0 && s%30 != 1 {
				continue
			}
			told := noon.Add(time.Duration(s) * time.Second)
			if s > 0 && rng.IntN(2) == 0 {
				told = told.Add(-time.Duration(rng.Int64N(int64(10 * time.Hour))))
			}
			if told.After(latest) {
				latest = told
			}
			if s%30 == 1 {
				require.Equal(t, q.Next(latest), p.Next(told), "after %d s", s)
				continue
			}
			p.Observe(told, 1024)
			q.Observe(latest, 1024)
		}
	})
}

func TestPoliciesAllocateNothing(t *testing.T) {
	eachPolicy(t, func(t *testing.T, make func(policyOptions) bounded) {
		p := make(policyOptions{start: 1024, min: 64})
		now := noon
		p.Observe(now, 1024)
		if n := testing.AllocsPerRun(2000, func() {
			now = now.Add(3 * time.Second)
			p.Observe(now, p.Next(now))
			p.State(now)
			if h, ok := difficulty.As[difficulty.Hurrier](p); ok {
				h.Hurry(now)
			}
		}); n != 0 {
			t.Errorf("a share and a job allocate %v times, want 0", n)
		}
	})
}

func TestPoliciesRefuse(t *testing.T) {
	for _, kind := range policies {
		if kind.name == "improved vardiff" {
			continue
		}
		t.Run(kind.name, func(t *testing.T) {
			for _, c := range []struct {
				name string
				opts policyOptions
				want []string
			}{
				{"a start that is not a number", policyOptions{start: nan}, []string{"Start NaN"}},
				{"an infinite maximum", policyOptions{max: inf}, []string{"Max +Inf"}},
				{"a maximum above 2^62", policyOptions{max: 1 << 63}, []string{"Max 9.223372036854776e+18 is not within"}},
				{"a minimum below 2^-32", policyOptions{min: 1e-10}, []string{"Min 0.0000000001"}},
				{"crossed bounds", policyOptions{min: 128, max: 64}, []string{"Min 128 is above Max 64"}},
				{"a start outside", policyOptions{start: 32, min: 64, max: 128}, []string{"Start 32 is not within Min 64 and Max 128"}},
				{"everything at once", policyOptions{start: -1, min: -2, max: -3, interval: -4},
					[]string{"Start -1", "Min -2", "Max -3", "Interval -4ns"}},
			} {
				p, err := kind.make(c.opts)
				require.Error(t, err, c.name)
				for _, want := range c.want {
					require.ErrorContains(t, err, "difficulty: "+kind.name+": "+want, c.name)
				}
				require.Nil(t, p, c.name)
			}
		})
	}
	for _, kind := range policies[2:5] {
		_, err := kind.make(policyOptions{grid: 5})
		require.ErrorContains(t, err, "Grid(5) is no grid")
	}
	for _, bad := range []time.Duration{99 * time.Millisecond, 24*time.Hour + 1, -time.Second} {
		for _, kind := range policies[2:] {
			_, err := kind.make(policyOptions{interval: bad})
			require.ErrorContains(t, err, "is not within 100ms and 24h0m0s")
		}
	}
	_, err := difficulty.NewQuickStart(&difficulty.QuickStartOptions{Interval: time.Second + 1, QuickShares: -1, QuickFactor: 1})
	require.ErrorContains(t, err, "Interval 1.000000001s is not in whole milliseconds")
	require.ErrorContains(t, err, "QuickShares -1")
	require.ErrorContains(t, err, "QuickFactor 1 is below 2")
}

func TestPoliciesDefaults(t *testing.T) {
	for _, c := range []struct {
		name       string
		opts       policyOptions
		start, low difficulty.Difficulty
		high       difficulty.Difficulty
		kinds      []int
	}{
		{"ckpool's", policyOptions{}, 42, 1, difficulty.Max, []int{2}},
		{"the reference's", policyOptions{}, 16384, 1, difficulty.Max, []int{3, 4}},
		{"DATUM's", policyOptions{}, 16384, 16384, difficulty.Max, []int{5}},
		{"the default start rounded to the grid", policyOptions{grid: difficulty.PowersOfTwo}, 64, 1, difficulty.Max, []int{2}},
		{"a start below the default minimum lowers it", policyOptions{start: 0.5}, 0.5, 0.5, difficulty.Max, []int{2, 3, 4, 5}},
		{"a maximum below the default start", policyOptions{max: 8}, 8, 1, 8, []int{2, 3, 4}},
		{"a minimum above the default start", policyOptions{min: 1 << 20}, 1 << 20, 1 << 20, difficulty.Max, []int{2, 3, 4, 5}},
		{"rounded to the grid", policyOptions{start: 9, min: 7, max: 30, grid: difficulty.PowersOfSqrt2}, 11, 8, 23, []int{2, 3, 4}},
		{"rounded to powers of two", policyOptions{start: 9, min: 7, max: 70}, 16, 8, 64, []int{5}},
	} {
		for _, k := range c.kinds {
			t.Run(c.name+", "+policies[k].name, func(t *testing.T) {
				p, err := policies[k].make(c.opts)
				require.NoError(t, err)
				require.Equal(t, c.start, p.Next(noon))
				p.Reset(1e-300)
				require.Equal(t, c.low, p.Next(noon))
				p.Reset(1e300)
				require.Equal(t, c.high, p.Next(noon))
			})
		}
	}
}

func TestPoliciesAreSmall(t *testing.T) {
	for _, c := range []struct {
		name       string
		size, most uintptr
	}{
		{"Vardiff", unsafe.Sizeof(difficulty.Vardiff{}), 160},
		{"Decaying", unsafe.Sizeof(difficulty.Decaying{}), 152},
		{"Ladder", unsafe.Sizeof(difficulty.Ladder{}), 136},
		{"EWMA", unsafe.Sizeof(difficulty.EWMA{}), 184},
		{"Sequential", unsafe.Sizeof(difficulty.Sequential{}), 320},
		{"QuickStart", unsafe.Sizeof(difficulty.QuickStart{}), 152},
	} {
		require.LessOrEqual(t, c.size, c.most, c.name)
	}
}

func BenchmarkPolicies(b *testing.B) {
	for _, kind := range policies {
		b.Run(kind.name+"/Observe", func(b *testing.B) {
			p, err := kind.make(policyOptions{start: 1024, min: 64})
			require.NoError(b, err)
			now := noon
			p.Next(now)
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(3 * time.Second)
				p.Observe(now, 1024)
			}
		})
		b.Run(kind.name+"/Next", func(b *testing.B) {
			p, err := kind.make(policyOptions{start: 1024, min: 64})
			require.NoError(b, err)
			now := noon
			p.Observe(now, 1024)
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Second)
				p.Next(now)
			}
		})
	}
}
