package difficulty

import (
	"fmt"
	"math"
	"time"
)

// A Grid is a set of difficulties, from [Min] to [Max], that a pool assigns. Sums of any of them are exact, see
// [Difficulty.Assignable]. The coarser a Grid, the fewer values a pool has to tell miners of, and the further a miner
// is from the rate of shares that was aimed at: at most a factor of sqrt(2) with PowersOfTwo, about 2^(1/4) with
// PowersOfSqrt2. Firmware that cuts fractions off, or that only counts leading zeros, needs a coarse one.
//
// The zero value is AnyDifficulty, which a value that is not one of the constants acts as too.
type Grid uint8

const (
	AnyDifficulty Grid = iota // every whole number, and powers of two below 1
	PowersOfTwo               // as BTCPool and DATUM assign

	// PowersOfSqrt2 has one difficulty between any two powers of two from 2 on: the whole number nearest to their
	// geometric mean. It goes 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64; below 1 it has only powers of two.
	PowersOfSqrt2
)

// String returns the name of the constant.
func (g Grid) String() string {
	switch g {
	case AnyDifficulty:
		return "AnyDifficulty"
	case PowersOfTwo:
		return "PowersOfTwo"
	case PowersOfSqrt2:
		return "PowersOfSqrt2"
	}
	return fmt.Sprintf("Grid(%d)", uint8(g))
}

// Floor returns the largest difficulty of g that is not above d. Zero, a negative d, NaN and whatever is below [Min]
// give Min; +Inf and whatever is above [Max] give Max.
func (g Grid) Floor(d Difficulty) Difficulty {
	p := d.FloorPow2()
	switch {
	case d < 1 || p == Max || !(d > Min):
		return p
	case g == PowersOfTwo:
		return p
	case g == PowersOfSqrt2:
		if m, ok := between(p); ok && d >= m {
			return m
		}
		return p
	}
	return Difficulty(math.Floor(float64(d)))
}

// Ceil returns the smallest difficulty of g that is not below d. Zero, a negative d, NaN and whatever is below [Min]
// give Min; +Inf and whatever is above [Max] give Max.
func (g Grid) Ceil(d Difficulty) Difficulty {
	p := d.CeilPow2()
	switch {
	case d <= 1 || p == Max && d >= Max || !(d > Min):
		return p
	case g == PowersOfTwo:
		return p
	case g == PowersOfSqrt2:
		if m, ok := between(p / 2); ok && d <= m {
			return m
		}
		return p
	}
	return Difficulty(math.Ceil(float64(d)))
}

// Nearest returns the difficulty of g that is nearest to d in ratio: between 1 and 2 it changes at sqrt(2). The lower
// one wins when both are equally near. What is no difficulty or out of range gives what it gives in [Grid.Floor].
func (g Grid) Nearest(d Difficulty) Difficulty {
	lo, hi := g.Floor(d), g.Ceil(d)
	if lo != hi && d*d > lo*hi { // at most 2^124
		return hi
	}
	return lo
}

// between returns what PowersOfSqrt2 has between the power of two p and 2p.
func between(p Difficulty) (m Difficulty, ok bool) {
	return Difficulty(math.Round(float64(p) * math.Sqrt2)), p >= 2 && p < Max
}

// Quantize gives what p wants rounded to the nearest difficulty of g. Before p has wanted anything that is a
// difficulty it gives [Min]; later what is none leaves the last one.
//
// The result is a [Wrapper], and a [Resetter] when p can be reset, which then happens to a difficulty of g. It fails
// when p is nil or g is none of the constants.
func Quantize(p Policy, g Grid) (Policy, error) {
	if err := checkWrapped("quantize", p); err != nil {
		return nil, err
	}
	if g > PowersOfSqrt2 {
		return nil, fmt.Errorf("difficulty: quantize: %v is no grid", g)
	}
	q := &quantized{Policy: p, grid: g, last: Min}
	if r, ok := As[Resetter](p); ok {
		return resettableQuantized{q, r}, nil
	}
	return q, nil
}

type quantized struct {
	Policy
	grid Grid
	last Difficulty
}

func (q *quantized) Unwrap() Policy { return q.Policy }

func (q *quantized) Next(now time.Time) Difficulty {
	if d := q.Policy.Next(now); d.Valid() {
		q.last = q.grid.Nearest(d)
	}
	return q.last
}

type resettableQuantized struct {
	*quantized
	r Resetter
}

func (q resettableQuantized) Reset(d Difficulty) {
	if d.Valid() {
		q.r.Reset(q.grid.Nearest(d))
	}
}
