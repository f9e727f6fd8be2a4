package block_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/blocktest"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// Bitcoin Core accepted both of these blocks, which it was given without the witness of the coinbase.
func TestAssembleCapturedBlocks(t *testing.T) {
	templates := map[chainhash.Hash]*job.Template{}
	for _, tmpl := range capturedTemplates(t) {
		templates[tmpl.ID] = tmpl
	}
	jobs := map[job.ID]*job.Job{}
	for _, j := range capturedJobs(t) {
		jobs[j.ID] = j
	}
	for _, v := range solvedShares(t) {
		t.Run(v.hash, func(t *testing.T) {
			s, err := block.DecodeSolution(v.raw)
			require.NoError(t, err)
			j := jobs[s.JobID]
			require.NotNil(t, j)
			tmpl := templates[j.TemplateID]
			require.NotNil(t, tmpl)

			raw, err := block.Assemble(s, tmpl.Transactions)
			require.NoError(t, err)
			require.Len(t, raw, 80+1+len(v.coinbase)+36)
			require.Equal(t, v.header, raw[:80])

			var b wire.MsgBlock
			r := bytes.NewReader(raw)
			require.NoError(t, b.Deserialize(r))
			require.Zero(t, r.Len())
			require.Equal(t, v.hash, b.BlockHash().String())
			require.Len(t, b.Transactions, 1)
			coinbase := b.Transactions[0]
			require.Equal(t, b.Header.MerkleRoot, coinbase.TxHash())
			require.Equal(t, wire.TxWitness{make([]byte, 32)}, coinbase.TxIn[0].Witness)
			require.Equal(t, tmpl.WitnessCommitment, coinbase.TxOut[1].PkScript)
			var stripped bytes.Buffer
			require.NoError(t, coinbase.SerializeNoWitness(&stripped))
			require.Equal(t, v.coinbase, stripped.Bytes())
		})
	}
}

func TestAssembleTransactions(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 7, 251, 252, 253, 1000} {
		tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, n)
		_, s := blocktest.Solve(tmpl, 7)
		raw, err := block.Assemble(s, tmpl.Transactions)
		require.NoError(t, err, "%d transactions", n)

		var b wire.MsgBlock
		require.NoError(t, b.Deserialize(bytes.NewReader(raw)))
		require.Len(t, b.Transactions, n+1)
		require.Equal(t, s.Hash, b.BlockHash())
		var again bytes.Buffer
		require.NoError(t, b.Serialize(&again))
		require.Equal(t, again.Bytes(), raw)
		for i, tx := range tmpl.Transactions {
			require.Equal(t, tx.WTxID, b.Transactions[i+1].WitnessHash())
		}
		// The node computes root and commitment in its own way.
		require.NoError(t, new(blocktest.Node).Submit(t.Context(), raw))
	}
}

func TestAssembleIsAdvisory(t *testing.T) {
	tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, 5)
	_, good := blocktest.Solve(tmpl, 1)
	noCommitment := func(s *share.Solution) {
		tx := new(wire.MsgTx)
		require.NoError(t, tx.Deserialize(bytes.NewReader(s.Coinbase)))
		tx.TxOut = tx.TxOut[:1]
		var b bytes.Buffer
		require.NoError(t, tx.Serialize(&b))
		s.Coinbase = b.Bytes()
	}
	tests := []struct {
		name string
		edit func(s *share.Solution)
		txs  []job.Transaction
		want []error
		not  []error
	}{
		{"another transaction list", func(s *share.Solution) {}, tmpl.Transactions[:4],
			[]error{block.ErrMerkleRoot, block.ErrWitnessCommitment}, []error{block.ErrCoinbase, block.ErrHighHash}},
		{"another extranonce", func(s *share.Solution) { s.Coinbase[50] ^= 1 }, tmpl.Transactions,
			[]error{block.ErrMerkleRoot}, []error{block.ErrWitnessCommitment, block.ErrCoinbase}},
		{"a coinbase that ends early", func(s *share.Solution) { s.Coinbase = s.Coinbase[:60] }, tmpl.Transactions,
			[]error{block.ErrCoinbase, block.ErrMerkleRoot}, []error{block.ErrWitnessCommitment}},
		{"a coinbase with a byte too many", func(s *share.Solution) { s.Coinbase = append(s.Coinbase, 0) },
			tmpl.Transactions, []error{block.ErrCoinbase, block.ErrMerkleRoot}, nil},
		{"a coinbase that spends an output", func(s *share.Solution) { s.Coinbase[5] = 1 }, tmpl.Transactions,
			[]error{block.ErrCoinbase, block.ErrMerkleRoot}, nil},
		{"witnesses without a commitment", noCommitment, tmpl.Transactions,
			[]error{block.ErrMerkleRoot, block.ErrWitnessCommitment}, nil},
		{"a target that nothing meets", func(s *share.Solution) { binary.LittleEndian.PutUint32(s.Header[72:], 0x03000001) },
			tmpl.Transactions, []error{block.ErrHighHash}, []error{block.ErrMerkleRoot}},
		{"bits that are no target", func(s *share.Solution) { binary.LittleEndian.PutUint32(s.Header[72:], 0x04800001) },
			tmpl.Transactions, []error{block.ErrHighHash}, []error{block.ErrMerkleRoot}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := *good
			s.Coinbase = bytes.Clone(good.Coinbase)
			tt.edit(&s)
			raw, err := block.Assemble(&s, tt.txs)
			var advisory *block.AdvisoryError
			require.ErrorAs(t, err, &advisory)
			for _, want := range tt.want {
				require.ErrorIs(t, err, want)
				require.ErrorContains(t, err, want.Error())
			}
			for _, not := range tt.not {
				require.NotErrorIs(t, err, not)
			}
			// The block is there and complete.
			require.Equal(t, s.Header[:], raw[:80])
			tail := []byte(nil)
			for _, tx := range tt.txs {
				tail = append(tail, tx.Data...)
			}
			require.True(t, bytes.HasSuffix(raw, tail))
			require.Equal(t, byte(len(tt.txs)+1), raw[80])
			require.GreaterOrEqual(t, len(raw), 81+len(s.Coinbase)+len(tail))
		})
	}

	t.Run("no coinbase", func(t *testing.T) {
		for _, s := range []*share.Solution{nil, {}} {
			raw, err := block.Assemble(s, nil)
			require.Error(t, err)
			var advisory *block.AdvisoryError
			require.NotErrorAs(t, err, &advisory)
			require.Nil(t, raw)
		}
	})
}

// A coinbase may come with its witness, from a server that has other reserved values; it is taken as it is.
func TestAssembleKeepsWitness(t *testing.T) {
	tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, 3)
	_, s := blocktest.Solve(tmpl, 1)
	want, err := block.Assemble(s, tmpl.Transactions)
	require.NoError(t, err)

	tx := new(wire.MsgTx)
	require.NoError(t, tx.Deserialize(bytes.NewReader(s.Coinbase)))
	tx.TxIn[0].Witness = wire.TxWitness{make([]byte, 32)}
	var b bytes.Buffer
	require.NoError(t, tx.Serialize(&b))
	s.Coinbase = b.Bytes()
	raw, err := block.Assemble(s, tmpl.Transactions)
	require.NoError(t, err)
	require.Equal(t, want, raw)
}

func FuzzAssemble(f *testing.F) {
	for _, v := range solvedShares(f) {
		f.Add(v.raw)
	}
	tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, 3)
	_, s := blocktest.Solve(tmpl, 1)
	f.Add(block.AppendSolution(nil, s))
	f.Fuzz(func(t *testing.T, msg []byte) {
		s, err := block.DecodeSolution(msg)
		if err != nil {
			return
		}
		raw, err := block.Assemble(s, tmpl.Transactions)
		if !bytes.HasPrefix(raw, s.Header[:]) {
			t.Fatalf("no block: %v", err)
		}
		if err == nil {
			var b wire.MsgBlock
			if err := b.Deserialize(bytes.NewReader(raw)); err != nil {
				t.Fatalf("good block does not parse: %v", err)
			}
		}
	})
}

func BenchmarkAssemble(b *testing.B) {
	tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, 4000)
	for i := range tmpl.Transactions { // 2 MB in all; the ids stay, so that the root does
		tmpl.Transactions[i].Data = append(tmpl.Transactions[i].Data, make([]byte, 400)...)
	}
	_, s := blocktest.Solve(tmpl, 1)
	raw, err := block.Assemble(s, tmpl.Transactions)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = block.Assemble(s, tmpl.Transactions)
	}
}
