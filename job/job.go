package job

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/difficulty"
)

// ExtranonceSize is the room that every coinbase keeps for the extranonce, in bytes: 4 that the pool gives to a
// session (extranonce1) and 8 that the miner counts through (extranonce2). A session with a shorter extranonce2 gets
// zero bytes in front of its extranonce1.
const (
	Extranonce1Size = 4
	Extranonce2Size = 8
	ExtranonceSize  = Extranonce1Size + Extranonce2Size
)

// HeaderSize is the size of a block header in bytes.
const HeaderSize = 80

// ErrUnknownJob is returned where a job id does not name a job that can still be mined.
var ErrUnknownJob = errors.New("job: unknown job")

// A Job is a unit of work that can be given to any number of miners. It is immutable: whoever holds one may read every
// field at any time and must change none. Jobs are made by [Builder.Build], or by [New] from the fields of a message.
type Job struct {
	ID    ID
	Chain Chain

	// TemplateID is the ID of the template the job was built from. Template is that template where the job was made
	// in this process, and nil where it came over a bus.
	TemplateID chainhash.Hash
	Template   *Template

	Height   int32
	PrevHash chainhash.Hash
	Version  int32
	Bits     uint32
	Time     uint32 // header time proposed, Unix seconds
	MinTime  uint32 // lowest header time allowed
	MaxTime  uint32 // highest header time the node allows; 0 when it names none

	// Coinb1 and Coinb2 are the coinbase transaction, serialised without witness, before and after the
	// ExtranonceSize bytes of the extranonce.
	Coinb1, Coinb2 []byte

	// Branch holds the hashes that lead from the coinbase to the merkle root, in memory order.
	Branch []chainhash.Hash

	CoinbaseValue     int64  // sum of the coinbase outputs, satoshi
	WitnessCommitment []byte // output script, empty when the block has none

	// Clean orders miners to drop what they have: the job is the first one on a new tip, or stands for one that the
	// receiver missed.
	Clean bool

	target difficulty.Target
	work   chainhash.Hash
}

// New checks and completes a job made from its fields, for sources that do not go through a [Builder]. It returns a
// copy that shares the slices of j.
func New(j Job) (*Job, error) {
	target, err := difficulty.FromBits(j.Bits)
	if err != nil {
		return nil, fmt.Errorf("job: new job %d: %w", j.ID, err)
	}
	switch {
	case len(j.Coinb1) < 42:
		return nil, fmt.Errorf("job: new job %d: coinb1 of %d bytes is too short for a coinbase", j.ID, len(j.Coinb1))
	case len(j.Coinb2) < 8:
		return nil, fmt.Errorf("job: new job %d: coinb2 of %d bytes is too short for a coinbase", j.ID, len(j.Coinb2))
	case len(j.Branch) > 32:
		return nil, fmt.Errorf("job: new job %d: %d merkle steps, at most 32 make sense", j.ID, len(j.Branch))
	case j.Height < 0:
		return nil, fmt.Errorf("job: new job %d: negative height %d", j.ID, j.Height)
	}
	j.target = target
	j.work = j.hashWork()
	return &j, nil
}

// Target returns the network target, which a header must meet to be a block.
func (j *Job) Target() difficulty.Target { return j.target }

// Empty reports whether the block would hold the coinbase only.
func (j *Job) Empty() bool { return len(j.Branch) == 0 }

// WorkID identifies what the job has miners search through: jobs that differ in their ID only, as those of two makers
// with one template can, have the same. A header found for one is then a header of the other.
func (j *Job) WorkID() chainhash.Hash { return j.work }

// SameWork reports whether j and k have the same search space: a share for one is the same share for the other.
func (j *Job) SameWork(k *Job) bool { return j.work == k.work }

// hashWork hashes all of a header that neither the miner nor the clock decides.
func (j *Job) hashWork() (work chainhash.Hash) {
	h := sha256.New()
	var n [12]byte
	binary.LittleEndian.PutUint32(n[:], j.Bits)
	binary.LittleEndian.PutUint32(n[4:], uint32(len(j.Coinb1))) // so that no bytes can be moved between the parts
	binary.LittleEndian.PutUint32(n[8:], uint32(len(j.Coinb2)))
	for _, part := range [][]byte{n[:], j.PrevHash[:], j.Coinb1, j.Coinb2} {
		h.Write(part)
	}
	for i := range j.Branch {
		h.Write(j.Branch[i][:])
	}
	h.Sum(work[:0])
	return work
}

// AppendCoinbase appends the coinbase transaction, serialised without witness, with the given extranonce.
func (j *Job) AppendCoinbase(dst []byte, extranonce *[ExtranonceSize]byte) []byte {
	dst = append(dst, j.Coinb1...)
	dst = append(dst, extranonce[:]...)
	return append(dst, j.Coinb2...)
}

// MerkleRoot returns the root of the block's merkle tree for the given extranonce. It does not allocate for coinbases
// of up to 1 KiB, which is more than most firmware takes.
func (j *Job) MerkleRoot(extranonce *[ExtranonceSize]byte) chainhash.Hash {
	var buf [1024]byte
	return MerkleRoot(j.AppendCoinbase(buf[:0], extranonce), j.Branch)
}

// AppendHeader appends the 80 bytes of the block header for the given extranonce, version, time and nonce.
func (j *Job) AppendHeader(dst []byte, extranonce *[ExtranonceSize]byte, version int32, ntime, nonce uint32) []byte {
	root := j.MerkleRoot(extranonce)
	return appendHeader(dst, version, &j.PrevHash, &root, ntime, j.Bits, nonce)
}

func appendHeader(dst []byte, version int32, prev, root *chainhash.Hash, ntime, bits, nonce uint32) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(version))
	dst = append(dst, prev[:]...)
	dst = append(dst, root[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, ntime)
	dst = binary.LittleEndian.AppendUint32(dst, bits)
	return binary.LittleEndian.AppendUint32(dst, nonce)
}

// MerkleRoot hashes a coinbase transaction, serialised without witness, up the merkle branch.
func MerkleRoot(coinbase []byte, branch []chainhash.Hash) chainhash.Hash {
	root := doubleSHA256(coinbase)
	var pair [64]byte
	for i := range branch {
		copy(pair[:32], root[:])
		copy(pair[32:], branch[i][:])
		root = doubleSHA256(pair[:])
	}
	return root
}

// MerkleBranch returns the hashes that lead from a coinbase to the merkle root of a block whose other transactions
// have the given ids, in block order. An odd row is filled up with its last hash, as in the block itself.
func MerkleBranch(txids []chainhash.Hash) []chainhash.Hash {
	if len(txids) == 0 {
		return nil
	}
	row := append([]chainhash.Hash(nil), txids...)
	var branch []chainhash.Hash
	var pair [64]byte
	for len(row) > 1 {
		branch = append(branch, row[0])
		if len(row)%2 == 0 {
			row = append(row, row[len(row)-1])
		}
		next := row[:0]
		for i := 1; i < len(row); i += 2 {
			copy(pair[:32], row[i][:])
			copy(pair[32:], row[i+1][:])
			next = append(next, doubleSHA256(pair[:]))
		}
		row = next
	}
	return append(branch, row[0])
}

// doubleSHA256 is chainhash.DoubleHashH without the detour through an interface, so that its argument can stay on the
// caller's stack.
func doubleSHA256(b []byte) chainhash.Hash {
	first := sha256.Sum256(b)
	return sha256.Sum256(first[:])
}
