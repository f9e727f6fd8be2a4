package block

import "context"

// A Submitter hands a block to a node and reports what the node says of it. Every Submitter
//   - Accepts: nil means that the node took the block as its new tip;
//   - KnowsDuplicates: [ErrDuplicate] means that the node had the block already, as [Maker] must expect after a restart;
//   - KnowsStale: [ErrStale] means that the block is not on the node's best chain, though nothing is wrong with it;
//   - Rejects: a [*RejectedError] means that the node looked at the block and refused it for good. A refusal that time
//     can cure, because the node is syncing or lacks the parent, is no verdict;
//   - FailsWithoutVerdict: any other error means that nobody ruled on the block, because the node is down or says
//     something else, and that the same call may succeed later;
//   - HonorsContext: it returns soon after ctx ends, with an error that is none of the verdicts unless the node had
//     ruled by then;
//   - RetainsNothing: it neither modifies block nor uses it after returning;
//   - AllowsConcurrentCalls.
//
// One call is one attempt; retrying is the caller's. block is the serialised block, coinbase and transactions with
// their witnesses (BIP 144). The verdicts may be wrapped: test for them with [errors.Is] and [errors.As].
type Submitter interface {
	Submit(ctx context.Context, block []byte) error
}

// SubmitterFunc makes a Submitter of a function.
type SubmitterFunc func(ctx context.Context, block []byte) error

// Submit calls f.
func (f SubmitterFunc) Submit(ctx context.Context, block []byte) error { return f(ctx, block) }
