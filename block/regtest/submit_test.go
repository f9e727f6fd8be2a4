package regtest

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/blocktest"
	"github.com/stretchr/testify/require"
)

func TestSubmitter(t *testing.T) {
	blocktest.TestSubmitter(t, func(t *testing.T) blocktest.SubmitterBackend {
		c := openChain(t, "", quick)
		return blocktest.SubmitterBackend{
			Submitter: c,
			Block:     func(t *testing.T) []byte { return solve(t, buildBlock(t, template(t, c), foreignScript(t, c))) },
			Stale: func(t *testing.T) []byte {
				tmpl := template(t, c)
				_, err := c.Generate(1)
				require.NoError(t, err)
				return solve(t, buildBlock(t, tmpl, foreignScript(t, c)))
			},
		}
	})
}

func TestConfirmer(t *testing.T) {
	c := openChain(t, "", quick)
	blocktest.TestConfirmer(t, func(t *testing.T) blocktest.ConfirmerBackend {
		return blocktest.ConfirmerBackend{
			Confirmer: c,
			Extend:    func(t *testing.T) chainhash.Hash { return mineForeign(t, c) },
			Orphan: func(t *testing.T) chainhash.Hash {
				parent, err := c.BlockHash(c.Height() - 1)
				require.NoError(t, err)
				hashes, err := c.GenerateFrom(parent, 1)
				require.NoError(t, err)
				return hashes[0]
			},
		}
	})
}

// Each case spoils a good block in one way. The good block is submitted last: nothing of the bad ones may stick to it.
func TestSubmitRefuses(t *testing.T) {
	c := openChain(t, "", Options{TxInterval: -1, TxsPerBlock: 4})
	tmpl := template(t, c)
	ours := c.wallet.scripts[p2wpkh]
	good := func(t *testing.T) *wire.MsgBlock { return buildBlock(t, tmpl, foreignScript(t, c)) }
	segwit := func(b *wire.MsgBlock) *wire.MsgTx { // a transaction with a witness
		i := slices.IndexFunc(b.Transactions[1:], (*wire.MsgTx).HasWitness)
		require.GreaterOrEqual(t, i, 0)
		return b.Transactions[1+i]
	}
	spend := func(t *testing.T, op wire.OutPoint, value int64) *wire.MsgTx { // signed as if it were ours
		tx, err := c.wallet.spend(c.wallet.rand(&op.Hash, 1), []coin{{op: op, value: value, kind: p2wpkh}}, 1)
		require.NoError(t, err)
		return tx.msg
	}

	for _, tt := range []struct {
		name   string
		reason string
		spoil  func(t *testing.T, b *wire.MsgBlock) []byte
	}{
		{"merkle root of something else", "bad-txnmrklroot", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Header.MerkleRoot = chainhash.Hash{1}
			return solveHeader(t, b, true)
		}},
		{"transactions in another order", "bad-txnmrklroot", func(t *testing.T, b *wire.MsgBlock) []byte {
			solve(t, b)
			slices.Reverse(b.Transactions[1:])
			return serialize(t, b)
		}},
		{"commitment to other witnesses", "bad-witness-merkle-match", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Transactions[0].TxOut[1].PkScript[10] ^= 1
			return solve(t, b)
		}},
		{"witness changed after the commitment", "bad-witness-merkle-match", func(t *testing.T, b *wire.MsgBlock) []byte {
			segwit(b).TxIn[0].Witness = wire.TxWitness{{1}}
			for _, in := range segwit(b).TxIn {
				in.Witness = wire.TxWitness{{1}}
			}
			return solve(t, b)
		}},
		{"no commitment", "unexpected-witness", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Transactions[0].TxOut = b.Transactions[0].TxOut[:1]
			b.Transactions[0].TxIn[0].Witness = nil
			return solve(t, b)
		}},
		{"coinbase without its witness", "bad-witness-nonce-size", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Transactions[0].TxIn[0].Witness = nil
			return solve(t, b)
		}},
		{"spend of a young coinbase", "bad-txns-premature-spend-of-coinbase", func(t *testing.T, b *wire.MsgBlock) []byte {
			young, err := c.Block(c.Tip())
			require.NoError(t, err)
			op := wire.OutPoint{Hash: young.Transactions[0].TxHash()}
			require.NoError(t, b.AddTransaction(spend(t, op, young.Transactions[0].TxOut[0].Value)))
			commit(b)
			return solve(t, b)
		}},
		{"spend of a coin that never was", "bad-txns-inputs-missingorspent", func(t *testing.T, b *wire.MsgBlock) []byte {
			require.NoError(t, b.AddTransaction(spend(t, wire.OutPoint{Hash: chainhash.Hash{1}}, 1e8)))
			commit(b)
			return solve(t, b)
		}},
		{"the same coin twice", "bad-txns-inputs-missingorspent", func(t *testing.T, b *wire.MsgBlock) []byte {
			twice := b.Transactions[1].Copy()
			twice.TxOut[0].Value--
			require.NoError(t, b.AddTransaction(twice))
			commit(b)
			return solve(t, b)
		}},
		{"signature of something else", "block-script-verify-flag-failed", func(t *testing.T, b *wire.MsgBlock) []byte {
			last := b.Transactions[len(b.Transactions)-1]
			last.TxOut[0].Value--
			commit(b)
			return solve(t, b)
		}},
		{"outputs above the inputs", "bad-txns-in-belowout", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Transactions[len(b.Transactions)-1].TxOut[0].Value += 1e6
			commit(b)
			return solve(t, b)
		}},
		{"coinbase of another height", "bad-cb-height", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Transactions[0].TxIn[0].SignatureScript[1]++
			return solve(t, b)
		}},
		{"coinbase that takes too much", "bad-cb-amount", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Transactions[0].TxOut[0].Value++
			return solve(t, b)
		}},
		{"two coinbases", "bad-cb-multiple", func(t *testing.T, b *wire.MsgBlock) []byte {
			second := b.Transactions[0].Copy()
			second.TxIn[0].SignatureScript[3] ^= 1
			require.NoError(t, b.AddTransaction(second))
			return solve(t, b)
		}},
		{"no coinbase", "bad-cb-missing", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Transactions = b.Transactions[1:]
			return solve(t, b)
		}},
		{"no transactions", "bad-blk-length", func(t *testing.T, b *wire.MsgBlock) []byte {
			solve(t, b)
			b.Transactions = nil
			return serialize(t, b)
		}},
		{"hash above the target", "high-hash", func(t *testing.T, b *wire.MsgBlock) []byte {
			solve(t, b)
			return solveHeader(t, b, false)
		}},
		{"bits of its own choice", "bad-diffbits", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Header.Bits = 0x203fffff
			return solve(t, b)
		}},
		{"bits easier than the limit", "bad-diffbits", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Header.Bits = 0x2100ffff
			return solve(t, b)
		}},
		{"version of long ago", "bad-version", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Header.Version = 1
			return solve(t, b)
		}},
		{"time at the median", "time-too-old", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Header.Timestamp = time.Unix(int64(tmpl.MinTime)-1, 0)
			return solve(t, b)
		}},
		{"time three hours ahead", "time-too-new", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Header.Timestamp = time.Now().Add(3 * time.Hour).Truncate(time.Second)
			return solve(t, b)
		}},
		{"parent that nobody knows", "prev-blk-not-found", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Header.PrevBlock = chainhash.Hash{1}
			return solve(t, b)
		}},
		{"bytes after the end", "block-decode-failed", func(t *testing.T, b *wire.MsgBlock) []byte {
			return append(solve(t, b), 0)
		}},
		{"last byte missing", "block-decode-failed", func(t *testing.T, b *wire.MsgBlock) []byte {
			raw := solve(t, b)
			return raw[:len(raw)-1]
		}},
		{"witness form for a transaction without witness", "block-decode-failed", func(t *testing.T, b *wire.MsgBlock) []byte {
			b.Transactions = b.Transactions[:1]
			b.Transactions[0].TxOut = b.Transactions[0].TxOut[:1]
			b.Transactions[0].TxOut[0].Value = 0 // takes less than it may
			b.Transactions[0].TxIn[0].Witness = nil
			raw := solve(t, b)
			raw = slices.Insert(raw, 80+1+4, 0, 1) // marker and flag
			return slices.Insert(raw, len(raw)-4, 0)
		}},
		{"nothing at all", "block-decode-failed", func(*testing.T, *wire.MsgBlock) []byte { return nil }},
		{"more bytes than any block", "bad-blk-length", func(t *testing.T, b *wire.MsgBlock) []byte {
			return append(solve(t, b), make([]byte, 4_000_000)...)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := good(t)
			raw := tt.spoil(t, b)
			logSize := c.log.size
			for try := range 2 {
				err := c.Submit(t.Context(), raw)
				var rejected *block.RejectedError
				require.ErrorAs(t, err, &rejected)
				if try == 1 && rejected.Reason == "duplicate-invalid" {
					break
				}
				require.Equal(t, tt.reason, rejected.Reason, err)
			}
			require.Equal(t, tmpl.PrevHash, c.Tip())
			require.Equal(t, logSize, c.log.size, "a refused block stays in the log")
			if len(raw) > 80 && len(raw) < 4_000_000 {
				_, err := c.Confirmations(t.Context(), b.BlockHash())
				require.ErrorIs(t, err, block.ErrUnknownBlock)
			}
		})
	}

	b := buildBlock(t, tmpl, ours)
	require.NoError(t, c.Submit(t.Context(), solve(t, b)))
	require.Equal(t, b.BlockHash(), c.Tip())
}

// A block may come first with its witnesses stripped or spoiled, under the same header.
func TestSubmitAfterSpoiledCopy(t *testing.T) {
	c := openChain(t, "", Options{TxInterval: -1, TxsPerBlock: 2})
	b := buildBlock(t, template(t, c), foreignScript(t, c))
	raw := solve(t, b)
	b.Transactions[0].TxIn[0].Witness[0][0] = 1
	spoiled := serialize(t, b)

	var rejected *block.RejectedError
	require.ErrorAs(t, c.Submit(t.Context(), spoiled), &rejected)
	require.NoError(t, c.Submit(t.Context(), raw))
	require.ErrorIs(t, c.Submit(t.Context(), raw), block.ErrDuplicate)
}

func TestSubmitChildOfInvalidBlock(t *testing.T) {
	c := openChain(t, "", quick)
	tmpl := template(t, c)
	bad := buildBlock(t, tmpl, foreignScript(t, c))
	bad.Transactions[0].TxOut[0].Value++ // found out only when btcd connects the block, after it was stored
	var rejected *block.RejectedError
	require.ErrorAs(t, c.Submit(t.Context(), solve(t, bad)), &rejected)
	require.Equal(t, "bad-cb-amount", rejected.Reason)

	next := *tmpl
	next.PrevHash, next.Height, next.Transactions = bad.BlockHash(), tmpl.Height+1, nil
	child := buildBlock(t, &next, foreignScript(t, c))
	commit(child)
	require.ErrorAs(t, c.Submit(t.Context(), solve(t, child)), &rejected)
	require.Equal(t, "bad-prevblk", rejected.Reason)
}

// A branch is judged when it would become the best chain: its blocks are good until then.
func TestReorganizationToInvalidBranchFails(t *testing.T) {
	dir := t.TempDir()
	c := openChain(t, dir, quick)
	tmpl := template(t, c)
	main := mineForeign(t, c)

	bad := buildBlock(t, tmpl, foreignScript(t, c))
	bad.Transactions[0].TxOut[0].Value++
	require.ErrorIs(t, c.Submit(t.Context(), solve(t, bad)), block.ErrStale)
	next := *tmpl
	next.PrevHash, next.Height, next.Transactions = bad.BlockHash(), tmpl.Height+1, nil
	next.CurTime++
	child := buildBlock(t, &next, foreignScript(t, c))
	commit(child)
	var rejected *block.RejectedError
	require.ErrorAs(t, c.Submit(t.Context(), solve(t, child)), &rejected)
	require.Equal(t, "bad-cb-amount", rejected.Reason)
	require.Equal(t, main, c.Tip())
	n, err := c.Confirmations(t.Context(), main)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)

	mineForeign(t, c)
	tip := c.Tip()
	c.crash(t)
	c = openChain(t, dir, quick)
	require.Equal(t, tip, c.Tip())
	mineForeign(t, c)
}

func TestReorganization(t *testing.T) {
	c := openChain(t, "", Options{TxInterval: -1, TxsPerBlock: 4})
	fork, height := c.Tip(), c.Height()
	var lost []chainhash.Hash
	for range 3 {
		lost = append(lost, mineForeign(t, c))
	}

	branch, err := c.GenerateFrom(fork, 3)
	require.NoError(t, err)
	require.Equal(t, lost[2], c.Tip(), "a branch of the same length wins")
	for _, hash := range branch {
		n, err := c.Confirmations(t.Context(), hash)
		require.NoError(t, err)
		require.EqualValues(t, -1, n)
	}

	more, err := c.GenerateFrom(branch[2], 1)
	require.NoError(t, err)
	require.Equal(t, more[0], c.Tip())
	require.Equal(t, height+4, c.Height())
	for i, hash := range lost {
		n, err := c.Confirmations(t.Context(), hash)
		require.NoError(t, err)
		require.EqualValues(t, -1, n)
		require.ErrorIs(t, c.Submit(t.Context(), rawBlock(t, c, hash)), block.ErrDuplicate)
		n, err = c.Confirmations(t.Context(), append(branch, more...)[i])
		require.NoError(t, err)
		require.EqualValues(t, 4-i, n)
	}

	// The transactions of the lost blocks are gone, and others take their place.
	for range 5 {
		require.NotEmpty(t, template(t, c).Transactions)
		mineForeign(t, c)
	}

	// And back again.
	_, err = c.GenerateFrom(lost[2], 7)
	require.NoError(t, err)
	require.Equal(t, height+10, c.Height())
	require.NotEmpty(t, template(t, c).Transactions)
	mineForeign(t, c)
}

func rawBlock(t *testing.T, c *Chain, hash chainhash.Hash) []byte {
	t.Helper()
	b, err := c.Block(hash)
	require.NoError(t, err)
	require.Equal(t, hash, b.BlockHash())
	return serialize(t, b)
}

// A branch that begins before the wallet's coins were mature takes them all.
func TestReorganizationFromTheBeginning(t *testing.T) {
	c := openChain(t, "", quick)
	early, err := c.BlockHash(3)
	require.NoError(t, err)
	_, err = c.GenerateFrom(early, bootstrapBlocks)
	require.NoError(t, err)
	require.EqualValues(t, bootstrapBlocks+3, c.Height())
	mineForeign(t, c)
	require.NotEmpty(t, template(t, c).Transactions)

	genesis, err := c.BlockHash(0)
	require.NoError(t, err)
	require.Equal(t, *c.Params().GenesisHash, genesis)
	_, err = c.GenerateFrom(chainhash.Hash{1}, 1)
	require.ErrorIs(t, err, block.ErrUnknownBlock)
	_, err = c.BlockHash(c.Height() + 1)
	require.ErrorIs(t, err, block.ErrUnknownBlock)
	_, err = c.Block(chainhash.Hash{1})
	require.ErrorIs(t, err, block.ErrUnknownBlock)
}

func TestReasonsAreDistinctFromAccepting(t *testing.T) {
	for code := blockchain.ErrDuplicateBlock; code <= blockchain.ErrKnownInvalidBlock; code++ {
		err := verdict(blockchain.RuleError{ErrorCode: code, Description: "detail"})
		var rejected *block.RejectedError
		require.ErrorAs(t, err, &rejected, code)
		require.NotEmpty(t, rejected.Reason)
		require.NotEqual(t, "rejected", rejected.Reason, "no word for %v", code)
		require.ErrorContains(t, err, "detail")
	}
	require.Equal(t, "rejected", reason(math.MaxInt32))
	other := errors.New("disk")
	require.Equal(t, other, verdict(other))
}

func TestSubmitWithEndedContext(t *testing.T) {
	c := openChain(t, "", quick)
	raw := solve(t, buildBlock(t, template(t, c), foreignScript(t, c)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.Submit(ctx, raw), context.Canceled)
	require.NoError(t, c.Submit(t.Context(), raw))
}

func FuzzSubmit(f *testing.F) {
	c := openChain(f, "", quick)
	raw := solve(f, buildBlock(f, template(f, c), foreignScript(f, c)))
	f.Add(raw)
	f.Add(raw[:80])
	f.Add(raw[:len(raw)-1])
	f.Add(append(bytes.Clone(raw[:80]), 0))
	f.Add(append(bytes.Clone(raw[:80]), 0xfe, 0xff, 0xff, 0xff, 0xff))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := parseBlock(raw)
		if err == nil {
			again := serialize(t, b.MsgBlock())
			require.Equal(t, raw, again)
		}
		height, tip := c.Height(), c.Tip()
		switch err := c.Submit(t.Context(), raw); {
		case err == nil:
			require.Equal(t, btcutil.NewBlock(b.MsgBlock()).Hash().String(), c.Tip().String())
		default:
			require.Equal(t, height, c.Height())
			require.Equal(t, tip, c.Tip())
			var rejected *block.RejectedError
			if !errors.As(err, &rejected) && !errors.Is(err, block.ErrDuplicate) && !errors.Is(err, block.ErrStale) {
				t.Fatalf("no verdict: %v", err)
			}
		}
	})
}
