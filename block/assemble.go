package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// What [Assemble] can find wrong with a block that it returns all the same. They are wrapped in an [*AdvisoryError].
var (
	// ErrMerkleRoot means that the header does not commit to this coinbase and these transactions.
	ErrMerkleRoot = errors.New("merkle root mismatch")

	// ErrWitnessCommitment means that the coinbase does not commit to the witnesses of these transactions (BIP 141).
	ErrWitnessCommitment = errors.New("witness commitment mismatch")

	// ErrCoinbase means that the coinbase is not one well-formed coinbase transaction.
	ErrCoinbase = errors.New("malformed coinbase")

	// ErrHighHash means that the hash of the header does not meet the target in the header.
	ErrHighHash = errors.New("hash above the target")
)

// An AdvisoryError accompanies a block that looks wrong to this package. The block is complete and should be submitted:
// the nodes decide, and a mistake here must not cost a block. [errors.Is] finds each thing that is wrong, such as
// [ErrMerkleRoot].
type AdvisoryError struct{ Err error }

// Error describes everything that looks wrong.
func (e *AdvisoryError) Error() string { return "block: advisory: " + e.Err.Error() }

// Unwrap returns what looks wrong, joined.
func (e *AdvisoryError) Unwrap() error { return e.Err }

// witnessReserved is the size of the coinbase witness that Assemble adds.
const witnessReserved = 1 + 1 + 32 // one stack item, its length, 32 zero bytes

// Assemble returns the serialised block that s solves: its header, its coinbase and txs in the order given, which is
// that of the template.
//
// A coinbase that has a witness commitment among its outputs gets the witness that BIP 141 asks for, one item of 32
// zero bytes, unless it comes with a witness of its own. This changes neither its id nor the merkle root.
//
// Assemble then compares the block with itself. What does not fit is returned as an [*AdvisoryError] beside the complete
// block, which the caller should submit nonetheless. Any other error means that there is no block: s is nil or has no
// coinbase.
func Assemble(s *share.Solution, txs []job.Transaction) ([]byte, error) {
	if s == nil || len(s.Coinbase) == 0 {
		return nil, errors.New("block: assemble: solution without a coinbase")
	}
	var problems []error

	size := job.HeaderSize + 9 + len(s.Coinbase) + 2 + witnessReserved
	for i := range txs {
		size += len(txs[i].Data)
	}
	block := make([]byte, 0, size)
	block = append(block, s.Header[:]...)
	block = appendVarint(block, uint64(len(txs))+1)

	coinbase, err := parseCoinbase(s.Coinbase)
	commitment := []byte(nil)
	if err != nil {
		problems = append(problems, fmt.Errorf("%w: %w", ErrCoinbase, err))
		block = append(block, s.Coinbase...)
	} else {
		commitment = coinbaseCommitment(coinbase)
		if commitment != nil && !coinbase.HasWitness() {
			block = appendWitness(block, s.Coinbase)
		} else {
			block = append(block, s.Coinbase...)
		}
	}
	for i := range txs {
		block = append(block, txs[i].Data...)
	}

	if root, want := merkleRootOf(coinbase, s.Coinbase, txs), headerRoot(&s.Header); root != want {
		problems = append(problems, fmt.Errorf("%w: the header has %v, coinbase and %d transactions have %v",
			ErrMerkleRoot, want, len(txs), root))
	}
	if coinbase != nil {
		if err := checkCommitment(coinbase, commitment, txs); err != nil {
			problems = append(problems, err)
		}
	}
	bits := headerBits(&s.Header)
	hash := chainhash.DoubleHashH(s.Header[:])
	if target, err := difficulty.FromBits(bits); err != nil {
		problems = append(problems, fmt.Errorf("%w: %w", ErrHighHash, err))
	} else if !target.MetBy((*[32]byte)(&hash)) {
		problems = append(problems, fmt.Errorf("%w: %v, bits %08x", ErrHighHash, hash, bits))
	}
	if len(problems) > 0 {
		return block, &AdvisoryError{errors.Join(problems...)}
	}
	return block, nil
}

// parseCoinbase reads a coinbase transaction, with or without witness.
func parseCoinbase(b []byte) (*wire.MsgTx, error) {
	tx := new(wire.MsgTx)
	r := bytes.NewReader(b)
	if err := tx.Deserialize(r); err != nil {
		return nil, err
	}
	switch {
	case r.Len() != 0:
		return nil, fmt.Errorf("%d bytes after the end of the transaction", r.Len())
	case len(tx.TxIn) != 1:
		return nil, fmt.Errorf("%d inputs, want 1", len(tx.TxIn))
	case tx.TxIn[0].PreviousOutPoint != wire.OutPoint{Index: wire.MaxPrevOutIndex}:
		return nil, fmt.Errorf("the input spends %v", tx.TxIn[0].PreviousOutPoint)
	}
	return tx, nil
}

// commitmentPrefix starts the output script that commits to the witnesses; 32 bytes of hash follow (BIP 141).
var commitmentPrefix = []byte{0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed}

const commitmentSize = 6 + 32

// coinbaseCommitment returns the script of the witness commitment, or nil. Where several outputs look like one, the
// last of them counts (BIP 141).
func coinbaseCommitment(tx *wire.MsgTx) []byte {
	for i := len(tx.TxOut) - 1; i >= 0; i-- {
		if script := tx.TxOut[i].PkScript; len(script) >= commitmentSize && bytes.HasPrefix(script, commitmentPrefix) {
			return script
		}
	}
	return nil
}

// checkCommitment compares the commitment with the transactions. It knows the reserved value that this package writes,
// and has nothing to say where a coinbase brought its own.
func checkCommitment(coinbase *wire.MsgTx, commitment []byte, txs []job.Transaction) error {
	if commitment == nil {
		for i := range txs {
			if txs[i].TxID != txs[i].WTxID {
				return fmt.Errorf("%w: transaction %d has a witness and the coinbase commits to none",
					ErrWitnessCommitment, i+1)
			}
		}
		if coinbase.HasWitness() {
			return fmt.Errorf("%w: the coinbase has a witness and no commitment", ErrWitnessCommitment)
		}
		return nil
	}
	if coinbase.HasWitness() {
		return nil
	}
	if want := job.WitnessCommitment(txs); !bytes.Equal(want, commitment[:commitmentSize]) {
		return fmt.Errorf("%w: the coinbase has %x, the transactions have %x", ErrWitnessCommitment,
			commitment[len(commitmentPrefix):commitmentSize], want[len(commitmentPrefix):])
	}
	return nil
}

// appendWitness appends a coinbase that is serialised without witness in the form with one (BIP 144), the reserved
// value of 32 zero bytes.
func appendWitness(dst, coinbase []byte) []byte {
	version, body, locktime := coinbase[:4], coinbase[4:len(coinbase)-4], coinbase[len(coinbase)-4:]
	dst = append(dst, version...)
	dst = append(dst, 0, 1)
	dst = append(dst, body...)
	dst = append(dst, 1, 32)
	dst = append(dst, make([]byte, 32)...)
	return append(dst, locktime...)
}

// merkleRootOf returns the root over a coinbase and the transactions after it. A coinbase that cannot be parsed is nil,
// and hashed as it is.
func merkleRootOf(coinbase *wire.MsgTx, raw []byte, txs []job.Transaction) chainhash.Hash {
	return branchRoot(coinbaseID(coinbase, raw), job.MerkleBranch(txids(txs)))
}

func coinbaseID(coinbase *wire.MsgTx, raw []byte) chainhash.Hash {
	if coinbase == nil || !coinbase.HasWitness() {
		return chainhash.DoubleHashH(raw)
	}
	return coinbase.TxHash()
}

func txids(txs []job.Transaction) []chainhash.Hash {
	ids := make([]chainhash.Hash, len(txs))
	for i := range txs {
		ids[i] = txs[i].TxID
	}
	return ids
}

// branchRoot is [job.MerkleRoot] for a coinbase of which the id is known.
func branchRoot(id chainhash.Hash, branch []chainhash.Hash) chainhash.Hash {
	var pair [64]byte
	for i := range branch {
		copy(pair[:32], id[:])
		copy(pair[32:], branch[i][:])
		id = chainhash.DoubleHashH(pair[:])
	}
	return id
}

// The fields of a header that this package reads; layout version(4) prev(32) root(32) time(4) bits(4) nonce(4), all
// numbers little-endian.
func headerVersion(h *[job.HeaderSize]byte) int32 { return int32(binary.LittleEndian.Uint32(h[0:])) }

func headerPrev(h *[job.HeaderSize]byte) chainhash.Hash { return chainhash.Hash(h[4:36]) }

func headerRoot(h *[job.HeaderSize]byte) chainhash.Hash { return chainhash.Hash(h[36:68]) }

func headerNonce(h *[job.HeaderSize]byte) uint32 { return binary.LittleEndian.Uint32(h[76:]) }

func headerBits(h *[job.HeaderSize]byte) uint32 { return binary.LittleEndian.Uint32(h[72:]) }

// appendVarint appends a compact size as blocks and transactions count with.
func appendVarint(dst []byte, n uint64) []byte {
	switch {
	case n < 0xfd:
		return append(dst, byte(n))
	case n <= 0xffff:
		return binary.LittleEndian.AppendUint16(append(dst, 0xfd), uint16(n))
	case n <= 0xffffffff:
		return binary.LittleEndian.AppendUint32(append(dst, 0xfe), uint32(n))
	}
	return binary.LittleEndian.AppendUint64(append(dst, 0xff), n)
}
