package regtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/job"
)

// A kind is one of the ways in which the wallet's coins are locked.
type kind uint8

const (
	p2wpkh kind = iota // BIP 141
	p2tr               // BIP 341, spent by key
	p2pkh
	kinds
)

// Virtual bytes that an input and an output of each kind add to a transaction, rounded up.
var (
	inputVBytes  = [kinds]int64{p2wpkh: 68, p2tr: 58, p2pkh: 149}
	outputVBytes = [kinds]int64{p2wpkh: 31, p2tr: 43, p2pkh: 34}
)

// A coin is an unspent output that belongs to the wallet.
type coin struct {
	op       wire.OutPoint
	value    int64 // satoshi
	kind     kind
	height   int32 // of the block that holds it
	coinbase bool
	depth    int // transactions before it that wait for a block as well; 0 when it is in the chain
}

// A wallet owns the coins that the chain's transactions move around. It is not safe for concurrent use.
type wallet struct {
	params  *chaincfg.Params
	seed    uint64
	keys    [kinds]*btcec.PrivateKey
	scripts [kinds][]byte
	mine    map[string]kind // by output script

	// coins in the best chain. The order is one that the blocks alone decide, so that a wallet built anew makes the
	// same choices.
	coins []coin
	at    map[wire.OutPoint]int
}

func newWallet(params *chaincfg.Params, seed uint64) (*wallet, error) {
	w := &wallet{params: params, seed: seed, mine: make(map[string]kind)}
	for k := range kinds {
		w.keys[k] = deriveKey(seed, fmt.Sprintf("coins %d", k))
		pub := w.keys[k].PubKey()
		hash := address.Hash160(pub.SerializeCompressed())
		var addr address.Address
		var err error
		switch k {
		case p2wpkh:
			addr, err = address.NewAddressWitnessPubKeyHash(hash, params)
		case p2tr:
			out := txscript.ComputeTaprootKeyNoScript(pub).SerializeCompressed()
			addr, err = address.NewAddressTaproot(out[1:], params)
		case p2pkh:
			addr, err = address.NewAddressPubKeyHash(hash, params)
		}
		if err != nil {
			return nil, err
		}
		if w.scripts[k], err = txscript.PayToAddrScript(addr); err != nil {
			return nil, err
		}
		w.mine[string(w.scripts[k])] = k
	}
	w.reset()
	return w, nil
}

// throwawayAddress is one that the wallet does not watch.
func throwawayAddress(params *chaincfg.Params, seed uint64) (address.Address, error) {
	pub := deriveKey(seed, "throw-away").PubKey().SerializeCompressed()
	return address.NewAddressWitnessPubKeyHash(address.Hash160(pub), params)
}

func deriveKey(seed uint64, purpose string) *btcec.PrivateKey {
	h := sha256.Sum256(fmt.Appendf(nil, "poolkit regtest key, seed %d, %s", seed, purpose))
	key, _ := btcec.PrivKeyFromBytes(h[:])
	return key
}

// rand returns the source of the n-th batch of transactions on a tip.
func (w *wallet) rand(tip *chainhash.Hash, n int) *rand.Rand {
	b := append([]byte("poolkit regtest transactions"), tip[:]...)
	b = binary.LittleEndian.AppendUint64(b, w.seed)
	b = binary.LittleEndian.AppendUint64(b, uint64(n))
	return rand.New(rand.NewChaCha8(sha256.Sum256(b)))
}

// reset forgets all coins.
func (w *wallet) reset() {
	w.coins, w.at = nil, make(map[wire.OutPoint]int)
}

// connect follows the best chain by one block.
func (w *wallet) connect(b *btcutil.Block, height int32) {
	for i, tx := range b.Transactions() {
		msg := tx.MsgTx()
		if i > 0 {
			for _, in := range msg.TxIn {
				w.remove(in.PreviousOutPoint)
			}
		}
		for n, out := range msg.TxOut {
			if k, ok := w.mine[string(out.PkScript)]; ok && out.Value > 0 {
				op := wire.OutPoint{Hash: *tx.Hash(), Index: uint32(n)}
				w.at[op] = len(w.coins)
				w.coins = append(w.coins, coin{op: op, value: out.Value, kind: k, height: height, coinbase: i == 0})
			}
		}
	}
}

func (w *wallet) remove(op wire.OutPoint) {
	i, ok := w.at[op]
	if !ok {
		return
	}
	last := len(w.coins) - 1
	w.coins[i] = w.coins[last]
	w.at[w.coins[i].op] = i
	w.coins = w.coins[:last]
	delete(w.at, op)
}

// spendable reports whether a coin can be spent in a block at the given height.
func (w *wallet) spendable(c *coin, height int32) bool {
	return !c.coinbase || height-c.height >= int32(w.params.CoinbaseMaturity)
}

// A pendingTx waits for a block.
type pendingTx struct {
	msg   *wire.MsgTx
	entry job.Transaction // without Depends, which change as blocks come
	outs  []coin          // in the order of the outputs, all of which are the wallet's
}

const (
	minCoin     = 20_000 // satoshi; smaller coins would cost too much to spend
	minFeeRate  = 1      // satoshi per virtual byte
	maxFeeRate  = 5
	fewCoins    = 24 // below as many, coins are split
	manyCoins   = 96 // above as many, they are put together
	maxInputs   = 8
	maxOutputs  = 3
	maxDepth    = 4 // of chains of transactions that wait for a block
	recentOneIn = 4 // coins that are not in a block yet are preferred once in as many choices
)

// makeTxs returns up to n new transactions for a block at the given height, in an order in which none spends from a
// later one. waiting are those that were made before and are still to be mined. There are fewer than n when the coins
// do not suffice.
func (w *wallet) makeTxs(rnd *rand.Rand, n int, height int32, waiting []*pendingTx) ([]*pendingTx, error) {
	if n <= 0 {
		return nil, nil
	}
	spent := make(map[wire.OutPoint]bool)
	for _, p := range waiting {
		for _, in := range p.msg.TxIn {
			spent[in.PreviousOutPoint] = true
		}
	}
	p := purse{rnd: rnd}
	for i := range w.coins {
		if c := &w.coins[i]; !spent[c.op] && w.spendable(c, height) {
			p.old = append(p.old, *c)
		}
	}
	for _, t := range waiting {
		for _, c := range t.outs {
			if !spent[c.op] && c.depth <= maxDepth {
				p.recent = append(p.recent, c)
			}
		}
	}

	var made []*pendingTx
	for tries := 0; len(made) < n && tries < 2*n; tries++ {
		inputs, outputs := p.choose()
		t, err := w.spend(rnd, inputs, outputs)
		if err != nil {
			return nil, err
		}
		if t == nil { // coins too small, which is rare, or none at all
			continue
		}
		made = append(made, t)
		for _, c := range t.outs {
			if c.depth <= maxDepth {
				p.recent = append(p.recent, c)
			}
		}
	}
	return made, nil
}

// A purse holds the coins that can be spent now.
type purse struct {
	rnd         *rand.Rand
	old, recent []coin
}

// choose takes coins out of the purse and says how many should become of them.
func (p *purse) choose() (inputs []coin, outputs int) {
	switch n := len(p.old) + len(p.recent); {
	case n < fewCoins:
		// The largest of three, so that halving again and again does not end in dust.
		best := p.take()
		for range 2 {
			if c, ok := p.takeOK(); ok {
				if c.value > best.value {
					c, best = best, c
				}
				p.putBack(c)
			}
		}
		if best.value == 0 {
			return nil, 0
		}
		return []coin{best}, 2 + p.rnd.IntN(maxOutputs-1)
	case n > manyCoins:
		for range maxInputs {
			inputs = append(inputs, p.take())
		}
		return inputs, 1
	default:
		for range 1 + p.rnd.IntN(3) {
			inputs = append(inputs, p.take())
		}
		return inputs, min(2, len(inputs)+p.rnd.IntN(2))
	}
}

func (p *purse) take() coin {
	c, _ := p.takeOK()
	return c
}

func (p *purse) takeOK() (coin, bool) {
	from := &p.old
	if len(p.old) == 0 || len(p.recent) > 0 && p.rnd.IntN(recentOneIn) == 0 {
		from = &p.recent
	}
	if len(*from) == 0 {
		return coin{}, false
	}
	i, last := p.rnd.IntN(len(*from)), len(*from)-1
	c := (*from)[i]
	(*from)[i] = (*from)[last]
	*from = (*from)[:last]
	return c, true
}

func (p *purse) putBack(c coin) {
	if c.depth == 0 {
		p.old = append(p.old, c)
	} else {
		p.recent = append(p.recent, c)
	}
}

// spend makes a transaction of the given coins to the wallet itself, with as many outputs as asked for or fewer if the
// coins are small. It returns nil when they are too small for any.
func (w *wallet) spend(rnd *rand.Rand, inputs []coin, outputs int) (*pendingTx, error) {
	var sum, vbytes int64
	vbytes = 11 // version, marker, counts, lock time
	depth := 0
	for _, c := range inputs {
		sum += c.value
		vbytes += inputVBytes[c.kind]
		depth = max(depth, c.depth)
	}
	rate := minFeeRate + rnd.Int64N(maxFeeRate-minFeeRate+1)

	var to []kind
	for range outputs {
		k := kind(rnd.IntN(int(kinds)))
		to = append(to, k)
		vbytes += outputVBytes[k]
	}
	for len(to) > 0 && sum-rate*vbytes < leastValue(len(to)) {
		vbytes -= outputVBytes[to[len(to)-1]]
		to = to[:len(to)-1]
	}
	if len(to) == 0 {
		return nil, nil
	}
	fee := rate * vbytes

	tx := wire.NewMsgTx(2)
	prev := txscript.NewMultiPrevOutFetcher(nil)
	for _, c := range inputs {
		in := wire.NewTxIn(&c.op, nil, nil)
		in.Sequence = wire.MaxTxInSequenceNum - 2 // replaceable, as most wallets make them (BIP 125)
		tx.AddTxIn(in)
		prev.AddPrevOut(c.op, wire.NewTxOut(c.value, w.scripts[c.kind]))
	}
	// Shares between one and four times as large as each other: with at most three outputs, none is below minCoin.
	weights, total := make([]int64, len(to)), int64(0)
	for i := range to {
		weights[i] = 1 + rnd.Int64N(4)
		total += weights[i]
	}
	left := sum - fee
	for i, k := range to {
		value := (sum - fee) / total * weights[i]
		if i == len(to)-1 {
			value = left
		}
		left -= value
		tx.AddTxOut(wire.NewTxOut(value, w.scripts[k]))
	}

	hashes := txscript.NewTxSigHashes(tx, prev)
	sigOps := 0
	for i, c := range inputs {
		in, script, key := tx.TxIn[i], w.scripts[c.kind], w.keys[c.kind]
		var err error
		switch c.kind {
		case p2wpkh:
			sigOps++ // BIP 141 counts one, not scaled
			in.Witness, err = txscript.WitnessSignature(tx, hashes, i, c.value, script, txscript.SigHashAll, key, true)
		case p2tr:
			in.Witness, err = txscript.TaprootWitnessSignature(tx, hashes, i, c.value, script, txscript.SigHashDefault, key)
		case p2pkh:
			in.SignatureScript, err = txscript.SignatureScript(tx, i, script, txscript.SigHashAll, key, true)
		}
		if err != nil {
			return nil, fmt.Errorf("signing input %d: %w", i, err)
		}
	}

	var raw bytes.Buffer
	if err := tx.Serialize(&raw); err != nil {
		return nil, err
	}
	u := btcutil.NewTx(tx)
	p := &pendingTx{msg: tx, entry: job.Transaction{
		Data:   raw.Bytes(),
		TxID:   *u.Hash(),
		WTxID:  *u.WitnessHash(),
		Fee:    fee,
		SigOps: int64(sigOps + blockchain.CountSigOps(u)*blockchain.WitnessScaleFactor),
		Weight: blockchain.GetTransactionWeight(u),
	}}
	for i, k := range to {
		op := wire.OutPoint{Hash: p.entry.TxID, Index: uint32(i)}
		p.outs = append(p.outs, coin{op: op, value: tx.TxOut[i].Value, kind: k, depth: depth + 1})
	}
	return p, nil
}

// leastValue is what the outputs of a transaction must be worth together for none to be below minCoin.
func leastValue(outputs int) int64 {
	if outputs == 1 {
		return minCoin
	}
	return 4 * minCoin * int64(outputs)
}

// keep returns those of waiting that can still be mined at the given height: all they spend is unspent.
func (w *wallet) keep(waiting []*pendingTx, height int32) []*pendingTx {
	var kept []*pendingTx
	fresh := make(map[wire.OutPoint]int) // outputs of kept ones and their depth
next:
	for _, p := range waiting {
		depth := 0
		for _, in := range p.msg.TxIn {
			if i, ok := w.at[in.PreviousOutPoint]; ok && w.spendable(&w.coins[i], height) {
				continue
			}
			d, ok := fresh[in.PreviousOutPoint]
			if !ok {
				continue next
			}
			depth = max(depth, d)
		}
		q := *p // templates of before hold no reference to p, but another goroutine may be reading its entry
		q.outs = make([]coin, len(p.outs))
		for i, c := range p.outs {
			c.depth = depth + 1
			q.outs[i] = c
			fresh[c.op] = c.depth
		}
		kept = append(kept, &q)
	}
	return kept
}
