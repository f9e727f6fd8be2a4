package testnode_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/poolkit/poolkit/internal/noderpc"
	"github.com/poolkit/poolkit/internal/testnode"
	"github.com/stretchr/testify/require"
)

func TestChainSurvivesStopAndKill(t *testing.T) {
	n := testnode.Start(t, &testnode.Options{TxIndex: true})
	hashes := n.Generate(3)
	require.Len(t, hashes, 3)
	require.Equal(t, hashes[2], n.Tip())

	n.Stop()
	require.Error(t, n.TryCall(nil, "getblockcount"))
	n.Start()
	require.Equal(t, int32(3), n.Height())
	require.Equal(t, hashes[2], n.Tip())

	n.Kill()
	require.Error(t, n.TryCall(nil, "getblockcount"))
	n.Start()
	require.Equal(t, hashes[2], n.Tip())

	var tx struct {
		TxID string `json:"txid"`
	}
	id := n.Block(hashes[0]).Transactions[0].TxHash().String()
	n.Call(&tx, "getrawtransaction", id, 1)
	require.Equal(t, id, tx.TxID)
}

func TestSpendMakesWitnessBlocks(t *testing.T) {
	n := testnode.Start(t, nil)
	first := n.Generate(101)[0]
	spend := n.Spend(n.Block(first).Transactions[0], 1000)
	require.True(t, spend.HasWitness())
	n.Send(spend)
	b := n.Block(n.Generate(1)[0])
	require.Len(t, b.Transactions, 2)
	require.Equal(t, spend.TxHash(), b.Transactions[1].TxHash())
}

func TestFrozenNodeIsSilentUntilThawed(t *testing.T) {
	n := testnode.Start(t, nil)
	n.Freeze()
	client, err := noderpc.New(n.Node(), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err = client.Call(ctx, "getblockcount", nil, nil)
	require.True(t, errors.Is(err, context.DeadlineExceeded), "%v", err)
	n.Thaw()
	require.Equal(t, int32(0), n.Height())
}

func TestConnectedNodesShareBlocks(t *testing.T) {
	a, b := testnode.Start(t, nil), testnode.Start(t, nil)
	a.Connect(b)
	b.AwaitTip(a.Generate(2)[1])
	a.AwaitTip(b.Generate(1)[0])
	require.Equal(t, int32(3), a.Height())
}
