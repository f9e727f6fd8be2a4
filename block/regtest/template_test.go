package regtest

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/jobtest"
	"github.com/stretchr/testify/require"
)

func TestSource(t *testing.T) {
	jobtest.TestSource(t, func(t *testing.T) jobtest.Node {
		c := openChain(t, "", Options{TxsPerBlock: 1, TxInterval: 20 * time.Millisecond, MaxTxs: 5})
		return jobtest.Node{
			Source: c,
			NewBlock: func(t *testing.T) {
				_, err := c.Generate(1)
				require.NoError(t, err)
			},
			NewTransactions: func(*testing.T) {}, // they come by themselves
			Patience:        time.Minute,
		}
	})
}

// Everything a template says is compared with what btcd finds in the chain.
func TestTemplatesBecomeBlocks(t *testing.T) {
	c := openChain(t, "", Options{})
	inputs := make(map[txscript.ScriptClass]int)
	depends := 0
	seen := make(map[chainhash.Hash]bool)
	for range 6 {
		tmpl := template(t, c)
		best := c.chain.BestSnapshot()
		require.Equal(t, best.Hash, tmpl.PrevHash)
		require.Equal(t, best.Height+1, tmpl.Height)
		require.EqualValues(t, best.MedianTime.Unix()+1, tmpl.MinTime)
		require.InDelta(t, time.Now().Unix(), tmpl.CurTime, 10)
		require.Equal(t, EasyBits, tmpl.Bits)
		require.Equal(t, EasyBits, tmpl.Target.Bits())
		require.Equal(t, []string{"csv", "!segwit", "taproot"}, tmpl.Rules)
		require.False(t, seen[tmpl.ID])
		seen[tmpl.ID] = true
		require.Len(t, tmpl.Transactions, 8)

		b := buildBlock(t, tmpl, foreignScript(t, c))
		want := slices.Clone(tmpl.WitnessCommitment)
		commit(b)
		require.Equal(t, want, b.Transactions[0].TxOut[1].PkScript, "witness commitment")

		view := blockchain.NewUtxoViewpoint()
		var fees int64
		for i, tx := range btcutil.NewBlock(b).Transactions()[1:] {
			entry := &tmpl.Transactions[i]
			require.Equal(t, *tx.Hash(), entry.TxID)
			require.Equal(t, *tx.WitnessHash(), entry.WTxID)
			require.Equal(t, blockchain.GetTransactionWeight(tx), entry.Weight)
			var in, out int64
			var depend []int
			for _, txIn := range tx.MsgTx().TxIn {
				op := txIn.PreviousOutPoint
				if n := slices.IndexFunc(tmpl.Transactions, func(e job.Transaction) bool { return e.TxID == op.Hash }); n >= 0 {
					require.Less(t, n, i)
					depend = append(depend, n+1)
				} else {
					e, err := c.chain.FetchUtxoEntry(op)
					require.NoError(t, err)
					require.NotNil(t, e, "input does not exist")
					view.Entries()[op] = e
				}
				prev := view.LookupEntry(op)
				in += prev.Amount()
				inputs[txscript.GetScriptClass(prev.PkScript())]++
			}
			for _, txOut := range tx.MsgTx().TxOut {
				require.GreaterOrEqual(t, txOut.Value, int64(minCoin))
				out += txOut.Value
			}
			require.Equal(t, depend, entry.Depends)
			depends += len(depend)
			require.Equal(t, in-out, entry.Fee)
			require.Positive(t, entry.Fee)
			require.InDelta(t, float64(entry.Weight)/4, float64(entry.Fee)/2, float64(entry.Weight)) // 1 to 5 sat/vB
			fees += entry.Fee
			cost, err := blockchain.GetSigOpCost(tx, false, view, true, true)
			require.NoError(t, err)
			require.EqualValues(t, cost, entry.SigOps)
			view.AddTxOuts(tx, tmpl.Height)
		}
		require.Equal(t, blockchain.CalcBlockSubsidy(tmpl.Height, c.Params())+fees, tmpl.CoinbaseValue)

		raw := solve(t, b)
		require.NoError(t, c.Submit(t.Context(), raw))
		require.Equal(t, b.BlockHash(), c.Tip())
		require.Equal(t, raw, rawBlock(t, c, b.BlockHash()))
	}
	for _, class := range []txscript.ScriptClass{
		txscript.WitnessV0PubKeyHashTy, txscript.WitnessV1TaprootTy, txscript.PubKeyHashTy,
	} {
		require.Positive(t, inputs[class], "no input spends %v", class)
	}
	require.Positive(t, depends, "no transaction spends from another one")
}

// The template and the block that job.Builder's arithmetic makes of it agree.
func TestTemplateThroughMerkleBranch(t *testing.T) {
	c := openChain(t, "", Options{TxInterval: -1, TxsPerBlock: 5})
	tmpl := template(t, c)
	b := buildBlock(t, tmpl, foreignScript(t, c))
	solve(t, b)
	var coinbase bytes.Buffer
	require.NoError(t, b.Transactions[0].SerializeNoWitness(&coinbase))
	ids := make([]chainhash.Hash, 0, len(tmpl.Transactions))
	for i := range tmpl.Transactions {
		ids = append(ids, tmpl.Transactions[i].TxID)
	}
	require.Equal(t, b.Header.MerkleRoot, job.MerkleRoot(coinbase.Bytes(), job.MerkleBranch(ids)))
}

// A pool that takes every subsidy and every fee leaves the wallet with what it began with.
func TestForeignBlocksNeverRunItDry(t *testing.T) {
	txs := 2
	if raceEnabled { // signatures are slow then
		txs = 1
	}
	c := openChain(t, "", Options{TxInterval: -1, TxsPerBlock: txs})
	for range 300 {
		require.Len(t, template(t, c).Transactions, txs, "at height %d", c.Height())
		mineForeign(t, c)
	}
	require.Less(t, len(c.wallet.coins), 2*manyCoins)
	var sum int64
	for _, coin := range c.wallet.coins {
		sum += coin.value
		require.GreaterOrEqual(t, coin.value, int64(minCoin))
	}
	began := int64(bootstrapBlocks * 50e8)
	require.Greater(t, sum, began-300*2*3000, "fees eat the wallet up")
}

// Thousands of blocks, with the wallet alone and no chain.
func TestWalletNeverRunsDry(t *testing.T) {
	w, err := newWallet(newParams(EasyBits), 7)
	require.NoError(t, err)
	for i := range 8 { // mature coinbases, as at the first template
		op := wire.OutPoint{Hash: chainhash.Hash{byte(i)}}
		w.at[op] = len(w.coins)
		w.coins = append(w.coins, coin{op: op, value: 50e8, kind: kind(i % 3), height: 1, coinbase: true})
	}
	blocks := 3000
	if raceEnabled { // signatures are slow then
		blocks = 100
	}
	most := 0
	for height := int32(109); height < 109+int32(blocks); height++ {
		txs, err := w.makeTxs(w.rand(&chainhash.Hash{byte(height), byte(height >> 8)}, 0), 2, height, nil)
		require.NoError(t, err)
		require.Len(t, txs, 2, "at height %d", height)
		msg := &wire.MsgBlock{Transactions: []*wire.MsgTx{wire.NewMsgTx(1)}}
		for _, tx := range txs {
			msg.Transactions = append(msg.Transactions, tx.msg)
		}
		w.connect(btcutil.NewBlock(msg), height)
		most = max(most, len(w.coins))
	}
	require.GreaterOrEqual(t, len(w.coins), fewCoins)
	require.LessOrEqual(t, most, manyCoins+2*maxOutputs)
}

// Many coins, as after Generate has been called thousands of times, are put together.
func TestWalletGathersCoins(t *testing.T) {
	w, err := newWallet(newParams(EasyBits), 7)
	require.NoError(t, err)
	for i := range 400 {
		op := wire.OutPoint{Hash: chainhash.Hash{byte(i), byte(i >> 8)}}
		w.at[op] = len(w.coins)
		w.coins = append(w.coins, coin{op: op, value: 25_000, kind: kind(i % 3), height: 1})
	}
	for height := int32(2); len(w.coins) > manyCoins; height++ {
		require.Less(t, height, int32(100))
		txs, err := w.makeTxs(w.rand(&chainhash.Hash{byte(height)}, 0), 8, height, nil)
		require.NoError(t, err)
		require.NotEmpty(t, txs)
		msg := &wire.MsgBlock{Transactions: []*wire.MsgTx{wire.NewMsgTx(1)}}
		for _, tx := range txs {
			msg.Transactions = append(msg.Transactions, tx.msg)
		}
		w.connect(btcutil.NewBlock(msg), height)
	}
	// Coins that cannot pay for themselves make no transactions, and no endless loop.
	poor, err := newWallet(newParams(EasyBits), 7)
	require.NoError(t, err)
	txs, err := poor.makeTxs(poor.rand(&chainhash.Hash{}, 0), 8, 2, nil)
	require.NoError(t, err)
	require.Empty(t, txs)
	op := wire.OutPoint{Hash: chainhash.Hash{1}}
	poor.at[op], poor.coins = 0, []coin{{op: op, value: 600, height: 1}}
	txs, err = poor.makeTxs(poor.rand(&chainhash.Hash{}, 0), 8, 2, nil)
	require.NoError(t, err)
	require.Empty(t, txs)
}

// What Watch puts, and when, by a clock that stands still while anything works.
func TestWatchInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openChain(t, "", Options{TxsPerBlock: 2, TxInterval: 5 * time.Second, MaxTxs: 6})
		ctx, cancel := context.WithCancel(t.Context())
		type put struct {
			at   time.Duration
			tmpl *job.Template
		}
		began := time.Now()
		puts, done := make(chan put, 100), make(chan error, 2)
		other := make(chan *job.Template, 100)
		go func() {
			done <- c.Watch(ctx, func(tmpl *job.Template) { puts <- put{time.Since(began), tmpl} })
		}()
		go func() { done <- c.Watch(ctx, func(tmpl *job.Template) { other <- tmpl }) }()

		synctest.Wait()
		first := <-puts
		require.Zero(t, first.at, "the first template comes at once")
		require.Len(t, first.tmpl.Transactions, 2)
		require.Same(t, first.tmpl, <-other)
		require.Empty(t, puts)

		next := func() put {
			p := <-puts
			require.Same(t, p.tmpl, <-other, "all who watch see the same")
			return p
		}
		last := first
		for len(last.tmpl.Transactions) < 6 {
			p := next()
			require.Equal(t, last.at+5*time.Second, p.at)
			more := len(p.tmpl.Transactions) - len(last.tmpl.Transactions)
			require.True(t, more == 1 || more == 2, "%d new transactions", more)
			require.Equal(t, first.tmpl.PrevHash, p.tmpl.PrevHash)
			require.NotEqual(t, last.tmpl.ID, p.tmpl.ID)
			require.Greater(t, p.tmpl.CoinbaseValue, last.tmpl.CoinbaseValue)
			last = p
		}
		// Full: from here on only the time changes.
		for range 2 {
			p := next()
			require.Equal(t, last.at+30*time.Second, p.at)
			require.Equal(t, last.tmpl.Transactions, p.tmpl.Transactions)
			last = p
		}

		// A block with half of the transactions: the others stay, and a new batch joins them.
		now := time.Since(began)
		half := *last.tmpl
		half.Transactions, half.CoinbaseValue = last.tmpl.Transactions[:3], 50e8
		half.WitnessCommitment = job.WitnessCommitment(half.Transactions)
		require.NoError(t, c.Submit(ctx, solve(t, buildBlock(t, &half, foreignScript(t, c)))))
		p := next()
		require.Equal(t, now, p.at, "a new tip is put at once")
		require.Equal(t, last.tmpl.Height+1, p.tmpl.Height)
		require.Len(t, p.tmpl.Transactions, 5)
		for i := range 3 {
			require.Equal(t, last.tmpl.Transactions[3+i].TxID, p.tmpl.Transactions[i].TxID)
		}

		// A block without transactions; then one that arrives from elsewhere takes them all.
		_, err := c.GenerateFrom(c.Tip(), 1)
		require.NoError(t, err)
		p = next()
		require.Len(t, p.tmpl.Transactions, 6)
		_, err = c.Generate(1)
		require.NoError(t, err)
		p = next()
		require.Equal(t, now, p.at)
		require.Len(t, p.tmpl.Transactions, 2)

		cancel()
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		require.Empty(t, puts)
	})
}

func TestWatchEndsWithClose(t *testing.T) {
	c, err := Open("", &quick)
	require.NoError(t, err)
	put, done := make(chan struct{}, 10), make(chan error, 1)
	go func() { done <- c.Watch(t.Context(), func(*job.Template) { put <- struct{}{} }) }()
	<-put
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-done, ErrClosed)
	require.NoError(t, c.Close())
	_, err = c.Template()
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.Generate(1)
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.GenerateFrom(c.Tip(), 1)
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.Block(c.Tip())
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.Confirmations(t.Context(), c.Tip())
	require.ErrorIs(t, err, ErrClosed)
	require.NoDirExists(t, c.dir)
}

// Same seed and same clock: same chain. Another seed: another one.
func TestSeedDecidesEverything(t *testing.T) {
	run := func(seed uint64) (hashes []chainhash.Hash) {
		synctest.Test(t, func(t *testing.T) {
			c := openChain(t, "", Options{Seed: seed, TxsPerBlock: 3})
			_, err := c.Generate(3)
			require.NoError(t, err)
			early, err := c.BlockHash(bootstrapBlocks - 1)
			require.NoError(t, err)
			hashes = append(hashes, early, c.Tip(), template(t, c).ID)
		})
		return hashes
	}
	one, again, two := run(0), run(1), run(2)
	require.Equal(t, one, again)
	for i := range one {
		require.NotEqual(t, one[i], two[i])
	}

	// Without the bubble, the first blocks are still the same.
	c := openChain(t, "", quick)
	early, err := c.BlockHash(bootstrapBlocks - 1)
	require.NoError(t, err)
	require.Equal(t, one[0], early)
}

// Should this package ever make a transaction that no block can hold, miners go on without it.
func TestBadTransactionIsDropped(t *testing.T) {
	c := openChain(t, "", Options{TxInterval: -1, TxsPerBlock: 3})
	tmpl := template(t, c)
	require.Len(t, tmpl.Transactions, 3)
	_, err := c.GenerateFrom(c.Tip(), 1)
	require.NoError(t, err)
	c.waiting[0].entry.Fee++ // the coinbase would take more than there is
	tmpl = template(t, c)
	require.Empty(t, tmpl.Transactions)
	require.NoError(t, c.Submit(t.Context(), solve(t, buildBlock(t, tmpl, foreignScript(t, c)))))
	require.Len(t, template(t, c).Transactions, 3)
}

func BenchmarkTemplate(b *testing.B) {
	// A template after a new block, transactions and signatures included.
	b.Run("new tip, 8 transactions", func(b *testing.B) {
		c := openChain(b, "", Options{})
		template(b, c)
		b.ReportAllocs()
		for b.Loop() {
			c.mu.Lock()
			c.waiting, c.tmpl = nil, nil
			err := c.refresh(time.Now())
			c.mu.Unlock()
			require.NoError(b, err)
		}
	})
	// The same transactions again, which is the arithmetic and the check by btcd.
	b.Run("same 8 transactions", func(b *testing.B) {
		c := openChain(b, "", Options{})
		template(b, c)
		b.ReportAllocs()
		for b.Loop() {
			now := time.Now()
			c.mu.Lock()
			old := *c.tmpl
			old.Received = now.Add(-refreshInterval)
			c.tmpl, c.nextTx = &old, now.Add(time.Hour)
			err := c.refresh(now)
			c.mu.Unlock()
			require.NoError(b, err)
		}
	})
}

func BenchmarkGenerate(b *testing.B) {
	for _, bm := range []struct{ name, dir string }{{"in a temporary folder", ""}, {"synced to the disk", b.TempDir()}} {
		b.Run(bm.name, func(b *testing.B) {
			c := openChain(b, bm.dir, Options{})
			b.ReportAllocs()
			for b.Loop() {
				_, err := c.Generate(1)
				require.NoError(b, err)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		c, err := Open("", nil)
		require.NoError(b, err)
		require.NoError(b, c.Close())
	}
}
