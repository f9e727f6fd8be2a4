package blocktest_test

import (
	"errors"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/blocktest"
)

// A miner makes blocks for a Node.
type miner struct {
	node  blocktest.Node
	extra uint64
	next  chainhash.Hash // parent of the next block, which may not be submitted yet
	on    int32
}

// mine returns a block on top of the last one it returned.
func (m *miner) mine(t *testing.T) ([]byte, chainhash.Hash) {
	raw, hash := m.mineOn(t, m.next, m.on+1)
	m.next, m.on = hash, m.on+1
	return raw, hash
}

func (m *miner) mineOn(t *testing.T, prev chainhash.Hash, height int32) ([]byte, chainhash.Hash) {
	t.Helper()
	m.extra++
	tmpl := blocktest.NewTemplate(prev, height, 3)
	_, s := blocktest.Solve(tmpl, m.extra)
	raw, err := block.Assemble(s, tmpl.Transactions)
	require.NoError(t, err)
	return raw, s.Hash
}

// block returns a block for the tip that the node has now.
func (m *miner) block(t *testing.T) []byte {
	tip, height := m.node.Tip()
	raw, _ := m.mineOn(t, tip, height+1)
	return raw
}

func openNode(t *testing.T) (*miner, blocktest.SubmitterBackend) {
	m := new(miner)
	return m, blocktest.SubmitterBackend{
		Submitter: &m.node,
		Block:     m.block,
		Stale: func(t *testing.T) []byte {
			old, height := m.node.Tip()
			require.NoError(t, m.node.Submit(t.Context(), m.block(t)))
			raw, _ := m.mineOn(t, old, height+1)
			return raw
		},
		Down: func(t *testing.T) { m.node.SetDown(true) },
		Up:   func(t *testing.T) { m.node.SetDown(false) },
	}
}

func TestNode(t *testing.T) {
	blocktest.TestSubmitter(t, func(t *testing.T) blocktest.SubmitterBackend {
		_, b := openNode(t)
		return b
	})
	blocktest.TestConfirmer(t, func(t *testing.T) blocktest.ConfirmerBackend {
		m := new(miner)
		return blocktest.ConfirmerBackend{
			Confirmer: &m.node,
			Extend: func(t *testing.T) chainhash.Hash {
				raw, hash := m.mine(t)
				require.NoError(t, m.node.Submit(t.Context(), raw))
				return hash
			},
			Orphan: func(t *testing.T) chainhash.Hash {
				raw, _ := m.mine(t)
				require.NoError(t, m.node.Submit(t.Context(), raw))
				raw, hash := m.mineOn(t, chainhash.Hash{}, 1)
				require.ErrorIs(t, m.node.Submit(t.Context(), raw), block.ErrStale)
				return hash
			},
		}
	})
}

func TestNodeReorganizes(t *testing.T) {
	var m miner
	raw, old := m.mineOn(t, chainhash.Hash{}, 1)
	require.NoError(t, m.node.Submit(t.Context(), raw))
	raw, first := m.mineOn(t, chainhash.Hash{}, 1)
	require.ErrorIs(t, m.node.Submit(t.Context(), raw), block.ErrStale)
	raw, second := m.mineOn(t, first, 2)
	require.NoError(t, m.node.Submit(t.Context(), raw))
	for hash, want := range map[chainhash.Hash]int64{old: -1, first: 2, second: 1} {
		n, err := m.node.Confirmations(t.Context(), hash)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
}

// Wrappers that are not told to fail keep the promises of what they wrap.
func TestFlaky(t *testing.T) {
	blocktest.TestSubmitter(t, func(t *testing.T) blocktest.SubmitterBackend {
		_, b := openNode(t)
		b.Submitter = &blocktest.FlakySubmitter{Submitter: b.Submitter}
		return b
	})
	blocktest.TestRecorder(t, func(t *testing.T) blocktest.RecorderBackend {
		return blocktest.RecorderBackend{Recorder: &blocktest.FlakyRecorder{Recorder: new(block.Memory)}}
	})

	one, two, all := errors.New("one"), errors.New("two"), errors.New("all")
	s := new(blocktest.FlakySubmitter)
	s.FailNext(one, nil, two)
	require.Equal(t, one, s.Submit(t.Context(), nil))
	require.NoError(t, s.Submit(t.Context(), nil))
	require.Equal(t, two, s.Submit(t.Context(), nil))
	require.NoError(t, s.Submit(t.Context(), nil))
	s.FailAll(all)
	require.Equal(t, all, s.Submit(t.Context(), nil))
	require.Equal(t, 5, s.Calls())

	r := &blocktest.FlakyRecorder{Recorder: new(block.Memory)}
	r.FailNext(one)
	require.Equal(t, one, r.Record(t.Context(), new(block.Found)))
	r.FoundFaults.FailAll(all)
	_, err := r.Found(t.Context(), block.Query{})
	require.Equal(t, all, err)
}
