package rpcblock_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/blocktest"
	"github.com/poolkit/poolkit/block/rpcblock"
	"github.com/poolkit/poolkit/internal/testnode"
	"github.com/poolkit/poolkit/job"
	"github.com/stretchr/testify/require"
)

// A miner makes blocks for a btcd.
type miner struct {
	*testnode.Node
	*rpcblock.Submitter
	extra int64 // makes each coinbase another one
}

func newMiner(t *testing.T) *miner {
	t.Helper()
	n := testnode.Start(t, nil)
	s, err := rpcblock.New(n.Node(), nil)
	require.NoError(t, err)
	return &miner{Node: n, Submitter: s}
}

// solve returns a solved block on prev, whose own time is prevTime, and its hash.
func (m *miner) solve(t *testing.T, prev chainhash.Hash, prevTime time.Time, height int32, txs ...*wire.MsgTx) ([]byte, chainhash.Hash) {
	t.Helper()
	m.extra++
	script, err := txscript.NewScriptBuilder().AddInt64(int64(height)).AddInt64(m.extra).AddData([]byte("poolkit")).Script()
	require.NoError(t, err)
	coinbase := wire.NewMsgTx(1)
	coinbase.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&chainhash.Hash{}, wire.MaxPrevOutIndex), script, nil))
	coinbase.AddTxOut(wire.NewTxOut(50e8, []byte{txscript.OP_TRUE}))
	if len(txs) > 0 {
		var rest []job.Transaction
		for _, tx := range txs {
			rest = append(rest, job.Transaction{WTxID: tx.WitnessHash()})
		}
		coinbase.TxIn[0].Witness = wire.TxWitness{make([]byte, 32)}
		coinbase.AddTxOut(wire.NewTxOut(0, job.WitnessCommitment(rest)))
	}
	var all []*btcutil.Tx
	b := wire.MsgBlock{Header: wire.BlockHeader{
		Version: 0x20000000, PrevBlock: prev, Timestamp: prevTime.Add(time.Second), Bits: testnode.Params().PowLimitBits,
	}}
	for _, tx := range append([]*wire.MsgTx{coinbase}, txs...) {
		b.Transactions = append(b.Transactions, tx)
		all = append(all, btcutil.NewTx(tx))
	}
	b.Header.MerkleRoot = blockchain.CalcMerkleRoot(all, false)
	target := blockchain.CompactToBig(b.Header.Bits)
	for hash := b.BlockHash(); blockchain.HashToBig(&hash).Cmp(target) > 0; hash = b.BlockHash() {
		b.Header.Nonce++
	}
	var raw bytes.Buffer
	require.NoError(t, b.Serialize(&raw))
	return raw.Bytes(), b.BlockHash()
}

// next returns a solved block on the node's tip.
func (m *miner) next(t *testing.T, txs ...*wire.MsgTx) ([]byte, chainhash.Hash) {
	t.Helper()
	tip := m.Tip()
	return m.solve(t, tip, m.Block(tip).Header.Timestamp, m.Height()+1, txs...)
}

func (m *miner) block(t *testing.T) []byte {
	t.Helper()
	raw, _ := m.next(t)
	return raw
}

// stale returns a block on the tip's parent.
func (m *miner) stale(t *testing.T) ([]byte, chainhash.Hash) {
	t.Helper()
	m.Generate(1)
	tip := m.Block(m.Tip())
	parent := m.Block(tip.Header.PrevBlock)
	return m.solve(t, tip.Header.PrevBlock, parent.Header.Timestamp, m.Height())
}

func TestSubmitterOnBTCD(t *testing.T) {
	blocktest.TestSubmitter(t, func(t *testing.T) blocktest.SubmitterBackend {
		m := newMiner(t)
		return blocktest.SubmitterBackend{
			Submitter: m.Submitter,
			Block:     m.block,
			Stale:     func(t *testing.T) []byte { raw, _ := m.stale(t); return raw },
			Down:      func(*testing.T) { m.Stop() },
			Up:        func(*testing.T) { m.Start() },
		}
	})
}

func TestConfirmerOnBTCD(t *testing.T) {
	blocktest.TestConfirmer(t, func(t *testing.T) blocktest.ConfirmerBackend {
		m := newMiner(t)
		return blocktest.ConfirmerBackend{
			Confirmer: m.Submitter,
			Extend:    func(*testing.T) chainhash.Hash { return m.Generate(1)[0] },
			Orphan: func(t *testing.T) chainhash.Hash {
				raw, hash := m.stale(t)
				require.ErrorIs(t, m.Submit(t.Context(), raw), block.ErrStale)
				return hash
			},
		}
	})
}

func TestBlockWithWitnessesReachesBTCDsChain(t *testing.T) {
	m := newMiner(t)
	first := m.Generate(101)[0]
	spend := m.Spend(m.Block(first).Transactions[0], 1000)
	raw, hash := m.next(t, spend)
	require.NoError(t, m.Submit(t.Context(), raw))
	require.Equal(t, hash, m.Tip())
	require.Equal(t, int32(102), m.Height())
	got := m.Block(hash)
	require.Equal(t, spend.WitnessHash(), got.Transactions[1].WitnessHash())
	require.Contains(t, string(got.Transactions[0].TxIn[0].SignatureScript), "poolkit")

	// A block that is refused when it is connected is refused again, though btcd calls it one that it has.
	var rejected *block.RejectedError
	bad := m.Spend(got.Transactions[1], 1000)
	bad.TxIn[0].Witness[0][10] ^= 1
	raw, _ = m.next(t, bad)
	require.ErrorAs(t, m.Submit(t.Context(), raw), &rejected)
	require.Contains(t, rejected.Reason, "failed to validate input")
	require.NotContains(t, rejected.Reason, "rejected")
	require.ErrorAs(t, m.Submit(t.Context(), raw), &rejected)
}

// btcd answers null to a block without a parent, keeps it, and calls it a duplicate from then on.
func TestBTCDWithoutTheParent(t *testing.T) {
	m := newMiner(t)
	parent, parentHash := m.next(t)
	child, childHash := m.solve(t, parentHash, time.Now(), 2)
	for range 2 {
		err := m.Submit(t.Context(), child)
		require.ErrorIs(t, err, rpcblock.ErrUnknownParent)
		require.False(t, errors.Is(err, block.ErrDuplicate) || errors.Is(err, block.ErrStale))
	}
	require.NoError(t, m.Submit(t.Context(), parent))
	require.ErrorIs(t, m.Submit(t.Context(), child), block.ErrDuplicate, "it was connected with its parent")
	n, err := m.Confirmations(t.Context(), childHash)
	require.NoError(t, err)
	require.Equal(t, int64(1), n)
}
