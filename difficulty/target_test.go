package difficulty_test

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
)

func bigOf(t difficulty.Target) *big.Int {
	b := t.Bytes()
	return new(big.Int).SetBytes(b[:])
}

// targetOf returns n, which has at most 256 bits.
func targetOf(n *big.Int) difficulty.Target {
	var b [32]byte
	n.FillBytes(b[:])
	return difficulty.FromBytes(&b)
}

// randomTarget returns a target of any length above 0, the short ones as likely as the long ones.
func randomTarget(rng *rand.Rand) difficulty.Target {
	n := bigOf(difficulty.Target{rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64() | 1<<63})
	return targetOf(n.Rsh(n, uint(rng.IntN(256))))
}

func TestFromBits(t *testing.T) {
	for _, c := range []struct {
		name string
		bits uint32
		want string
		diff difficulty.Difficulty
	}{
		{"the genesis block", 0x1d00ffff, "00000000ffff0000000000000000000000000000000000000000000000000000", 1},
		{"block 100800", 0x1b0404cb, "00000000000404cb000000000000000000000000000000000000000000000000", 16307.420938523983},
		{"block 840000", 0x17034219, "0000000000000000000342190000000000000000000000000000000000000000", 86388558925171.02},
		{"a Bitcoin Cash block", 0x18050edc, "0000000000000000050edc000000000000000000000000000000000000000000",
			217375482757.23764},
		{"regtest", 0x207fffff, "7fffff0000000000000000000000000000000000000000000000000000000000", 4.6565423739069247e-10},
		{"a size of 3 shifts nothing", 0x03123456, strings.Repeat("0", 58) + "123456", 0},
		{"a size of 2 drops a byte", 0x02123456, strings.Repeat("0", 60) + "1234", 0},
		{"a size of 1 drops two", 0x01123456, strings.Repeat("0", 62) + "12", 0},
		{"two bytes at the very top", 0x2100ffff, "ffff" + strings.Repeat("0", 60), 0},
		{"one byte at the very top", 0x220000ff, "ff" + strings.Repeat("0", 62), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := difficulty.FromBits(c.bits)
			require.NoError(t, err)
			require.Equal(t, c.want, got.String())
			if c.diff != 0 {
				require.Equal(t, c.diff, got.Difficulty())
			}
		})
	}
}

func TestFromBitsRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		bits uint32
		want error
	}{
		{"nothing at all", 0, difficulty.ErrZeroBits},
		{"no digits", 0x1d000000, difficulty.ErrZeroBits},
		{"no digits and a sign", 0x1d800000, difficulty.ErrZeroBits},
		{"digits that are all shifted out", 0x01003456, difficulty.ErrZeroBits},
		{"a sign, and digits that are all shifted out", 0x01803456, difficulty.ErrZeroBits},
		{"a size of 0", 0x00123456, difficulty.ErrZeroBits},
		{"a size far too large without digits", 0xff000000, difficulty.ErrZeroBits},
		{"a sign", 0x1d80ffff, difficulty.ErrNegativeBits},
		{"a sign and a short size", 0x01fedcba, difficulty.ErrNegativeBits},
		{"a sign and overflow", 0xff923456, difficulty.ErrNegativeBits},
		{"three bytes at 33", 0x21010000, difficulty.ErrOverflowBits},
		{"two bytes at 34", 0x22000100, difficulty.ErrOverflowBits},
		{"one byte at 35", 0x23000001, difficulty.ErrOverflowBits},
		{"all of it", 0xff7fffff, difficulty.ErrOverflowBits},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := difficulty.FromBits(c.bits)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, fmt.Sprintf("%08x", c.bits))
			require.Zero(t, got)
		})
	}
}

// bigFromBits is the compact form with numbers of any size: what FromBits must agree with. Nil is refused.
func bigFromBits(compact uint32) *big.Int {
	n := new(big.Int).SetUint64(uint64(compact & 0x7fffff))
	if size := uint(compact >> 24); size > 3 {
		n.Lsh(n, 8*(size-3))
	} else {
		n.Rsh(n, 8*(3-size))
	}
	if n.Sign() == 0 || compact&0x800000 != 0 || n.BitLen() > 256 {
		return nil
	}
	return n
}

func checkBits(t *testing.T, compact uint32) {
	t.Helper()
	got, err := difficulty.FromBits(compact)
	want := bigFromBits(compact)
	if want == nil {
		require.Error(t, err, "%08x", compact)
		return
	}
	require.NoError(t, err, "%08x", compact)
	require.Equal(t, 0, want.Cmp(bigOf(got)), "%08x gives %v", compact, got)
	// A target has many compact forms, but only one that Bits returns.
	again, err := difficulty.FromBits(got.Bits())
	require.NoError(t, err)
	require.Equal(t, got, again)
	if compact&0x7fffff >= 0x8000 && compact>>24 >= 3 {
		require.Equal(t, compact, got.Bits())
	}
}

func TestBitsRoundTrip(t *testing.T) {
	for _, compact := range []uint32{0x1d00ffff, 0x1b0404cb, 0x17034219, 0x207fffff, 0x2100ffff, 0x03008000, 0x01120000} {
		target, err := difficulty.FromBits(compact)
		require.NoError(t, err)
		require.Equal(t, compact, target.Bits())
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 30_000 {
		checkBits(t, uint32(rng.IntN(40))<<24|uint32(rng.IntN(1<<24)))
	}
	require.Zero(t, difficulty.Target{}.Bits())
}

func TestBitsTruncates(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		target := randomTarget(rng)
		got, err := difficulty.FromBits(target.Bits())
		require.NoError(t, err, "%v", target)
		require.LessOrEqual(t, got.Cmp(target), 0)
		// No more than the bits below the 16th are lost.
		lost := new(big.Int).Sub(bigOf(target), bigOf(got))
		n := bigOf(target).BitLen()
		require.LessOrEqual(t, lost.BitLen(), max(n-16, 0), "%v", target)
		// And never what there is room for.
		require.False(t, lost.Sign() > 0 && target.Bits()&0x7fffff < 0x8000, "%v", target)
	}
	top := difficulty.Target{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
	require.EqualValues(t, 0x2100ffff, top.Bits())
}

func TestTargetMetBy(t *testing.T) {
	// The hash of the genesis block, in memory order.
	raw, err := hex.DecodeString("6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000")
	require.NoError(t, err)
	genesis := [32]byte(raw)
	require.True(t, difficulty.One.MetBy(&genesis))
	require.Equal(t, "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
		difficulty.FromHash(&genesis).String())
	require.InDelta(t, 2536.4, float64(difficulty.FromHash(&genesis).Difficulty()), 0.1)

	require.False(t, difficulty.Target{}.MetBy(&genesis), "nothing meets the zero target")
	require.True(t, difficulty.Target{}.MetBy(new([32]byte)), "but zero")

	// Equal, one above and one below, at every limb.
	rng := rand.New(rand.NewPCG(5, 6))
	targets := []difficulty.Target{difficulty.One, {1}, {0, 1}, {0, 0, 1}, {0, 0, 0, 1}, difficulty.Difficulty(3).Target()}
	for range 2000 {
		targets = append(targets, randomTarget(rng))
	}
	for _, target := range targets {
		n := bigOf(target)
		for delta := int64(-1); delta <= 1; delta++ {
			h := new(big.Int).Add(n, big.NewInt(delta))
			if h.Sign() < 0 || h.BitLen() > 256 {
				continue
			}
			bytes := targetOf(h).Bytes()
			for i := range 16 { // memory order is the other way round
				bytes[i], bytes[31-i] = bytes[31-i], bytes[i]
			}
			require.Equal(t, delta <= 0, target.MetBy(&bytes), "%v by %x", target, h)
			require.Equal(t, targetOf(h), difficulty.FromHash(&bytes))
			require.Equal(t, h.Cmp(n), difficulty.FromHash(&bytes).Cmp(target))
		}
		other := randomTarget(rng)
		require.Equal(t, n.Cmp(bigOf(other)), target.Cmp(other))
		bytes := target.Bytes()
		require.Equal(t, target, difficulty.FromBytes(&bytes))
	}
}

func TestTargetDifficultyRoundsOnce(t *testing.T) {
	d1 := new(big.Int).Lsh(big.NewInt(0xffff), 208)
	check := func(target difficulty.Target) {
		want, _ := new(big.Rat).SetFrac(d1, bigOf(target)).Float64()
		require.Equal(t, difficulty.Difficulty(want), target.Difficulty(), "%v", target)
	}
	rng := rand.New(rand.NewPCG(7, 8))
	for range 5000 {
		check(randomTarget(rng))
	}
	for _, target := range []difficulty.Target{
		{1}, {2}, {3}, {^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}, {0, 0, 0, 1 << 63},
		{1, 0, 0, 1 << 63}, difficulty.One, {1, 0, 0, 0xffff << 16}, {^uint64(0), ^uint64(0), ^uint64(0), 0xffff<<16 - 1},
	} {
		check(target)
	}
	// Leading limbs that mislead: equal to those of D1, or followed by extremes.
	extremes := []uint64{
		0, 1, 1 << 63, 1<<63 - 1, ^uint64(0), ^uint64(0) - 1, 0xffff << 48, 0xffff<<48 - 1, 0xffff<<48 + 1,
	}
	for range 20_000 {
		target := difficulty.Target{}
		for i := range target {
			target[i] = extremes[rng.IntN(len(extremes))]
		}
		n := bigOf(target)
		if target = targetOf(n.Rsh(n, uint(rng.IntN(100)))); target != (difficulty.Target{}) {
			check(target)
		}
	}
	// Quotients that lie near the middle between two values: D1 / (2^53 + 1 + 2k) * 2^k.
	for range 5000 {
		q := new(big.Int).SetUint64(1<<53 | rng.Uint64N(1<<53) | 1)
		n := new(big.Int).Div(d1, q)
		n.Rsh(n, uint(rng.IntN(100)))
		check(targetOf(n))
		check(targetOf(n.Add(n, big.NewInt(1))))
	}
	require.True(t, math.IsInf(float64(difficulty.Target{}.Difficulty()), 1))
}

func TestParseTarget(t *testing.T) {
	const one = "00000000ffff0000000000000000000000000000000000000000000000000000"
	got, err := difficulty.ParseTarget(one)
	require.NoError(t, err)
	require.Equal(t, difficulty.One, got)
	got, err = difficulty.ParseTarget(strings.ToUpper(one))
	require.NoError(t, err)
	require.Equal(t, difficulty.One, got)
	for _, c := range []struct{ name, s, want string }{
		{"nothing", "", "0 characters, want 64"},
		{"a digit short", one[1:], "63 characters"},
		{"a digit too many", one + "0", "65 characters"},
		{"a prefix", "0x" + one[2:], "invalid byte"},
		{"a space", " " + one[1:], "invalid byte"},
		{"a letter beyond f", one[:63] + "g", "invalid byte"},
		{"a sign", "-" + one[1:], "invalid byte"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := difficulty.ParseTarget(c.s)
			require.ErrorContains(t, err, "difficulty: parse target: ")
			require.ErrorContains(t, err, c.want)
			require.Zero(t, got)
		})
	}
}

func TestTargetAllocatesNothing(t *testing.T) {
	hash := [32]byte{31: 1}
	d := difficulty.Difficulty(86388558925171.02)
	if n := testing.AllocsPerRun(100, func() {
		target := d.Target()
		target.MetBy(&hash)
		difficulty.FromHash(&hash).Difficulty()
		target.Bits()
	}); n != 0 {
		t.Errorf("allocates %v times, want 0", n)
	}
}

func ExampleFromBits() {
	target, err := difficulty.FromBits(0x17034219) // of block 840000
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(target)
	fmt.Println(target.Difficulty())
	fmt.Printf("%08x\n", target.Bits())
	// Output:
	// 0000000000000000000342190000000000000000000000000000000000000000
	// 86388558925171.02
	// 17034219
}

func ExampleTarget_MetBy() {
	// The hash of the genesis block as SHA-256d returns it, the last byte the most significant.
	hash := [32]byte{
		0x6f, 0xe2, 0x8c, 0x0a, 0xb6, 0xf1, 0xb3, 0x72, 0xc1, 0xa6, 0xa2, 0x46, 0xae, 0x63, 0xf7, 0x4f,
		0x93, 0x1e, 0x83, 0x65, 0xe1, 0x5a, 0x08, 0x9c, 0x68, 0xd6, 0x19, 0x00, 0x00, 0x00, 0x00, 0x00,
	}
	fmt.Println(difficulty.Difficulty(2536).Target().MetBy(&hash))
	fmt.Println(difficulty.Difficulty(2537).Target().MetBy(&hash))
	// Output:
	// true
	// false
}

func FuzzFromBits(f *testing.F) {
	for _, bits := range []uint32{0, 0x1d00ffff, 0x1b0404cb, 0x17034219, 0x207fffff, 0x1d80ffff, 0x01803456, 0x2100ffff,
		0x21010000, 0xff7fffff, 0x00800000} {
		f.Add(bits)
	}
	f.Fuzz(checkBits)
}

func FuzzParseTarget(f *testing.F) {
	f.Add("00000000ffff0000000000000000000000000000000000000000000000000000")
	f.Add("7fffff0000000000000000000000000000000000000000000000000000000000")
	f.Add(strings.Repeat("F", 64))
	f.Add("0x" + strings.Repeat("0", 62))
	f.Add("")
	f.Add(strings.Repeat("é", 32))
	f.Fuzz(func(t *testing.T, s string) {
		target, err := difficulty.ParseTarget(s)
		want, ok := new(big.Int).SetString(s, 16)
		if len(s) != 64 || !ok || strings.ContainsAny(s, "+-_") {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		require.Equal(t, 0, want.Cmp(bigOf(target)))
		require.Equal(t, strings.ToLower(s), target.String())
	})
}

func BenchmarkTargetMetBy(b *testing.B) {
	target := difficulty.Difficulty(65536).Target()
	b.Run("decided by the top limb", func(b *testing.B) {
		hash := [32]byte{31: 0x17}
		b.ReportAllocs()
		for b.Loop() {
			target.MetBy(&hash)
		}
	})
	b.Run("equal", func(b *testing.B) {
		hash := target.Bytes()
		for i := range 16 {
			hash[i], hash[31-i] = hash[31-i], hash[i]
		}
		b.ReportAllocs()
		for b.Loop() {
			target.MetBy(&hash)
		}
	})
}

func BenchmarkFromBits(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := difficulty.FromBits(0x17034219); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTargetDifficulty(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	target := difficulty.Target{rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64() >> 40}
	b.ReportAllocs()
	for b.Loop() {
		target.Difficulty()
	}
}
