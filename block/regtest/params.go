package regtest

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

const (
	// bootstrapBlocks are mined when a chain is first opened. A coinbase can be spent 100 blocks later, so the first
	// coins can move at height 101; the rest is for having several of them, and for transactions in the chain before
	// the first template: bootstrapTxs in each of those blocks.
	bootstrapBlocks = 108
	bootstrapTxs    = 2

	// bootstrapSpacing separates the header times of those blocks, from the genesis block of 2011 on. It is above
	// easyAfter, which is what lets them be easy on a chain with harder Bits.
	bootstrapSpacing = 40 * 24 * time.Hour
	easyAfter        = 30 * 24 * time.Hour
)

// newParams returns the rules of a chain with the given target. Every chain gets a copy of its own: btcd ties the
// deployments in it to the one chain that they count signals for.
func newParams(bits uint32) *chaincfg.Params {
	p := chaincfg.RegressionNetParams
	for i := range p.Deployments {
		// All deployments of regtest are open for votes at any time.
		p.Deployments[i].DeploymentStarter = chaincfg.NewMedianTimeDeploymentStarter(time.Time{})
		p.Deployments[i].DeploymentEnder = chaincfg.NewMedianTimeDeploymentEnder(time.Time{})
	}
	if bits == EasyBits {
		return &p
	}

	// PowLimit stays easy, since that is the difficulty of blocks that come long after their parent. All others have
	// the bits of the nearest ancestor that is not such a block, which in the end is the genesis block. It needs no
	// proof of work: a chain knows its genesis block by its hash.
	genesis := &wire.MsgBlock{Header: p.GenesisBlock.Header, Transactions: p.GenesisBlock.Transactions}
	genesis.Header.Bits = bits
	hash := genesis.BlockHash()
	p.GenesisBlock, p.GenesisHash = genesis, &hash
	p.PoWNoRetargeting = false
	p.ReduceMinDifficulty = true
	p.MinDiffReductionTime = easyAfter
	p.TargetTimePerBlock = time.Second // these two only say that difficulty adjusts every 2^31-1 blocks
	p.TargetTimespan = math.MaxInt32 * time.Second
	return &p
}

// A clock is the time by which a chain judges blocks that come from the future. It is the machine's, but never behind
// the tip's median time past.
type clock struct {
	floor  atomic.Int64 // Unix seconds
	replay atomic.Bool  // blocks that were accepted before are not from the future, whatever the clock says now
}

var _ blockchain.MedianTimeSource = (*clock)(nil)

// AdjustedTime implements [blockchain.MedianTimeSource].
func (c *clock) AdjustedTime() time.Time {
	if c.replay.Load() {
		return time.Unix(math.MaxUint32, 0)
	}
	return time.Unix(max(time.Now().Unix(), c.floor.Load()), 0)
}

// AddTimeSample implements [blockchain.MedianTimeSource]; there are no peers to learn from.
func (c *clock) AddTimeSample(string, time.Time) {}

// Offset implements [blockchain.MedianTimeSource].
func (c *clock) Offset() time.Duration { return 0 }
