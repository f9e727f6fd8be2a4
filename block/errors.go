package block

import (
	"errors"
	"fmt"
)

// Verdicts of a node, and of a [Confirmer], that callers branch on.
var (
	// ErrDuplicate is a node's answer for a block that it had already and has not found invalid (BIP 22
	// "duplicate"). For whoever submits, it is a success.
	ErrDuplicate = errors.New("block: node has the block already")

	// ErrStale is a node's answer for a block that is not on its best chain, most often because another block of the
	// same height came first (BIP 22 "inconclusive" or "stale-prevblk"). The block may still win if the chain reorganizes.
	ErrStale = errors.New("block: not on the best chain")

	// ErrUnknownBlock is what a [Confirmer] answers for a hash that it has no block of.
	ErrUnknownBlock = errors.New("block: unknown block")
)

// A RejectedError is the verdict of a node that looked at a block and refused it. Submitting the same bytes to the same
// node again is of no use.
type RejectedError struct {
	Node   string // name of the node, as the operator knows it; may be empty
	Reason string // what the node said, such as "bad-txnmrklroot" or "high-hash"
}

// Error names the node and its reason.
func (e *RejectedError) Error() string {
	if e.Node == "" {
		return fmt.Sprintf("block: rejected: %s", e.Reason)
	}
	return fmt.Sprintf("block: node %s rejected the block: %s", e.Node, e.Reason)
}
