package rpcblock

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/internal/noderpc"
)

// A Node says how to reach a bitcoind or btcd: URL, user and password or cookie file, and certificate.
type Node = noderpc.Node

// An RPCError is an error that the node itself reported, with its code and message.
type RPCError = noderpc.RPCError

// ErrUnauthorized matches errors about a node that refused the user and password or this machine's address.
var ErrUnauthorized = noderpc.ErrUnauthorized

// ErrUnknownParent matches the error of Submit when the node does not know the block that the submitted one builds on.
// It is no verdict: the node is behind the one that the template came from, and can take the block a moment later.
var ErrUnknownParent = errors.New("the node does not know the block before it yet")

// Options tune a Submitter.
type Options struct {
	// Timeout bounds one call whose context has no earlier deadline; 0 means 30 s. Nodes verify every transaction of
	// the block before they answer.
	Timeout time.Duration
}

// A Submitter hands blocks to one node and tells what became of them. It is both a [block.Submitter] and a
// [block.Confirmer]. Its methods may be called concurrently.
type Submitter struct {
	rpc     *noderpc.Client
	timeout time.Duration
}

var (
	_ block.Submitter = (*Submitter)(nil)
	_ block.Confirmer = (*Submitter)(nil)
)

// New returns a Submitter for node, or everything that is wrong with its description and opts. It opens no connection.
func New(node Node, opts *Options) (*Submitter, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	var err error
	if o.Timeout < 0 {
		err = fmt.Errorf("rpcblock: options: negative Timeout %v", o.Timeout)
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	rpc, rpcErr := noderpc.New(node, &noderpc.Options{MaxReply: 1 << 20})
	if rpcErr != nil {
		err = errors.Join(err, fmt.Errorf("rpcblock: %w", rpcErr))
	}
	if err != nil {
		return nil, err
	}
	return &Submitter{rpc: rpc, timeout: o.Timeout}, nil
}

// Name returns the scheme and host of the node, as errors print it.
func (s *Submitter) Name() string { return s.rpc.Name() }

// Submit hands raw, a serialised block with its witnesses, to the node and reports its verdict as [block.Submitter]
// promises: nil when the block is the node's on its best chain, [block.ErrDuplicate], [block.ErrStale], or a
// [*block.RejectedError]. Any other error is no verdict and the call may be repeated, [ErrUnknownParent] among them.
//
// btcd answers "accepted" also to a block beside its best chain and to one without a known parent, and "already have"
// to blocks it found invalid. After either answer the node is asked where the block stands; if that cannot be learned,
// the answer is taken at its word.
func (s *Submitter) Submit(ctx context.Context, raw []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()

	params := make([]byte, 0, 2*len(raw)+4)
	params = append(params, `["`...)
	params = hex.AppendEncode(params, raw)
	params = append(params, `"]`...)
	var result *string
	err := s.rpc.Call(ctx, "submitblock", json.RawMessage(params), &result)

	var verdict error
	var rpcErr *RPCError
	switch {
	case errors.As(err, &rpcErr):
		verdict = s.readError(rpcErr)
	case err != nil:
		return fmt.Errorf("rpcblock: %w", err)
	case result != nil:
		verdict = s.readResult(*result)
	}
	if verdict == nil || errors.Is(verdict, errBTCDDuplicate) {
		verdict = s.settle(ctx, raw, verdict)
	}
	return verdict
}

// errBTCDDuplicate is btcd's "already have block", which says nothing of whether the block is valid.
var errBTCDDuplicate = fmt.Errorf("%w (btcd)", block.ErrDuplicate)

// readResult reads what submitblock returned: a reason of BIP 22, or btcd's own words after "rejected: ".
func (s *Submitter) readResult(reason string) error {
	words, isBTCD := strings.CutPrefix(reason, "rejected: ")
	switch {
	case reason == "duplicate":
		return block.ErrDuplicate
	case reason == "inconclusive", reason == "duplicate-inconclusive", reason == "inconclusive-not-best-prvblk",
		reason == "stale-prevblk", reason == "stale-work":
		return fmt.Errorf("rpcblock: node %s: %w: %s", s.Name(), block.ErrStale, reason)
	case reason == "prev-blk-not-found":
		return s.unknownParent()
	case isBTCD && strings.HasPrefix(words, "already have block (orphan)"):
		return s.unknownParent()
	case isBTCD && strings.HasPrefix(words, "already have block"):
		return errBTCDDuplicate
	case strings.TrimSpace(words) == "":
		return s.rejected("rejected, without a reason")
	}
	return s.rejected(words)
}

// readError reads the errors that are rulings on the block. Every other one says that the node could not rule.
func (s *Submitter) readError(e *RPCError) error {
	switch e.Code {
	case noderpc.CodeDecode, noderpc.CodeVerify, noderpc.CodeVerifyRejected:
		return s.rejected(e.Message)
	case noderpc.CodeInChain:
		return block.ErrDuplicate
	}
	return fmt.Errorf("rpcblock: %w", e)
}

// maxReason bounds what of a node's reason is kept, in bytes.
const maxReason = 300

func (s *Submitter) rejected(reason string) error {
	if len(reason) > maxReason {
		reason = reason[:maxReason] + "…"
	}
	return &block.RejectedError{Node: s.Name(), Reason: strings.ToValidUTF8(reason, ".")}
}

func (s *Submitter) unknownParent() error {
	return fmt.Errorf("rpcblock: node %s: %w", s.Name(), ErrUnknownParent)
}

// headerSize is the size of a block header, whose SHA-256d is the block's hash.
const headerSize = 80

// settle asks where the block stands that the node says it has, and returns verdict when that cannot be learned.
func (s *Submitter) settle(ctx context.Context, raw []byte, verdict error) error {
	if len(raw) < headerSize {
		return verdict
	}
	hash := chainhash.DoubleHashH(raw[:headerSize])
	n, err := s.confirmations(ctx, hash)
	switch {
	case errors.Is(err, block.ErrUnknownBlock) && verdict == nil:
		return s.unknownParent()
	case err == nil && n < 0:
		if verdict != nil && s.knownInvalid(ctx, hash) {
			return s.rejected("found invalid before")
		}
		return fmt.Errorf("rpcblock: node %s: %w", s.Name(), block.ErrStale)
	}
	if verdict != nil {
		return block.ErrDuplicate
	}
	return nil
}

// knownInvalid reports whether the node lists the block as the end of a branch that it found invalid.
func (s *Submitter) knownInvalid(ctx context.Context, hash chainhash.Hash) bool {
	var tips []struct {
		Hash   string `json:"hash"`
		Status string `json:"status"`
	}
	if s.rpc.Call(ctx, "getchaintips", nil, &tips) != nil {
		return false
	}
	for _, tip := range tips {
		if tip.Hash == hash.String() {
			return tip.Status == "invalid"
		}
	}
	return false
}

// Confirmations returns how many blocks of the node's best chain hold or follow the block with the given hash: 1 for
// the tip, and -1 for a block that is known but not on the best chain. It returns [block.ErrUnknownBlock] when the node
// does not know the block, and [ErrSyncing] when it does not know the chain well enough to say so.
func (s *Submitter) Confirmations(ctx context.Context, hash chainhash.Hash) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	n, err := s.confirmations(ctx, hash)
	if errors.Is(err, block.ErrUnknownBlock) {
		if syncErr := s.synced(ctx); syncErr != nil {
			return 0, syncErr
		}
	}
	return n, err
}

func (s *Submitter) confirmations(ctx context.Context, hash chainhash.Hash) (int64, error) {
	var header struct {
		Confirmations *int64 `json:"confirmations"`
	}
	err := s.rpc.Call(ctx, "getblockheader", []any{hash.String(), true}, &header)
	var rpcErr *RPCError
	switch {
	case errors.As(err, &rpcErr) && rpcErr.Code == noderpc.CodeNotFound:
		return 0, fmt.Errorf("rpcblock: node %s: %w %v", s.Name(), block.ErrUnknownBlock, hash)
	case errors.As(err, &rpcErr) && strings.Contains(rpcErr.Message, "not in the main chain"):
		// btcd knows the header and finds no height for it.
		return -1, nil
	case err != nil:
		return 0, fmt.Errorf("rpcblock: %w", err)
	case header.Confirmations == nil:
		return 0, fmt.Errorf("rpcblock: node %s: getblockheader: no confirmations", s.Name())
	case *header.Confirmations < 0:
		return -1, nil
	}
	return *header.Confirmations, nil
}

// ErrSyncing matches the error of Confirmations for a block that the node does not know while it is still syncing.
var ErrSyncing = errors.New("the node is still syncing and does not know the block")

// oldTip is the age from which btcd, and bitcoind after its start, take their own tip for behind.
const oldTip = 24 * time.Hour

// synced reports why the node is not synced.
func (s *Submitter) synced(ctx context.Context) error {
	var info struct {
		Chain      string `json:"chain"`
		Blocks     int64  `json:"blocks"`
		Headers    int64  `json:"headers"`
		MedianTime int64  `json:"mediantime"`
		IBD        *bool  `json:"initialblockdownload"` // not from btcd
	}
	if err := s.rpc.Call(ctx, "getblockchaininfo", nil, &info); err != nil {
		return fmt.Errorf("rpcblock: %w", err)
	}
	behind := info.Headers > info.Blocks+2
	switch {
	case info.Chain == "regtest", info.Chain == "simnet":
		// bitcoind takes a regtest chain without a block of today for syncing.
	case info.IBD != nil:
		behind = behind || *info.IBD
	default:
		behind = behind || time.Since(time.Unix(info.MedianTime, 0)) > oldTip
	}
	if behind {
		return fmt.Errorf("rpcblock: node %s: %w", s.Name(), ErrSyncing)
	}
	return nil
}
