package blocktest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// A Node is a node in memory, a [block.Submitter] and a [block.Confirmer]. It checks the form of a block, its proof of
// work, its merkle root and its witness commitment, and follows the chain with the most blocks. It knows nothing of the
// transactions themselves; package regtest has a chain that does. The zero value is a node whose tip is the zero hash.
type Node struct {
	mu     sync.Mutex
	down   error
	blocks map[chainhash.Hash]nodeBlock
	tip    chainhash.Hash
}

type nodeBlock struct {
	prev   chainhash.Hash
	height int32
}

// ErrDown is what a Node answers while it is down.
var ErrDown = errors.New("blocktest: node is down")

// SetDown makes every call fail with [ErrDown], or no longer.
func (n *Node) SetDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = nil
	if down {
		n.down = ErrDown
	}
}

// Tip returns the hash of the last block of the best chain and how many blocks that has.
func (n *Node) Tip() (chainhash.Hash, int32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.tip, n.blocks[n.tip].height
}

// Submit implements [block.Submitter].
func (n *Node) Submit(ctx context.Context, raw []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down != nil {
		return n.down
	}
	hash, prev, reason := judge(raw)
	if reason != "" {
		return &block.RejectedError{Reason: reason}
	}
	if _, ok := n.blocks[hash]; ok {
		return block.ErrDuplicate
	}
	parent, ok := n.blocks[prev]
	if !ok && prev != (chainhash.Hash{}) {
		return errors.New("blocktest: prev-blk-not-found") // it may come yet
	}
	if n.blocks == nil {
		n.blocks = make(map[chainhash.Hash]nodeBlock)
	}
	n.blocks[hash] = nodeBlock{prev, parent.height + 1}
	if parent.height+1 <= n.blocks[n.tip].height {
		return block.ErrStale
	}
	n.tip = hash
	return nil
}

// Confirmations implements [block.Confirmer].
func (n *Node) Confirmations(ctx context.Context, hash chainhash.Hash) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down != nil {
		return 0, n.down
	}
	if _, ok := n.blocks[hash]; !ok {
		return 0, block.ErrUnknownBlock
	}
	depth := int64(1)
	for at := n.tip; at != hash; at = n.blocks[at].prev {
		if at == (chainhash.Hash{}) {
			return -1, nil
		}
		depth++
	}
	return depth, nil
}

// judge returns why a block is bad, in the words of BIP 22 where it has some.
func judge(raw []byte) (hash, prev chainhash.Hash, reason string) {
	var b wire.MsgBlock
	r := bytes.NewReader(raw)
	if b.Deserialize(r) != nil || r.Len() != 0 || len(b.Transactions) == 0 {
		return hash, prev, "rejected: block does not decode"
	}
	hash, prev = b.BlockHash(), b.Header.PrevBlock
	target, err := difficulty.FromBits(b.Header.Bits)
	if err != nil || !target.MetBy((*[32]byte)(&hash)) {
		return hash, prev, "high-hash"
	}
	ids := make([]chainhash.Hash, len(b.Transactions))
	witnesses := make([]job.Transaction, len(b.Transactions)-1)
	segwit := false
	for i, tx := range b.Transactions {
		ids[i] = tx.TxHash()
		if i > 0 {
			witnesses[i-1] = job.Transaction{TxID: ids[i], WTxID: tx.WitnessHash()}
			segwit = segwit || tx.HasWitness()
		}
	}
	if merkleRoot(ids) != b.Header.MerkleRoot {
		return hash, prev, "bad-txnmrklroot"
	}
	coinbase := b.Transactions[0]
	var commitment []byte
	for _, out := range coinbase.TxOut {
		if len(out.PkScript) >= 38 && bytes.HasPrefix(out.PkScript, []byte{0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed}) {
			commitment = out.PkScript[:38]
		}
	}
	switch {
	case commitment == nil && (segwit || coinbase.HasWitness()):
		return hash, prev, "unexpected-witness"
	case commitment == nil:
		return hash, prev, ""
	case len(coinbase.TxIn[0].Witness) != 1 || len(coinbase.TxIn[0].Witness[0]) != 32:
		return hash, prev, "bad-witness-nonce-size"
	case !bytes.Equal(job.WitnessCommitment(witnesses), commitment):
		return hash, prev, "bad-witness-merkle-match"
	}
	return hash, prev, ""
}

// merkleRoot computes the root row by row, which is not how the code under test does it.
func merkleRoot(row []chainhash.Hash) chainhash.Hash {
	for len(row) > 1 {
		if len(row)%2 == 1 {
			row = append(row, row[len(row)-1])
		}
		next := make([]chainhash.Hash, 0, len(row)/2)
		for i := 0; i < len(row); i += 2 {
			next = append(next, chainhash.DoubleHashH(append(row[i].CloneBytes(), row[i+1][:]...)))
		}
		row = next
	}
	return row[0]
}

// easyBits is the target of regtest, which every second hash meets.
const easyBits = 0x207fffff

// NewTemplate returns a template on top of prev with n transactions, every second of which has a witness. The
// transactions spend nothing that exists.
func NewTemplate(prev chainhash.Hash, height int32, n int) *job.Template {
	target, _ := difficulty.FromBits(easyBits)
	t := &job.Template{
		PrevHash: prev, Height: height, Version: 0x20000000, Bits: easyBits, Target: target,
		CurTime: 1700000000 + uint32(height), MinTime: 1700000000, CoinbaseValue: 50e8, Received: time.Now(),
	}
	for i := range n {
		t.Transactions = append(t.Transactions, transaction(height, i))
	}
	t.WitnessCommitment = job.WitnessCommitment(t.Transactions)
	id := binary.LittleEndian.AppendUint32(prev.CloneBytes(), uint32(height))
	t.ID = chainhash.DoubleHashH(binary.LittleEndian.AppendUint32(id, uint32(n)))
	return t
}

func transaction(height int32, i int) job.Transaction {
	var tx wire.MsgTx
	tx.Version = 2
	in := wire.NewTxIn(&wire.OutPoint{Hash: chainhash.HashH(fmt.Append(nil, height, i))}, nil, nil)
	if i%2 == 1 {
		in.Witness = wire.TxWitness{make([]byte, 71), make([]byte, 33)}
	}
	tx.AddTxIn(in)
	tx.AddTxOut(wire.NewTxOut(1000+int64(i), make([]byte, 22)))
	var buf bytes.Buffer
	_ = tx.Serialize(&buf) // a Buffer takes everything
	return job.Transaction{Data: buf.Bytes(), TxID: tx.TxHash(), WTxID: tx.WitnessHash(), Fee: 100, SigOps: -1}
}

// Solve returns a job on t and a solution of it. Different values of extra give different blocks.
func Solve(t *job.Template, extra uint64) (*job.Job, *share.Solution) {
	coinb1 := []byte{2, 0, 0, 0, 1}
	coinb1 = append(coinb1, make([]byte, 32)...)
	coinb1 = append(coinb1, 0xff, 0xff, 0xff, 0xff, 5+job.ExtranonceSize, 4)
	coinb1 = binary.LittleEndian.AppendUint32(coinb1, uint32(t.Height))
	coinb2 := []byte{0xff, 0xff, 0xff, 0xff, 2}
	coinb2 = binary.LittleEndian.AppendUint64(coinb2, uint64(t.CoinbaseValue))
	coinb2 = append(append(coinb2, 22, 0, 20), make([]byte, 20)...)
	coinb2 = append(coinb2, make([]byte, 8)...)
	coinb2 = append(append(coinb2, byte(len(t.WitnessCommitment))), t.WitnessCommitment...)
	coinb2 = append(coinb2, 0, 0, 0, 0)

	ids := make([]chainhash.Hash, len(t.Transactions))
	for i := range ids {
		ids[i] = t.Transactions[i].TxID
	}
	j, err := job.New(job.Job{
		ID: job.ID(uint64(t.CurTime)<<32 | 1), TemplateID: t.ID, Template: t, Height: t.Height, PrevHash: t.PrevHash,
		Version: t.Version, Bits: t.Bits, Time: t.CurTime, MinTime: t.MinTime, Coinb1: coinb1, Coinb2: coinb2,
		Branch: job.MerkleBranch(ids), CoinbaseValue: t.CoinbaseValue, WitnessCommitment: t.WitnessCommitment,
	})
	if err != nil {
		panic("blocktest: solve: " + err.Error()) // bits that are no target
	}
	var extranonce [job.ExtranonceSize]byte
	binary.BigEndian.PutUint64(extranonce[4:], extra)
	s := &share.Solution{
		Job: j, JobID: j.ID, Height: j.Height, Coinbase: j.AppendCoinbase(nil, &extranonce),
		Worker: share.Worker{User: "alice", Name: "rig1"}, UserID: 42, Found: time.Now(),
	}
	s.WorkerID = s.Worker.ID()
	target := j.Target()
	header := j.AppendHeader(nil, &extranonce, j.Version, j.Time, 0)
	for nonce := uint32(0); ; nonce++ {
		binary.LittleEndian.PutUint32(header[76:], nonce)
		s.Hash = chainhash.DoubleHashH(header)
		if target.MetBy((*[32]byte)(&s.Hash)) {
			copy(s.Header[:], header)
			return j, s
		}
	}
}
