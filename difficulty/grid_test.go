package difficulty_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
)

var grids = []difficulty.Grid{difficulty.AnyDifficulty, difficulty.PowersOfTwo, difficulty.PowersOfSqrt2}

func TestGridValues(t *testing.T) {
	for _, c := range []struct {
		grid difficulty.Grid
		want []difficulty.Difficulty // all from 1/4 to the last
	}{
		{difficulty.AnyDifficulty, []difficulty.Difficulty{0.25, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{difficulty.PowersOfTwo, []difficulty.Difficulty{0.25, 0.5, 1, 2, 4, 8, 16, 32, 64}},
		{difficulty.PowersOfSqrt2, []difficulty.Difficulty{
			0.25, 0.5, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048,
		}},
	} {
		t.Run(c.grid.String(), func(t *testing.T) {
			for i, d := range c.want {
				require.Equal(t, d, c.grid.Floor(d))
				require.Equal(t, d, c.grid.Ceil(d))
				require.Equal(t, d, c.grid.Nearest(d))
				if i == 0 {
					continue
				}
				lo, hi := c.want[i-1], d
				mid := difficulty.Difficulty(math.Sqrt(float64(lo * hi)))
				for _, x := range []difficulty.Difficulty{lo * (1 + 1e-9), mid, hi * (1 - 1e-9)} {
					require.Equal(t, lo, c.grid.Floor(x), "%v", x)
					require.Equal(t, hi, c.grid.Ceil(x), "%v", x)
				}
				require.Equal(t, lo, c.grid.Nearest(mid*(1-1e-9)), "below the mean of %v and %v", lo, hi)
				require.Equal(t, hi, c.grid.Nearest(mid*(1+1e-9)), "above the mean of %v and %v", lo, hi)
			}
		})
	}
	require.Equal(t, difficulty.Difficulty(2), difficulty.PowersOfTwo.Nearest(math.Sqrt2*2*0.999))
	require.Equal(t, difficulty.Difficulty(2), difficulty.PowersOfTwo.Nearest(2*2*2/4))
	require.Equal(t, difficulty.Difficulty(8), difficulty.PowersOfTwo.Nearest(8), "itself")
	require.Equal(t, difficulty.Difficulty(2), difficulty.PowersOfTwo.Nearest(1.5), "in ratio, not in distance")
	require.Equal(t, "Grid(9)", difficulty.Grid(9).String())
}

func TestGridIsTotal(t *testing.T) {
	for _, g := range append(grids, 77) {
		for _, round := range []func(difficulty.Difficulty) difficulty.Difficulty{g.Floor, g.Ceil, g.Nearest} {
			for _, low := range []float64{math.NaN(), math.Inf(-1), -1, -5e-324, 0, 5e-324, 1e-10, 1. / (1 << 32)} {
				require.Equal(t, difficulty.Min, round(difficulty.Difficulty(low)), "%v of %v", g, low)
			}
			for _, high := range []float64{math.Inf(1), math.MaxFloat64, 1 << 63, 1 << 62} {
				require.Equal(t, difficulty.Max, round(difficulty.Difficulty(high)), "%v of %v", g, high)
			}
		}
	}
}

// checkGrid holds the promises of a Grid for one d within range, and for the next grid points by what they promise.
func checkGrid(t *testing.T, g difficulty.Grid, d difficulty.Difficulty) {
	t.Helper()
	lo, hi, near := g.Floor(d), g.Ceil(d), g.Nearest(d)
	for _, x := range []difficulty.Difficulty{lo, hi, near} {
		if !x.Assignable() || x < difficulty.Min || x > difficulty.Max {
			t.Fatalf("%v gives %v for %v", g, x, d)
		}
		if g.Floor(x) != x || g.Ceil(x) != x || g.Nearest(x) != x {
			t.Fatalf("%v does not keep its own %v", g, x)
		}
	}
	if !(d >= difficulty.Min && d <= difficulty.Max) {
		return
	}
	switch {
	case lo > d || hi < d:
		t.Fatalf("%v puts %v between %v and %v", g, d, lo, hi)
	case lo == hi && lo != d:
		t.Fatalf("%v takes %v for %v", g, d, lo)
	case hi/lo > 2:
		t.Fatalf("%v has nothing between %v and %v", g, lo, hi)
	case lo != hi && (g.Ceil(lo*(1+1e-12)) != hi && lo < 1<<30):
		t.Fatalf("%v has another one between %v and %v", g, lo, hi)
	case near != lo && near != hi:
		t.Fatalf("%v has %v nearest to %v", g, near, d)
	case near == lo && d/lo > hi/d*(1+1e-15), near == hi && hi/d > d/lo*(1+1e-15):
		t.Fatalf("%v has %v nearest to %v, of %v and %v", g, near, d, lo, hi)
	}
}

func TestGridProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		d := difficulty.Difficulty(math.Exp2(rng.Float64()*100 - 36))
		e := d * difficulty.Difficulty(1+rng.Float64())
		for _, g := range grids {
			checkGrid(t, g, d)
			if g.Floor(d) > g.Floor(e) || g.Ceil(d) > g.Ceil(e) || g.Nearest(d) > g.Nearest(e) {
				t.Fatalf("%v is not monotonic between %v and %v", g, d, e)
			}
		}
	}
}

func FuzzGrid(f *testing.F) {
	for _, d := range []float64{0, -1, math.NaN(), math.Inf(1), 1e-10, 0.7, 1, math.Sqrt2, 2, 11.31, 45.25, 1 << 53, 1 << 62} {
		f.Add(d)
	}
	f.Fuzz(func(t *testing.T, d float64) {
		for _, g := range grids {
			checkGrid(t, g, difficulty.Difficulty(d))
		}
	})
}

// says gives one difficulty after the other, the last one for ever, and can be reset and more.
type says struct {
	next []difficulty.Difficulty
	seen int
}

func (s *says) Observe(time.Time, difficulty.Difficulty) { s.seen++ }

func (s *says) Next(time.Time) difficulty.Difficulty {
	d := s.next[0]
	if len(s.next) > 1 {
		s.next = s.next[1:]
	}
	return d
}

type saysResettable struct {
	says
	reset, min, max difficulty.Difficulty
}

func (s *saysResettable) Reset(d difficulty.Difficulty)  { s.reset = d }
func (s *saysResettable) SetMin(m difficulty.Difficulty) { s.min = m }
func (s *saysResettable) SetMax(m difficulty.Difficulty) { s.max = m }
func (s *saysResettable) Hurry(time.Time) bool           { return true }
func (s *saysResettable) State(now time.Time) difficulty.State {
	return difficulty.State{At: now, Difficulty: 7}
}
func (s *saysResettable) Restore(_ time.Time, st difficulty.State) { s.reset = st.Difficulty }

var (
	nan = difficulty.Difficulty(math.NaN())
	inf = difficulty.Difficulty(math.Inf(1))
)

// given returns what p gives once a second.
func given(p difficulty.Policy, n int) []difficulty.Difficulty {
	var ds []difficulty.Difficulty
	for i := range n {
		ds = append(ds, p.Next(noon.Add(time.Duration(i)*time.Second)))
	}
	return ds
}

func TestQuantize(t *testing.T) {
	p, err := difficulty.Quantize(&says{next: []difficulty.Difficulty{nan, 5, inf, 0, -3, nan, 50, 1e30}}, difficulty.PowersOfSqrt2)
	require.NoError(t, err)
	require.Equal(t, []difficulty.Difficulty{difficulty.Min, 6, 6, 6, 6, 6, 45, difficulty.Max}, given(p, 8))

	_, err = difficulty.Quantize(nil, difficulty.PowersOfTwo)
	require.EqualError(t, err, "difficulty: quantize: the policy is nil")
	_, err = difficulty.Quantize(difficulty.Fixed(1), 3)
	require.EqualError(t, err, "difficulty: quantize: Grid(3) is no grid")

	inner := &saysResettable{}
	p, err = difficulty.Quantize(inner, difficulty.PowersOfTwo)
	require.NoError(t, err)
	p.(difficulty.Resetter).Reset(100)
	require.Equal(t, difficulty.Difficulty(128), inner.reset)
	p.(difficulty.Resetter).Reset(nan)
	require.Equal(t, difficulty.Difficulty(128), inner.reset, "what is no difficulty is not turned into one")
}

func ExampleGrid() {
	for _, g := range []difficulty.Grid{difficulty.AnyDifficulty, difficulty.PowersOfTwo, difficulty.PowersOfSqrt2} {
		fmt.Println(g, g.Floor(1300.5), g.Nearest(1300.5), g.Ceil(1300.5))
	}
	// Output:
	// AnyDifficulty 1300 1301 1301
	// PowersOfTwo 1024 1024 2048
	// PowersOfSqrt2 1024 1448 1448
}
