package difficulty_test

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
)

var notValid = []float64{0, math.Copysign(0, -1), -1, -5e-324, math.NaN(), math.Inf(1), math.Inf(-1)}

// exactTarget is floor(D1/d) with numbers of any size, or the largest target.
func exactTarget(d difficulty.Difficulty) *big.Int {
	q := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(0xffff), 208))
	q.Quo(q, new(big.Rat).SetFloat64(float64(d)))
	n := new(big.Int).Quo(q.Num(), q.Denom())
	if n.BitLen() > 256 {
		n.Lsh(big.NewInt(1), 256)
		n.Sub(n, big.NewInt(1))
	}
	return n
}

func TestDifficultyTarget(t *testing.T) {
	for _, c := range []struct {
		name string
		d    difficulty.Difficulty
		want string
	}{
		{"difficulty 1", 1, "00000000ffff0000000000000000000000000000000000000000000000000000"},
		{"difficulty 2", 2, "000000007fff8000000000000000000000000000000000000000000000000000"},
		{"difficulty 3", 3, "0000000055550000000000000000000000000000000000000000000000000000"},
		{"difficulty 16384", 16384, "000000000003fffc000000000000000000000000000000000000000000000000"},
		{"the lowest", difficulty.Min, "ffff000000000000000000000000000000000000000000000000000000000000"},
		{"half of the lowest", difficulty.Min / 2, strings.Repeat("f", 64)},
		{"2^-20", 1. / (1 << 20), "000ffff000000000000000000000000000000000000000000000000000000000"},
		{"2^62", difficulty.Max, "000000000000000000000003fffc000000000000000000000000000000000000"},
		{"the largest with a target", 0xffff << 208, strings.Repeat("0", 63) + "1"},
		{"2^224", 1 << 224, strings.Repeat("0", 64)},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, c.d.Target().String()) })
	}
	for _, f := range notValid {
		require.Zero(t, difficulty.Difficulty(f).Target(), "%v", f)
	}
}

func TestDifficultyTargetIsExact(t *testing.T) {
	check := func(d difficulty.Difficulty) {
		if got, want := bigOf(d.Target()), exactTarget(d); got.Cmp(want) != 0 {
			t.Fatalf("target of %v is %x, want %x", d, got, want)
		}
	}
	for _, d := range []difficulty.Difficulty{
		1. / (1 << 32), 1. / (1 << 20), 1e-12, 1e-10, 3, 5, 7, 0.1, 1. / 3, 1 << 60, 1<<60 + 1<<8, 1 << 62,
		1 << 63, 1e18, 1e30,
		86388558925171.02, 217375482757.23764, 5e-324, math.MaxFloat64, 2.2250738585072014e-308, 65535, 65536, 65537,
		1 << 208, 3 << 208, 1 << 209, 3 << 209, 5 << 220, 1 << 223, 1 << 224, 3 << 223,
		65535. / 65536 / (1 << 32), math.MaxUint32, 1<<53 - 1,
	} {
		check(d)
		check(difficulty.Difficulty(math.Nextafter(float64(d), 1)))
		check(difficulty.Difficulty(math.Nextafter(float64(d), math.MaxFloat64)))
	}
	rng := rand.New(rand.NewPCG(11, 12))
	for range 5000 {
		check(difficulty.Difficulty(math.Ldexp(1+rng.Float64(), rng.IntN(300)-50)))                          // any bits
		check(difficulty.Difficulty(math.Ldexp(float64(1+rng.IntN(1000)), rng.IntN(300)-50)))                // few bits
		check(difficulty.Difficulty(1 + rng.Uint64N(1<<62)))                                                 // whole
		check(difficulty.Difficulty(math.Float64frombits(1 + rng.Uint64N(math.Float64bits(math.Inf(1))-1)))) // all there are
	}
}

// A miner's own difficulty is never below what was asked of it because of rounding: the target of d is the largest
// whose difficulty is at least d.
func TestTargetMeansAtLeastThatDifficulty(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	for range 5000 {
		d := difficulty.Difficulty(math.Ldexp(1+rng.Float64(), rng.IntN(94)-32))
		require.GreaterOrEqual(t, d.Target().Difficulty(), d)
	}
}

func TestValidAndAssignable(t *testing.T) {
	for _, f := range notValid {
		require.False(t, difficulty.Difficulty(f).Valid(), "%v", f)
		require.False(t, difficulty.Difficulty(f).Assignable(), "%v", f)
	}
	for _, d := range []difficulty.Difficulty{1, 2, 3, 1000, 1 << 53, 1 << 62, 0.5, 0.25, difficulty.Min, 1. / (1 << 60)} {
		require.True(t, d.Valid(), "%v", d)
		require.True(t, d.Assignable(), "%v", d)
	}
	for _, d := range []difficulty.Difficulty{1.5, 0.75, 0.1, 1000.25, 3. / (1 << 20)} {
		require.True(t, d.Valid(), "%v", d)
		require.False(t, d.Assignable(), "%v", d)
	}
}

func TestPowersOfTwo(t *testing.T) {
	for _, c := range []struct{ d, floor, ceil difficulty.Difficulty }{
		{1, 1, 1},
		{3, 2, 4},
		{64, 64, 64},
		{65, 64, 128},
		{63.999, 32, 64},
		{0.001, 1. / 1024, 1. / 512},
		{0.5, 0.5, 0.5},
		{difficulty.Min, difficulty.Min, difficulty.Min},
		{difficulty.Min * 1.5, difficulty.Min, difficulty.Min * 2},
		{difficulty.Min / 2, difficulty.Min, difficulty.Min},
		{difficulty.Max, difficulty.Max, difficulty.Max},
		{difficulty.Max - 1<<10, difficulty.Max / 2, difficulty.Max},
		{difficulty.Max * 3, difficulty.Max, difficulty.Max},
		{difficulty.Difficulty(math.Inf(1)), difficulty.Max, difficulty.Max},
		{difficulty.Difficulty(math.NaN()), difficulty.Min, difficulty.Min},
		{0, difficulty.Min, difficulty.Min},
		{-8, difficulty.Min, difficulty.Min},
	} {
		require.Equal(t, c.floor, c.d.FloorPow2(), "floor of %v", c.d)
		require.Equal(t, c.ceil, c.d.CeilPow2(), "ceil of %v", c.d)
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		s    string
		want difficulty.Difficulty
	}{
		{"65536", 65536}, {"0.001", 0.001}, {"1e6", 1e6}, {"1E-9", 1e-9}, {"+8", 8}, {".5", 0.5},
		{"4611686018427387904", difficulty.Max}, {"0.00000000023283064365386963", difficulty.Min},
	} {
		got, err := difficulty.Parse(c.s)
		require.NoError(t, err, c.s)
		require.Equal(t, c.want, got, c.s)
		again, err := difficulty.Parse(got.String())
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
	for _, s := range []string{"", " 1", "1 ", "0", "-0", "-1", "1,5", "NaN", "inf", "Infinity", "1e400", "1e-400",
		"0x10p0", "0X1p4", "1_000", "ten", "1e", strings.Repeat("x", 1000)} {
		got, err := difficulty.Parse(s)
		require.ErrorIs(t, err, difficulty.ErrInvalid, s)
		require.Less(t, len(err.Error()), 200)
		require.Equal(t, 1, strings.Count(err.Error(), "difficulty:"), err)
		require.Zero(t, got)
	}
}

func TestDifficultyString(t *testing.T) {
	for _, c := range []struct {
		d    difficulty.Difficulty
		want string
	}{
		{1, "1"}, {16384, "16384"}, {1 << 62, "4611686018427387904"}, {0.5, "0.5"}, {1e6, "1000000"},
		{difficulty.Min, "0.00000000023283064365386963"}, {1e-12, "1e-12"}, {1 << 63, "9.223372036854776e+18"},
		{0, "0"}, {-3, "-3"}, {difficulty.Difficulty(math.NaN()), "NaN"}, {difficulty.Difficulty(math.Inf(1)), "+Inf"},
		{86388558925171.02, "86388558925171.02"},
	} {
		require.Equal(t, c.want, c.d.String())
	}
}

func TestHashrateOf(t *testing.T) {
	for _, c := range []struct {
		name string
		sum  difficulty.Difficulty
		span time.Duration
		want difficulty.Hashrate
	}{
		{"a minute", 196608, time.Minute, 14.073748836e12},
		{"five minutes", 229376, 300 * time.Second, 3.283874728e12},
		{"an hour", 294912, time.Hour, 0.351843721e12},
		{"one share", 1, 10 * time.Second, 0.4294967296e9},
		{"a large pool", 32000000000, 10 * time.Second, 13743895347.2e9},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := difficulty.HashrateOf(c.sum, c.span)
			require.InEpsilon(t, float64(c.want), float64(got), 1e-8)
			require.InEpsilon(t, float64(c.sum), float64(got.Difficulty(c.span)), 1e-12, "and back")
		})
	}
	require.Zero(t, difficulty.HashrateOf(5, 0))
	require.Zero(t, difficulty.HashrateOf(5, -time.Second))
	require.Zero(t, difficulty.HashrateOf(0, time.Second))
}

func TestHashrateString(t *testing.T) {
	for _, c := range []struct {
		h    difficulty.Hashrate
		want string
	}{
		{0, "0 H/s"}, {1, "1 H/s"}, {1.5, "1.50 H/s"}, {999, "999 H/s"}, {999.4, "999 H/s"}, {999.5, "1.00 kH/s"},
		{9994, "9.99 kH/s"}, {9995, "10.0 kH/s"}, {99_940, "99.9 kH/s"}, {99_950, "100 kH/s"}, {5e6, "5.00 MH/s"},
		{4.294967296e8, "429 MH/s"}, {14.073748836e12, "14.1 TH/s"}, {13743895347.2e9, "13.7 EH/s"}, {999.6e12, "1.00 PH/s"},
		{1e21, "1.00 ZH/s"}, {1e25, "10000 ZH/s"},
		{difficulty.Hashrate(math.NaN()), "NaN H/s"}, {difficulty.Hashrate(math.Inf(1)), "+Inf ZH/s"},
	} {
		require.Equal(t, c.want, c.h.String())
	}
}

func TestClamp(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		d    float64
		want difficulty.Difficulty
	}{
		{"within", 100, 100}, {"below", 1, 64}, {"above", 1e9, 1024}, {"at the lower bound", 64, 64},
		{"at the upper bound", 1024, 1024}, {"not a number", math.NaN(), 64}, {"infinite", math.Inf(1), 1024},
		{"negative", -5, 64},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := difficulty.Clamp(difficulty.Fixed(c.d), 64, 1024)
			require.NoError(t, err)
			require.Equal(t, c.want, p.Next(now))
		})
	}
	for _, c := range []struct {
		name   string
		p      difficulty.Policy
		lo, hi float64
		want   string
	}{
		{"no policy", nil, 1, 2, "the policy is nil"},
		{"crossed bounds", difficulty.Fixed(1), 2, 1, "[2, 1]: the bounds are crossed"},
		{"a lower bound of 0", difficulty.Fixed(1), 0, 1, "not a positive finite number: clamp to [0, 1]"},
		{"an upper bound that is not a number", difficulty.Fixed(1), 1, math.NaN(), "clamp to [1, NaN]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := difficulty.Clamp(c.p, difficulty.Difficulty(c.lo), difficulty.Difficulty(c.hi))
			require.ErrorContains(t, err, c.want)
			require.Nil(t, p)
		})
	}
}

func TestClampPassesCallsOn(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p, err := difficulty.Clamp(difficulty.Fixed(1), 1, 2)
	require.NoError(t, err)
	_, resets := p.(difficulty.Resetter)
	require.False(t, resets, "a Fixed cannot be reset, bounded or not")

	v := newVardiff(t, nil)
	p, err = difficulty.Clamp(v, 1024, 65536)
	require.NoError(t, err)
	r, resets := p.(difficulty.Resetter)
	require.True(t, resets)
	r.Reset(1 << 40)
	require.Equal(t, difficulty.Difficulty(65536), v.Next(now), "Reset is bounded")
	r.Reset(1)
	require.Equal(t, difficulty.Difficulty(1024), v.Next(now))
	for range 127 {
		p.Observe(now, 1024)
	}
	require.Equal(t, difficulty.Difficulty(2048), p.Next(now), "Observe reaches the policy")
}

func ExampleDifficulty_Target() {
	fmt.Println(difficulty.Difficulty(65536).Target())
	fmt.Println(difficulty.Difficulty(0.5).Target())
	// Output:
	// 000000000000ffff000000000000000000000000000000000000000000000000
	// 00000001fffe0000000000000000000000000000000000000000000000000000
}

func ExampleHashrateOf() {
	h := difficulty.HashrateOf(196608, time.Minute) // three shares of 65536 in a minute
	fmt.Println(h)
	fmt.Println(h.Difficulty(10 * time.Second).CeilPow2())
	// Output:
	// 14.1 TH/s
	// 32768
}

func ExampleClamp() {
	p, err := difficulty.Clamp(difficulty.Fixed(1), 64, 4096)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Next(time.Now()))
	// Output: 64
}

func ExampleParse() {
	d, err := difficulty.Parse("1e6")
	fmt.Println(d, d.CeilPow2(), err)
	_, err = difficulty.Parse("-1")
	fmt.Println(err)
	// Output:
	// 1000000 1048576 <nil>
	// difficulty: not a positive finite number: "-1"
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"65536", "0.001", "1e6", "-1", "NaN", "+Inf", "0x1p-2", "1_0", "1e-400", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := difficulty.Parse(s)
		if err != nil {
			require.ErrorIs(t, err, difficulty.ErrInvalid)
			require.Zero(t, d)
			return
		}
		require.True(t, d.Valid())
		require.NotContains(t, s, "x")
		again, err := difficulty.Parse(d.String())
		require.NoError(t, err)
		require.Equal(t, d, again)
		require.Equal(t, 0, exactTarget(d).Cmp(bigOf(d.Target())))
	})
}

func BenchmarkDifficultyTarget(b *testing.B) {
	for _, c := range []struct {
		name string
		d    difficulty.Difficulty
	}{{"power of two", 65536}, {"any", 86388558925171.02}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.d.Target()
			}
		})
	}
}
