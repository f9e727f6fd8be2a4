package httpstats

import (
	"context"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
)

// A State is how far a found block has come.
type State uint8

// States of a block.
const (
	Candidate State = iota // submitted, too few confirmations to tell
	Immature               // confirmed, or orphaned and perhaps to come back
	Matured                // its reward can be spent, or it is orphaned for good
)

// A Block is one that the pool found.
type Block struct {
	Height     int32
	Hash       chainhash.Hash
	Time       time.Time             // when it was found
	Difficulty difficulty.Difficulty // of the network, from the block's own bits

	// Shares is the difficulty of all shares in the block's round. Where it is 0, the rounds that the Aggregator has
	// closed are asked, by JobID, Height and Nonce.
	Shares difficulty.Difficulty
	JobID  job.ID
	Nonce  uint32

	State         State
	Orphan        bool
	Confirmations int

	RewardSats  int64 // what the coinbase pays the pool, fees included
	FeesSats    int64
	SubsidySats int64
	Finder      string // "user.machine", empty when unknown
}

// A BlockSource knows the blocks that the pool found, in any order. Blocks is called every few seconds, not from
// several goroutines at once, and the result is not kept by the source.
type BlockSource interface {
	Blocks(ctx context.Context) ([]Block, error)
}

// BlockSourceFunc makes a BlockSource of a function.
type BlockSourceFunc func(ctx context.Context) ([]Block, error)

// Blocks calls f.
func (f BlockSourceFunc) Blocks(ctx context.Context) ([]Block, error) { return f(ctx) }

// A Node is a bitcoin node that the pool works with.
type Node struct {
	Name         string
	Chain        string
	Height       int32
	Difficulty   difficulty.Difficulty
	LastBeat     time.Time // when it last answered
	BlocksBehind int
}

// A NodeSource knows the state of the pool's nodes. Nodes is called for every request of /api/stats and returns what it
// knows without asking them.
type NodeSource interface {
	Nodes(ctx context.Context) ([]Node, error)
}

// NodeSourceFunc makes a NodeSource of a function.
type NodeSourceFunc func(ctx context.Context) ([]Node, error)

// Nodes calls f.
func (f NodeSourceFunc) Nodes(ctx context.Context) ([]Node, error) { return f(ctx) }
