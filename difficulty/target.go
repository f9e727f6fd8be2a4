package difficulty

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
)

// A Target is a 256-bit threshold: a header meets it when its hash, read as a number, is not above it. The limbs are
// in order of significance, the least significant first; Targets are comparable with ==.
type Target [4]uint64

var maxTarget = Target{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}

// One is the target of difficulty 1, 0xffff * 2^208.
var One = Target{0, 0, 0, 0xffff << 16}

// Errors of [FromBits]: which rule of the compact form a value breaks.
var (
	ErrNegativeBits = errors.New("difficulty: compact bits are negative")
	ErrOverflowBits = errors.New("difficulty: compact bits exceed 256 bits")
	ErrZeroBits     = errors.New("difficulty: compact bits are zero")
)

// FromBits expands the compact form of a target as block headers carry it ("bits", "nBits"): the top byte counts
// bytes, the low 23 bits are the most significant of them and bit 23 is a sign. Negative, overflowing and zero values
// are refused, as consensus refuses a block that carries them.
func FromBits(compact uint32) (Target, error) {
	size := int(compact >> 24)
	mantissa := uint64(compact & 0x007fffff)
	shift := 8 * (size - 3)
	t := Target{}
	if mantissa != 0 {
		t = shifted(mantissa, shift)
	}
	// A size below 3 may shift out every digit, and what is zero then has no sign.
	switch {
	case t == Target{}:
		return Target{}, fmt.Errorf("%w: %08x", ErrZeroBits, compact)
	case compact&0x00800000 != 0:
		return Target{}, fmt.Errorf("%w: %08x", ErrNegativeBits, compact)
	case shift+bits.Len64(mantissa) > 256:
		return Target{}, fmt.Errorf("%w: %08x", ErrOverflowBits, compact)
	}
	return t, nil
}

// Bits returns the compact form of t, which keeps its 16 to 23 most significant bits and truncates the rest. The zero
// target gives 0.
func (t Target) Bits() uint32 {
	n := t.bitLen()
	size := (n + 7) / 8
	var mantissa uint64
	if size <= 3 {
		mantissa = t[0] << (8 * (3 - size))
	} else {
		mantissa = t.shiftRight(8 * (size - 3))[0]
	}
	if mantissa&0x00800000 != 0 { // bit 23 is the sign
		mantissa >>= 8
		size++
	}
	return uint32(size)<<24 | uint32(mantissa)
}

// FromHash reads a hash as the number that targets are compared with. The hash is in memory order, as SHA-256d
// returns it: the last byte is the most significant.
func FromHash(hash *[32]byte) Target {
	return Target{
		binary.LittleEndian.Uint64(hash[0:]),
		binary.LittleEndian.Uint64(hash[8:]),
		binary.LittleEndian.Uint64(hash[16:]),
		binary.LittleEndian.Uint64(hash[24:]),
	}
}

// MetBy reports whether hash, in memory order, is not above t.
func (t Target) MetBy(hash *[32]byte) bool {
	// Nearly every hash is decided by its most significant limb.
	if top := binary.LittleEndian.Uint64(hash[24:]); top != t[3] {
		return top < t[3]
	}
	return FromHash(hash).Cmp(t) <= 0
}

// Cmp compares t and u as numbers and returns -1, 0 or +1. The larger target is the easier one.
func (t Target) Cmp(u Target) int {
	for i := 3; i >= 0; i-- {
		switch {
		case t[i] < u[i]:
			return -1
		case t[i] > u[i]:
			return 1
		}
	}
	return 0
}

// Difficulty returns D1/t, rounded once to the nearest value; the zero target gives +Inf.
func (t Target) Difficulty() Difficulty { return ofTarget(t) }

// Bytes returns t in big-endian order, the order of its hexadecimal notation.
func (t Target) Bytes() [32]byte {
	var b [32]byte
	for i, limb := range t {
		binary.BigEndian.PutUint64(b[24-8*i:], limb)
	}
	return b
}

// FromBytes reads a target in big-endian order.
func FromBytes(b *[32]byte) Target {
	var t Target
	for i := range t {
		t[i] = binary.BigEndian.Uint64(b[24-8*i:])
	}
	return t
}

// String returns t as 64 hexadecimal digits, most significant first.
func (t Target) String() string {
	b := t.Bytes()
	return hex.EncodeToString(b[:])
}

// ParseTarget reads 64 hexadecimal digits, most significant first, as nodes and mining.suggest_target write them.
func ParseTarget(s string) (Target, error) {
	var b [32]byte
	if len(s) != 64 {
		return Target{}, fmt.Errorf("difficulty: parse target: %d characters, want 64 hexadecimal digits", len(s))
	}
	if _, err := hex.Decode(b[:], []byte(s)); err != nil {
		return Target{}, fmt.Errorf("difficulty: parse target: %w", err)
	}
	return FromBytes(&b), nil
}

func (t Target) bitLen() int {
	for i := 3; i >= 0; i-- {
		if t[i] != 0 {
			return 64*i + bits.Len64(t[i])
		}
	}
	return 0
}

func (t Target) shiftRight(n int) Target {
	var r Target
	limbs, s := n/64, uint(n%64)
	for i := 0; i+limbs < 4; i++ {
		r[i] = t[i+limbs] >> s
		if s != 0 && i+limbs+1 < 4 {
			r[i] |= t[i+limbs+1] << (64 - s)
		}
	}
	return r
}

func (t Target) shiftLeft(n int) Target {
	var r Target
	limbs, s := n/64, uint(n%64)
	for i := 3; i >= limbs; i-- {
		r[i] = t[i-limbs] << s
		if s != 0 && i > limbs {
			r[i] |= t[i-limbs-1] >> (64 - s)
		}
	}
	return r
}

// minus returns t - u modulo 2^256.
func (t Target) minus(u Target) Target {
	var borrow uint64
	for i := range t {
		t[i], borrow = bits.Sub64(t[i], u[i], borrow)
	}
	return t
}

// fraction returns floor(t * 2^64 / u) and whether that leaves a rest, for t < u and a u of 256 bits. It is one step
// of long division: the leading digits give a quotient that is too large by at most 2 (Knuth, TAOCP volume 2, 4.3.1).
func (t Target) fraction(u Target) (q uint64, rest bool) {
	q = ^uint64(0)
	if t[3] < u[3] {
		q, _ = bits.Div64(t[3], t[2], u[3])
	}
	// r = t * 2^64 - q * u; a borrow means that q is too large.
	var r [5]uint64
	var carry uint64
	for i, limb := range u {
		hi, lo := bits.Mul64(q, limb)
		lo, c := bits.Add64(lo, carry, 0)
		r[i], carry = lo, hi+c
	}
	r[4] = carry
	var borrow uint64
	r[0], borrow = bits.Sub64(0, r[0], 0)
	for i, limb := range t {
		r[i+1], borrow = bits.Sub64(limb, r[i+1], borrow)
	}
	for borrow != 0 {
		q--
		var c uint64
		for i, limb := range u {
			r[i], c = bits.Add64(r[i], limb, c)
		}
		r[4], c = bits.Add64(r[4], 0, c)
		borrow -= c
	}
	return q, r != [5]uint64{}
}
