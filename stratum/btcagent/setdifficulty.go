package btcagent

import (
	"encoding/binary"
	"math"
)

// MaxSetDifficulty is how many workers one MINING_SET_DIFF frame can name.
const MaxSetDifficulty = (MaxBody - 3) / 2

// A SetDifficulty holds a MINING_SET_DIFF frame: some workers have a new difficulty from the next job on. Those that no
// frame has named have that of the first mining.set_difficulty on the connection.
type SetDifficulty struct {
	Exponent   uint8    // the difficulty is 2 to this power, so at least 1 and always a power of two
	SessionIDs []uint16 // of the workers
}

// Decode reads a MINING_SET_DIFF frame. It returns [ErrBody] unless the size fits the number of workers. SessionIDs is
// written into the slice it was before, which grows where needed, and never borrows from the frame.
func (s *SetDifficulty) Decode(f Frame) error {
	ids := s.SessionIDs[:0]
	*s = SetDifficulty{SessionIDs: ids}
	if f.Command != CommandSetDifficulty {
		return ErrCommand
	}
	if len(f.Body) < 3 || len(f.Body) != 3+2*int(binary.LittleEndian.Uint16(f.Body[1:])) {
		return ErrBody
	}
	s.Exponent = f.Body[0]
	for b := f.Body[3:]; len(b) > 0; b = b[2:] {
		ids = append(ids, binary.LittleEndian.Uint16(b))
	}
	s.SessionIDs = ids
	return nil
}

// AppendSetDifficulty appends MINING_SET_DIFF frames that give the workers named the difficulty 2^exponent, in their
// order: one frame, more when there are more than [MaxSetDifficulty], and none for nobody.
func AppendSetDifficulty(dst []byte, exponent uint8, ids ...uint16) []byte {
	for len(ids) > 0 {
		n := min(len(ids), MaxSetDifficulty)
		dst = appendHeader(dst, CommandSetDifficulty, 3+2*n)
		dst = append(dst, exponent)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(n))
		for _, id := range ids[:n] {
			dst = binary.LittleEndian.AppendUint16(dst, id)
		}
		ids = ids[n:]
	}
	return dst
}

// Difficulty returns 2^Exponent.
func (s *SetDifficulty) Difficulty() float64 { return math.Ldexp(1, int(s.Exponent)) }

// Exponent returns that of the largest power of two that is not above a difficulty, which is how to round for a worker of
// an agent: one that is told less than it is judged by loses shares, so judge it by the power. ok is false when no frame
// can say it: below 1, at 2^256 and above, and for what is not a number.
func Exponent(difficulty float64) (exponent uint8, ok bool) {
	if !(difficulty >= 1) || math.IsInf(difficulty, 1) {
		return 0, false
	}
	_, exp := math.Frexp(difficulty) // difficulty is in [2^(exp-1), 2^exp)
	if exp > 256 {
		return 0, false
	}
	return uint8(exp - 1), true
}
