package regtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/block"
)

var _ block.Submitter = (*Chain)(nil)

// Submit judges a block by all consensus rules. nil means that it is the new tip and on the disk. Other verdicts match
// [block.ErrDuplicate], [block.ErrStale] for a good block that is not on the best chain (it is kept, and wins when
// enough blocks follow), or are a [*block.RejectedError] with the words that Bitcoin Core uses where it has any. An
// error that matches [ErrClosed], or says that the disk failed, is no verdict. Submit does not wait for anything but
// the disk and other calls, so it looks at ctx once.
func (c *Chain) Submit(ctx context.Context, raw []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("regtest: submit: %w", err)
	}
	if err := c.submit(raw); err != nil {
		return fmt.Errorf("regtest: submit: %w", err)
	}
	return nil
}

func rejected(reason string, detail any) error {
	return fmt.Errorf("%w: %v", &block.RejectedError{Node: nodeName, Reason: reason}, detail)
}

// parseBlock reads a block, of which btcd takes one serialisation only. It keeps raw.
func parseBlock(raw []byte) (*btcutil.Block, error) {
	if len(raw) > maxBlockBytes {
		return nil, rejected("bad-blk-length", fmt.Sprintf("%d bytes", len(raw)))
	}
	msg := new(wire.MsgBlock)
	r := bytes.NewReader(raw)
	if err := msg.Deserialize(r); err != nil {
		return nil, rejected("block-decode-failed", err)
	}
	if r.Len() > 0 {
		return nil, rejected("block-decode-failed", fmt.Sprintf("%d bytes after the end", r.Len()))
	}
	return btcutil.NewBlockFromBlockAndBytes(msg, raw), nil
}

// submit is Submit without the prefix of its errors. It does not keep raw.
func (c *Chain) submit(raw []byte) error {
	raw = bytes.Clone(raw)
	b, err := parseBlock(raw)
	if err != nil {
		return err
	}
	hash, parent := b.Hash(), &b.MsgBlock().Header.PrevBlock

	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	if reason, bad := c.invalid[*hash]; bad {
		return rejected("duplicate-invalid", reason)
	}
	if c.has(hash) {
		return fmt.Errorf("%v: %w", hash, block.ErrDuplicate)
	}
	// Cheap checks, proof of work among them, before anything is written.
	if err := blockchain.CheckBlockSanity(b, c.params.PowLimit, c.clock); err != nil {
		return verdict(err)
	}
	if reason, bad := c.invalid[*parent]; bad {
		return rejected("bad-prevblk", reason)
	}
	if !c.has(parent) {
		return rejected("prev-blk-not-found", parent)
	}

	// First to the disk, then to the chain: what the chain has, the log has.
	if err := c.log.append(hash, raw); err != nil {
		return fmt.Errorf("writing %v: %w", hash, err)
	}
	best, err := c.process(b)
	if rule := (blockchain.RuleError{}); errors.As(err, &rule) {
		c.remember(hash, rule.Description)
		if err := c.log.undo(hash); err != nil {
			return c.fail(fmt.Errorf("removing %v from the log: %w", hash, err))
		}
		return verdict(err)
	}
	if err != nil {
		// The chain may be in any state. The block is in the log, for the next Open to judge.
		return c.fail(fmt.Errorf("processing %v: %w", hash, err))
	}
	if !best {
		return fmt.Errorf("%v at height %d: %w", hash, b.Height(), block.ErrStale)
	}
	c.announce()
	return nil
}

// process gives a block to btcd, whole and with all checks, and keeps the wallet at the tip. It reports whether the
// block is the tip now. c.mu is held.
func (c *Chain) process(b *btcutil.Block) (best bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			best, err = false, fmt.Errorf("panic: %v", p)
		}
	}()
	c.connected, c.disconnected = c.connected[:0], false
	best, orphan, err := c.chain.ProcessBlock(b, blockchain.BFNone)
	if err == nil && orphan {
		err = errors.New("taken for an orphan")
	}
	tip := c.chain.BestSnapshot()
	c.clock.floor.Store(tip.MedianTime.Unix())
	switch {
	case c.disconnected:
		if err := c.rescan(); err != nil {
			return false, fmt.Errorf("rebuilding the wallet: %w", err)
		}
	default:
		for _, b := range c.connected {
			c.wallet.connect(b, b.Height())
		}
	}
	clear(c.connected)
	return best, err
}

// notified is what btcd calls during process.
func (c *Chain) notified(n *blockchain.Notification) {
	switch b, _ := n.Data.(*btcutil.Block); n.Type {
	case blockchain.NTBlockConnected:
		c.connected = append(c.connected, b)
	case blockchain.NTBlockDisconnected:
		c.disconnected = true
	}
}

// maxInvalid bounds the memory of refused blocks.
const maxInvalid = 1000

// remember keeps the reason why a block is invalid, which btcd does not. c.mu is held.
func (c *Chain) remember(hash *chainhash.Hash, reason string) {
	// btcd keeps nothing of a block that broke a rule before it was stored, and the same header may come again with
	// better transactions.
	if have, err := c.chain.HaveBlock(hash); err != nil || !have {
		return
	}
	if len(c.invalidOrder) == maxInvalid {
		delete(c.invalid, c.invalidOrder[0])
		c.invalidOrder = c.invalidOrder[1:]
	}
	c.invalid[*hash] = reason
	c.invalidOrder = append(c.invalidOrder, *hash)
}

// verdict translates the error of a consensus rule.
func verdict(err error) error {
	rule := blockchain.RuleError{}
	if !errors.As(err, &rule) {
		return err
	}
	return rejected(reason(rule.ErrorCode), rule.Description)
}

// reason returns the word for a broken rule, that of Bitcoin Core where it has one for the same rule.
func reason(code blockchain.ErrorCode) string {
	switch code {
	case blockchain.ErrDuplicateBlock, blockchain.ErrKnownInvalidBlock:
		// submit knows all good blocks, so this one was found invalid before.
		return "duplicate-invalid"
	case blockchain.ErrBlockTooBig:
		return "bad-blk-length"
	case blockchain.ErrBlockWeightTooHigh:
		return "bad-blk-weight"
	case blockchain.ErrBlockVersionTooOld:
		return "bad-version"
	case blockchain.ErrInvalidTime, blockchain.ErrTimeTooNew:
		return "time-too-new"
	case blockchain.ErrTimeTooOld, blockchain.ErrCheckpointTimeTooOld:
		return "time-too-old"
	case blockchain.ErrTimewarpAttack:
		return "time-timewarp-attack"
	case blockchain.ErrDifficultyTooLow, blockchain.ErrUnexpectedDifficulty:
		return "bad-diffbits"
	case blockchain.ErrHighHash:
		return "high-hash"
	case blockchain.ErrBadMerkleRoot:
		return "bad-txnmrklroot"
	case blockchain.ErrBadCheckpoint:
		return "checkpoint mismatch"
	case blockchain.ErrForkTooOld:
		return "bad-fork-prior-to-checkpoint"
	case blockchain.ErrNoTransactions:
		return "bad-blk-length"
	case blockchain.ErrFirstTxNotCoinbase:
		return "bad-cb-missing"
	case blockchain.ErrMultipleCoinbases:
		return "bad-cb-multiple"
	case blockchain.ErrBadCoinbaseScriptLen:
		return "bad-cb-length"
	case blockchain.ErrMissingCoinbaseHeight, blockchain.ErrBadCoinbaseHeight:
		return "bad-cb-height"
	case blockchain.ErrBadCoinbaseValue:
		return "bad-cb-amount"
	case blockchain.ErrNoTxInputs:
		return "bad-txns-vin-empty"
	case blockchain.ErrNoTxOutputs:
		return "bad-txns-vout-empty"
	case blockchain.ErrTxTooBig:
		return "bad-txns-oversize"
	case blockchain.ErrBadTxOutValue:
		return "bad-txns-vout-outofrange"
	case blockchain.ErrDuplicateTxInputs:
		return "bad-txns-inputs-duplicate"
	case blockchain.ErrBadTxInput:
		return "bad-txns-prevout-null"
	case blockchain.ErrMissingTxOut:
		return "bad-txns-inputs-missingorspent"
	case blockchain.ErrUnfinalizedTx:
		return "bad-txns-nonfinal"
	case blockchain.ErrDuplicateTx:
		return "bad-txns-duplicate"
	case blockchain.ErrOverwriteTx:
		return "bad-txns-BIP30"
	case blockchain.ErrImmatureSpend:
		return "bad-txns-premature-spend-of-coinbase"
	case blockchain.ErrSpendTooHigh:
		return "bad-txns-in-belowout"
	case blockchain.ErrBadFees:
		return "bad-txns-fee-outofrange"
	case blockchain.ErrTooManySigOps:
		return "bad-blk-sigops"
	case blockchain.ErrScriptMalformed, blockchain.ErrScriptValidation:
		return "block-script-verify-flag-failed"
	case blockchain.ErrUnexpectedWitness:
		return "unexpected-witness"
	case blockchain.ErrInvalidWitnessCommitment:
		return "bad-witness-nonce-size"
	case blockchain.ErrWitnessCommitmentMismatch:
		return "bad-witness-merkle-match"
	case blockchain.ErrPreviousBlockUnknown:
		return "prev-blk-not-found"
	case blockchain.ErrInvalidAncestorBlock:
		return "bad-prevblk"
	case blockchain.ErrPrevBlockNotBest:
		return "inconclusive-not-best-prevblk"
	default:
		return "rejected"
	}
}
