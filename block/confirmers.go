package block

import (
	"context"
	"errors"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// Confirmers asks several nodes about a block, in the given order: the first that can tell decides, which is also so
// when it does not know the block. A node that is down or syncing is passed over, and the error tells why when all are.
func Confirmers(nodes ...Confirmer) Confirmer { return confirmers(nodes) }

type confirmers []Confirmer

func (c confirmers) Confirmations(ctx context.Context, hash chainhash.Hash) (int64, error) {
	errs := []error{errors.New("block: no node could tell about " + hash.String())}
	for _, node := range c {
		n, err := node.Confirmations(ctx, hash)
		if err == nil || errors.Is(err, ErrUnknownBlock) {
			return n, err
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return 0, errors.Join(errs...)
}
