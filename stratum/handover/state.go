package handover

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The state goes over in pieces, since its length is not known before its end:
//
//	| length, 1 to 65536, uint32 | bytes | … | 0, uint32 | length of all, uint64 | SHA-256 of all |
//
// Integers are little-endian. The last part says that everything is the reader's own from here on, so what is cut off
// anywhere is never mistaken for a whole.
const maxPiece = 64 << 10

func writeState(w io.Writer, state io.Reader, limit int64) error {
	sum := sha256.New()
	total := int64(0)
	piece := make([]byte, 4+maxPiece)
	for {
		n, err := state.Read(piece[4:])
		if n > 0 {
			if total += int64(n); total > limit {
				return fmt.Errorf("the state has more than %d bytes", limit)
			}
			binary.LittleEndian.PutUint32(piece, uint32(n))
			sum.Write(piece[4 : 4+n])
			if _, err := w.Write(piece[:4+n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the state: %w", err)
		}
	}
	end := binary.LittleEndian.AppendUint32(piece[:0], 0)
	end = binary.LittleEndian.AppendUint64(end, uint64(total))
	_, err := w.Write(sum.Sum(end))
	return err
}

// readState reads all of a state or nothing. It returns io.ErrUnexpectedEOF when the end is missing. Memory grows with
// what has come, not with what was announced.
func readState(r io.Reader, limit int64) ([]byte, error) {
	var state bytes.Buffer
	for {
		var head [4]byte
		if err := readFull(r, head[:]); err != nil {
			return nil, err
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n == 0 {
			break
		}
		if n > maxPiece {
			return nil, fmt.Errorf("a piece of %d bytes, the most is %d", n, maxPiece)
		}
		if int64(state.Len())+int64(n) > limit {
			return nil, fmt.Errorf("the state has more than %d bytes", limit)
		}
		state.Grow(int(n))
		if err := readFull(r, state.AvailableBuffer()[:n]); err != nil {
			return nil, err
		}
		state.Write(state.AvailableBuffer()[:n])
	}
	var end [8 + sha256.Size]byte
	if err := readFull(r, end[:]); err != nil {
		return nil, err
	}
	if total := binary.LittleEndian.Uint64(end[:]); total != uint64(state.Len()) {
		return nil, fmt.Errorf("the state has %d bytes, announced are %d", state.Len(), total)
	}
	if sum := sha256.Sum256(state.Bytes()); !bytes.Equal(sum[:], end[8:]) {
		return nil, errors.New("the state does not match its checksum")
	}
	return state.Bytes(), nil
}

func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
