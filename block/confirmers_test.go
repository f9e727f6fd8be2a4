package block_test

import (
	"context"
	"errors"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/block"
	"github.com/stretchr/testify/require"
)

type confirmerFunc func(context.Context, chainhash.Hash) (int64, error)

func (f confirmerFunc) Confirmations(ctx context.Context, h chainhash.Hash) (int64, error) {
	return f(ctx, h)
}

func TestConfirmersAskTheNextNodeOnlyWhenOneCannotTell(t *testing.T) {
	down := confirmerFunc(func(context.Context, chainhash.Hash) (int64, error) { return 0, errors.New("node is down") })
	unknown := confirmerFunc(func(context.Context, chainhash.Hash) (int64, error) { return 0, block.ErrUnknownBlock })
	deep := confirmerFunc(func(context.Context, chainhash.Hash) (int64, error) { return 7, nil })
	ctx := t.Context()

	n, err := block.Confirmers(down, deep, unknown).Confirmations(ctx, chainhash.Hash{1})
	require.NoError(t, err)
	require.Equal(t, int64(7), n)
	_, err = block.Confirmers(unknown, deep).Confirmations(ctx, chainhash.Hash{1})
	require.ErrorIs(t, err, block.ErrUnknownBlock, "the first node that can tell decides")
	_, err = block.Confirmers(down, down).Confirmations(ctx, chainhash.Hash{1})
	require.ErrorContains(t, err, "node is down")
	require.NotErrorIs(t, err, block.ErrUnknownBlock, "nobody said so")
	_, err = block.Confirmers().Confirmations(ctx, chainhash.Hash{1})
	require.Error(t, err)
}
