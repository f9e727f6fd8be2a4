package difficulty

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// A Difficulty is a multiple of difficulty 1, the work of 2^32 hashes (more exactly 2^48/65535; pools and miners
// everywhere round it to 2^32). Any positive finite value is a difficulty: one below 1 suits a miner of a few
// thousand hashes a second.
//
// Difficulties that a pool assigns are whole numbers above 1 and powers of two below, so that sums of them are exact
// and do not depend on the order of addition.
type Difficulty float64

// Bounds of what this package assigns. Values outside are valid in arithmetic, but a miner's firmware may not read
// them.
const (
	Min Difficulty = 1.0 / (1 << 32) // one hash, on average
	Max Difficulty = 1 << 62         // the largest power of two that BTCPool's vardiff can assign
)

// HashesPerDifficulty is the expected number of hashes behind a share of difficulty 1.
const HashesPerDifficulty = 1 << 32

// ErrInvalid is returned for a difficulty that is zero, negative, infinite or not a number.
var ErrInvalid = errors.New("difficulty: not a positive finite number")

// Valid reports whether d is positive and finite.
func (d Difficulty) Valid() bool { return d > 0 && !math.IsInf(float64(d), 1) }

// Assignable reports whether sums of d are exact: d is a whole number of at least 1, or a power of two.
func (d Difficulty) Assignable() bool {
	if !d.Valid() {
		return false
	}
	frac, _ := math.Frexp(float64(d))
	return frac == 0.5 || float64(d) == math.Trunc(float64(d))
}

// Parse reads a difficulty in decimal notation, such as "65536", "0.001" or "1e6". Anything else gives an error that
// matches [ErrInvalid], the hexadecimal notation and the digit separators of Go included.
func Parse(s string) (Difficulty, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !Difficulty(f).Valid() || strings.ContainsAny(s, "xX_") {
		return 0, fmt.Errorf("%w: %.100q", ErrInvalid, s)
	}
	return Difficulty(f), nil
}

// String returns d in decimal notation that reads back as the same value: exactly when it is whole and below 2^63, else
// in the shortest form, which has an exponent only below 1e-10 and from 2^63.
func (d Difficulty) String() string {
	if d > -(1<<63) && d < 1<<63 && d == Difficulty(int64(d)) {
		return strconv.FormatInt(int64(d), 10)
	}
	if d > -(1<<63) && d < 1<<63 && (d >= 1e-10 || d <= -1e-10 || d == 0) {
		return strconv.FormatFloat(float64(d), 'f', -1, 64)
	}
	return strconv.FormatFloat(float64(d), 'g', -1, 64)
}

// CeilPow2 returns the smallest power of two that is not below d, within [Min, Max]. Zero, a negative d and NaN give
// Min, +Inf gives Max.
func (d Difficulty) CeilPow2() Difficulty {
	switch {
	case !(d > Min): // NaN too
		return Min
	case d >= Max:
		return Max
	}
	frac, exp := math.Frexp(float64(d)) // d = frac * 2^exp, frac in [0.5, 1)
	if frac == 0.5 {
		exp--
	}
	return Difficulty(math.Ldexp(1, exp))
}

// FloorPow2 returns the largest power of two that is not above d, within [Min, Max]. Zero, a negative d and NaN give
// Min, +Inf gives Max.
func (d Difficulty) FloorPow2() Difficulty {
	switch {
	case !(d > Min):
		return Min
	case d >= Max:
		return Max
	}
	_, exp := math.Frexp(float64(d))
	return Difficulty(math.Ldexp(1, exp-1))
}

// Target returns floor(D1/d), where D1 = 0xffff * 2^208 is the target of difficulty 1: a share of difficulty d is one
// whose hash is not above it. The arithmetic is exact. A quotient of 2^256 or more, which only a d below 2^-32 has,
// gives the largest target; a d that is not valid gives the zero target, which no hash meets.
func (d Difficulty) Target() Target {
	if !d.Valid() {
		return Target{}
	}
	frac, exp := math.Frexp(float64(d))
	m := uint64(math.Ldexp(frac, 53)) // d = m * 2^(exp-53)
	e := exp - 53
	tz := bits.TrailingZeros64(m)
	m >>= tz
	e += tz

	// D1/d = 0xffff * 2^(208-e) / m, with m odd.
	shift := 208 - e
	if m == 1 {
		return shifted(0xffff, shift)
	}
	// Six limbs hold 0xffff * 2^s for any s up to 368; past 2^(256+53) the quotient is above 2^256 in any case.
	if shift > 320 {
		return maxTarget
	}
	if shift < 0 {
		// d = m * 2^e with e above 208. Dropping bits before the division changes nothing: floor(floor(x/a)/b) is
		// floor(x/(a*b)). From 2^224 on no hash but zero meets the target.
		return Target{shifted(0xffff, shift)[0] / m}
	}
	var limbs [6]uint64
	putShifted(limbs[:], 0xffff, shift)
	var rem uint64
	for i := len(limbs) - 1; i >= 0; i-- {
		limbs[i], rem = bits.Div64(rem, limbs[i], m)
	}
	if limbs[4]|limbs[5] != 0 {
		return maxTarget
	}
	return Target{limbs[0], limbs[1], limbs[2], limbs[3]}
}

// shifted returns v * 2^shift, or the largest target when that has more than 256 bits, or floors when shift < 0.
func shifted(v uint64, shift int) Target {
	if shift < 0 {
		if shift <= -64 {
			return Target{}
		}
		return Target{v >> -shift}
	}
	if shift+bits.Len64(v) > 256 {
		return maxTarget
	}
	var t Target
	putShifted(t[:], v, shift)
	return t
}

func putShifted(limbs []uint64, v uint64, shift int) {
	i, s := shift/64, uint(shift%64)
	limbs[i] = v << s
	if s != 0 && i+1 < len(limbs) {
		limbs[i+1] = v >> (64 - s)
	}
}

// ofTarget returns D1/t rounded once to the nearest Difficulty, half to even. It allocates nothing: a share that is
// worth showing gets its difficulty this way.
func ofTarget(t Target) Difficulty {
	n := t.bitLen()
	if n == 0 {
		return Difficulty(math.Inf(1))
	}
	// Both operands are shifted up to 256 bits: D1/t = num/div * 2^(lz-32), and num/div is in (1/2, 2).
	lz := 256 - n
	num, div := Target{3: 0xffff << 48}, t.shiftLeft(lz)
	whole := num.Cmp(div) >= 0
	if whole {
		num = num.minus(div)
	}
	q, rest := num.fraction(div)
	exp := lz - 32 - 64
	if whole { // as a 65th bit in front
		rest = rest || q&1 != 0
		q = 1<<63 | q>>1
		exp++
	}
	if rest {
		q |= 1 // q has 64 bits and a Difficulty 53, so the last one only tells a tie from more than half
	}
	return Difficulty(math.Ldexp(float64(q), exp))
}
