package regtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
)

// Generate mines n blocks on the tip, one after another, with all transactions that wait, paying the chain's own
// wallet: the blocks that for a pool arrive from elsewhere. When another block comes first, it goes on from there. It
// returns the blocks that it mined, fewer than n with an error. Every block takes as many hashes as its target asks
// for, on all CPUs; Close ends the search.
func (c *Chain) Generate(n int) ([]chainhash.Hash, error) {
	c.genMu.Lock()
	defer c.genMu.Unlock()
	var hashes []chainhash.Hash
	for len(hashes) < n {
		t, _, _, err := c.template(time.Now())
		if err != nil {
			return hashes, fmt.Errorf("regtest: generate: %w", err)
		}
		hash, err := c.mine(t, c.payee(t.Height), true)
		if errors.Is(err, block.ErrStale) || errors.Is(err, errOutdated) {
			continue
		}
		if err != nil {
			return hashes, fmt.Errorf("regtest: generate: %w", err)
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}

// GenerateFrom mines n blocks on the given one, each on the one before, whether or not that makes them the best
// chain: with enough work on them the chain reorganizes to the last one. They hold no transactions but the coinbase,
// which pays the chain's own wallet, and the lowest times the rules allow. A branch that leaves the chain before
// height 108 takes from the wallet the coins of the first blocks: there will be few transactions or none until those
// of the branch are mature.
func (c *Chain) GenerateFrom(parent chainhash.Hash, n int) ([]chainhash.Hash, error) {
	c.genMu.Lock()
	defer c.genMu.Unlock()
	var hashes []chainhash.Hash
	for len(hashes) < n {
		t, err := c.branchTemplate(&parent)
		if err != nil {
			return hashes, fmt.Errorf("regtest: generate from %v: %w", parent, err)
		}
		parent, err = c.mine(t, c.payee(t.Height), false)
		if err != nil && !errors.Is(err, block.ErrStale) {
			return hashes, fmt.Errorf("regtest: generate from %v: %w", t.PrevHash, err)
		}
		hashes = append(hashes, parent)
	}
	return hashes, nil
}

// bootstrap mines the first blocks. Their times are the same in every chain, but for the last one, and no clock can
// find them too new.
func (c *Chain) bootstrap() error {
	c.clock.replay.Store(true)
	defer c.clock.replay.Store(false)
	perTip := c.opts.TxsPerBlock
	c.opts.TxsPerBlock = bootstrapTxs // whatever the options say: these blocks are the same in all chains of one seed
	defer func() { c.opts.TxsPerBlock = perTip }()
	for c.Height() < bootstrapBlocks {
		height := c.Height() + 1
		at := c.params.GenesisBlock.Header.Timestamp.Add(time.Duration(height) * bootstrapSpacing)
		if now := time.Now(); height == bootstrapBlocks && now.After(at) {
			at = now
		}
		c.mu.Lock()
		c.tmpl = nil // its time is not that of the clock
		err := c.refresh(at)
		t := c.tmpl
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if _, err := c.mine(t, c.payee(height), false); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tmpl = nil
	return nil
}

// payee returns the output script for the wallet's coinbase at a height.
func (c *Chain) payee(height int32) []byte { return c.wallet.scripts[int(height)%int(kinds)] }

// branchTemplate returns the template of an empty block on any block of the chain.
func (c *Chain) branchTemplate(parent *chainhash.Hash) (*job.Template, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return nil, err
	}
	// The median time and the height follow from the blocks before. Only the coinbase of the parent is looked at for
	// its height, which BIP 34 puts there.
	var times []int64
	height := int32(0)
	for hash := *parent; len(times) < 11; {
		b, err := c.block(&hash)
		if err != nil {
			return nil, err
		}
		if len(times) == 0 && hash != *c.params.GenesisHash {
			if height, err = blockchain.ExtractCoinbaseHeight(btcutil.NewTx(b.Transactions[0])); err != nil {
				return nil, err
			}
		}
		times = append(times, b.Header.Timestamp.Unix())
		if hash == *c.params.GenesisHash {
			break
		}
		hash = b.Header.PrevBlock
	}
	parentTime := times[0]
	slices.Sort(times)
	minTime := times[len(times)/2] + 1

	t := &job.Template{
		PrevHash: *parent,
		Height:   height + 1,
		Version:  0x20000000,
		Bits:     c.params.GenesisBlock.Header.Bits, // a second after its parent, a block is never an easy one
		CurTime:  uint32(max(minTime, parentTime+1)),
	}
	t.CoinbaseValue = blockchain.CalcBlockSubsidy(t.Height, c.params)
	t.WitnessCommitment = job.WitnessCommitment(nil)
	var err error
	t.Target, err = difficulty.FromBits(t.Bits)
	return t, err
}

// assemble makes the block of a template, without proof of work. Blocks with different extranonces differ.
func (c *Chain) assemble(t *job.Template, payee []byte, extranonce int64) (*wire.MsgBlock, error) {
	script, err := txscript.NewScriptBuilder().AddInt64(int64(t.Height)).AddInt64(extranonce).
		AddData([]byte("/poolkit regtest/")).Script()
	if err != nil {
		return nil, err
	}
	coinbase := wire.NewMsgTx(2)
	coinbase.AddTxIn(&wire.TxIn{
		PreviousOutPoint: wire.OutPoint{Index: math.MaxUint32},
		SignatureScript:  script,
		Witness:          wire.TxWitness{make([]byte, 32)}, // the reserved value of BIP 141
		Sequence:         wire.MaxTxInSequenceNum,
	})
	coinbase.AddTxOut(wire.NewTxOut(t.CoinbaseValue, payee))
	coinbase.AddTxOut(wire.NewTxOut(0, t.WitnessCommitment))

	b := &wire.MsgBlock{Transactions: make([]*wire.MsgTx, 1, 1+len(t.Transactions))}
	b.Transactions[0] = coinbase
	ids := make([]chainhash.Hash, len(t.Transactions))
	for i := range t.Transactions {
		tx := new(wire.MsgTx)
		if err := tx.Deserialize(bytes.NewReader(t.Transactions[i].Data)); err != nil {
			return nil, err
		}
		b.Transactions = append(b.Transactions, tx)
		ids[i] = t.Transactions[i].TxID
	}
	var stripped bytes.Buffer
	if err := coinbase.SerializeNoWitness(&stripped); err != nil {
		return nil, err
	}
	b.Header = wire.BlockHeader{
		Version:    t.Version,
		PrevBlock:  t.PrevHash,
		MerkleRoot: job.MerkleRoot(stripped.Bytes(), job.MerkleBranch(ids)),
		Timestamp:  time.Unix(int64(t.CurTime), 0),
		Bits:       t.Bits,
	}
	return b, nil
}

// errOutdated says that a search ended because its block would not be on the tip any more.
var errOutdated = errors.New("the tip has changed")

// mine makes the block of a template, finds its proof of work and gives it to the chain. With onTip set it gives up
// with errOutdated when the tip is another one than the template's. The hash is valid with [block.ErrStale] too.
func (c *Chain) mine(t *job.Template, payee []byte, onTip bool) (chainhash.Hash, error) {
	c.mu.Lock()
	extranonce := int64(len(c.log.index)) // grows with every block, so no two are equal
	c.mu.Unlock()
	for ; ; extranonce += 1 << 32 { // a search seldom needs more than one round of nonces
		b, err := c.assemble(t, payee, extranonce)
		if err != nil {
			return chainhash.Hash{}, err
		}
		found, err := c.search(&b.Header, &t.Target, onTip)
		if err != nil {
			return chainhash.Hash{}, err
		}
		if !found {
			continue
		}
		var raw bytes.Buffer
		if err := b.Serialize(&raw); err != nil {
			return chainhash.Hash{}, err
		}
		return b.BlockHash(), c.submit(raw.Bytes())
	}
}

// search tries all nonces of a header and reports whether one meets the target. It leaves the lowest such nonce in the
// header, however many CPUs have searched.
func (c *Chain) search(h *wire.BlockHeader, target *difficulty.Target, onTip bool) (bool, error) {
	var buf bytes.Buffer
	if err := h.Serialize(&buf); err != nil {
		return false, err
	}
	const stride = 1 << 13 // hashes between two looks at what goes on
	workers := runtime.GOMAXPROCS(0)
	if target.Difficulty()*difficulty.HashesPerDifficulty < stride {
		workers = 1
	}
	var next, best atomic.Uint64
	best.Store(math.MaxUint64)
	var gaveUp atomic.Pointer[error]
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			header := [job.HeaderSize]byte(buf.Bytes())
			for gaveUp.Load() == nil {
				from := next.Add(stride) - stride
				if from > math.MaxUint32 || from > best.Load() {
					return
				}
				for n := from; n < from+stride; n++ {
					binary.LittleEndian.PutUint32(header[76:], uint32(n))
					hash := chainhash.DoubleHashH(header[:])
					if target.MetBy((*[32]byte)(&hash)) {
						for b := best.Load(); n < b && !best.CompareAndSwap(b, n); b = best.Load() {
						}
						return
					}
				}
				select {
				case <-c.done:
					gaveUp.Store(&ErrClosed)
				default:
					if onTip && c.Tip() != h.PrevBlock {
						gaveUp.Store(&errOutdated)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := best.Load(); n <= math.MaxUint32 {
		h.Nonce = uint32(n)
		return true, nil
	}
	if err := gaveUp.Load(); err != nil {
		return false, *err
	}
	return false, nil
}
