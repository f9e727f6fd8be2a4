package rpcjob

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/poolkit/poolkit/internal/noderpc"
)

// What [Source.Check] finds wrong with a node. The errors it returns match one of these, or [ErrUnauthorized], or none
// where the node cannot be reached or answers something else, and say the rest in one sentence.
var (
	ErrWrongNetwork = errors.New("the node is on another network") // mainnet instead of regtest, say
	ErrWrongChain   = errors.New("the node follows another chain") // of the same network, split off before a checkpoint
	ErrSyncing      = errors.New("the node is still syncing")      // or starting
	ErrNoPeers      = errors.New("the node has no peers")
)

// maxBehind is how many headers a synced node may have beyond its blocks: those of blocks that are just arriving.
const maxBehind = 2

// Check finds out whether the node can be mined on: that it answers, is on the network of params with the genesis
// block and the checkpoints that params name, is synced, has at least one peer unless the network is regtest or
// Options.AllowNoPeers is set, and makes templates that [job.ParseTemplate] takes. The first thing that is wrong is
// returned. Each call to the node may take Options.Timeout.
//
// Operators can add a checkpoint of their own to a copy of params, so that a node on the wrong side of a split is
// refused: its miners would look healthy and earn nothing.
func (s *Source) Check(ctx context.Context, params *chaincfg.Params) error {
	err := s.check(ctx, params)
	if err == nil {
		return nil
	}
	// Nodes answer with these whatever they were asked.
	var rpcErr *RPCError
	if errors.As(err, &rpcErr) {
		sentinel := map[int]error{
			noderpc.CodeWarmup:       ErrSyncing,
			noderpc.CodeDownloading:  ErrSyncing,
			noderpc.CodeNotConnected: ErrNoPeers,
		}[rpcErr.Code]
		if sentinel != nil && !errors.Is(err, sentinel) {
			return fmt.Errorf("rpcjob: check: %w: %w", sentinel, rpcErr)
		}
	}
	return fmt.Errorf("rpcjob: check: %w", err)
}

func (s *Source) check(ctx context.Context, params *chaincfg.Params) error {
	name := s.rpc.Name()

	// Pointers tell what btcd leaves out.
	var info struct {
		Chain   *string `json:"chain"`
		Blocks  *int64  `json:"blocks"`
		Headers *int64  `json:"headers"`
		IBD     *bool   `json:"initialblockdownload"`
	}
	if err := s.ask(ctx, "getblockchaininfo", &info); err != nil {
		return err
	}
	if info.Chain == nil || info.Blocks == nil {
		return fmt.Errorf("node %s: getblockchaininfo names no chain or no blocks; is this a Bitcoin node?", name)
	}
	if !sameNetwork(*info.Chain, params.Name) {
		return fmt.Errorf("%w: %s is on %.40q, the pool on %s", ErrWrongNetwork, name, *info.Chain, params.Name)
	}
	var hash string
	if err := s.ask(ctx, "getblockhash", &hash, 0); err != nil {
		return err
	}
	if hash != params.GenesisHash.String() {
		return fmt.Errorf("%w: the genesis block of %s is %.64q, that of %s is %v",
			ErrWrongNetwork, name, hash, params.Name, params.GenesisHash)
	}

	// bitcoind's own start-up state says "downloading" on a regtest chain without a block of today, and serves
	// templates all the same.
	regtest := params.Name == chaincfg.RegressionNetParams.Name || params.Name == chaincfg.SimNetParams.Name
	switch {
	case info.Headers != nil && *info.Headers > *info.Blocks+maxBehind:
		return fmt.Errorf("%w: %s has %d of %d blocks", ErrSyncing, name, *info.Blocks, *info.Headers)
	case regtest:
	case info.IBD != nil && *info.IBD:
		return fmt.Errorf("%w: %s is in its initial block download, at block %d", ErrSyncing, name, *info.Blocks)
	case *info.Blocks == 0:
		return fmt.Errorf("%w: %s has no block but the genesis block", ErrSyncing, name)
	}

	for i := len(params.Checkpoints) - 1; i >= 0; i-- {
		c := params.Checkpoints[i]
		if int64(c.Height) > *info.Blocks {
			continue
		}
		if err := s.ask(ctx, "getblockhash", &hash, c.Height); err != nil {
			return err
		}
		if hash != c.Hash.String() {
			return fmt.Errorf("%w: block %d of %s is %.64q, that of %s is %v",
				ErrWrongChain, c.Height, name, hash, params.Name, c.Hash)
		}
		break // it commits to all the earlier ones
	}

	if !regtest && !s.opts.AllowNoPeers {
		peers, err := s.peers(ctx)
		if err != nil {
			return err
		}
		if peers < 1 {
			return fmt.Errorf("%w: nobody would hear of a block that %s is given", ErrNoPeers, name)
		}
	}

	if params.Name == chaincfg.SigNetParams.Name {
		s.signet.Store(true)
	}
	callCtx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	_, err := s.template(callCtx, "")
	return err
}

func (s *Source) ask(ctx context.Context, method string, result any, params ...any) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	if params == nil {
		params = []any{}
	}
	return s.rpc.Call(ctx, method, params, result)
}

// peers asks for the number of connections as BTCPool does, and as btcd can answer.
func (s *Source) peers(ctx context.Context) (int64, error) {
	var info struct {
		Connections *int64 `json:"connections"`
	}
	var rpcErr *RPCError
	switch err := s.ask(ctx, "getnetworkinfo", &info); {
	case err == nil && info.Connections != nil:
		return *info.Connections, nil
	case err != nil && !errors.As(err, &rpcErr):
		return 0, err
	}
	var n *int64
	if err := s.ask(ctx, "getconnectioncount", &n); err != nil {
		return 0, err
	}
	if n == nil {
		return 0, fmt.Errorf("node %s: getconnectioncount: no number", s.rpc.Name())
	}
	return *n, nil
}

// sameNetwork reports whether a node's name for its chain means the network that btcd's packages call want.
func sameNetwork(chain, want string) bool {
	switch chain {
	case "main":
		chain = "mainnet"
	case "test", "testnet":
		chain = "testnet3"
	}
	return chain == want
}
