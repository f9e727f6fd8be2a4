package rpcjob_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/internal/testnode"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/jobtest"
	"github.com/poolkit/poolkit/job/rpcjob"
	"github.com/stretchr/testify/require"
)

func TestSourceOnFakeNode(t *testing.T) {
	for name, opts := range map[string]rpcjob.Options{
		"long poll":    {Interval: never, RetryInterval: 10 * time.Millisecond},
		"polling":      {Interval: 10 * time.Millisecond, RetryInterval: 10 * time.Millisecond, LongPollTimeout: -1},
		"both at once": {Interval: 10 * time.Millisecond, RetryInterval: 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			jobtest.TestSource(t, func(t *testing.T) jobtest.Node {
				n := newFakeNode(t)
				source, err := rpcjob.New(n.node(), &opts)
				require.NoError(t, err)
				return jobtest.Node{
					Source:          source,
					NewBlock:        func(*testing.T) { n.set(func() { n.height++; n.tip = chainhash.Hash{byte(n.height), 1} }) },
					NewTransactions: n.addTransaction,
					SetDown: func(_ *testing.T, down bool) {
						n.set(func() {
							if down {
								n.answers["getblocktemplate"] = "down"
							} else {
								delete(n.answers, "getblocktemplate")
							}
						})
					},
				}
			})
		})
	}
}

func TestSourceOnBTCD(t *testing.T) {
	jobtest.TestSource(t, func(t *testing.T) jobtest.Node {
		n := testnode.Start(t, nil)
		source, err := rpcjob.New(n.Node(), &rpcjob.Options{RetryInterval: 100 * time.Millisecond})
		require.NoError(t, err)
		return jobtest.Node{
			Source:   source,
			NewBlock: func(*testing.T) { n.Generate(1) },
			SetDown: func(_ *testing.T, down bool) {
				if down {
					n.Stop()
				} else {
					n.Start()
				}
			},
			Patience: 30 * time.Second,
		}
	})
}

func TestBTCDTemplate(t *testing.T) {
	n := testnode.Start(t, nil)
	hashes := n.Generate(101)
	spend := n.Spend(n.Block(hashes[0]).Transactions[0], 5000)
	n.Send(spend)
	w := watch(t, n.Node(), rpcjob.Options{})
	tpl := get(t, w.templates, "the first template")
	require.Equal(t, int32(102), tpl.Height)
	require.Equal(t, hashes[100], tpl.PrevHash)
	require.Len(t, tpl.Transactions, 1)
	require.Equal(t, spend.TxHash(), tpl.Transactions[0].TxID)
	require.Equal(t, spend.WitnessHash(), tpl.Transactions[0].WTxID)
	require.Equal(t, int64(5000), tpl.Transactions[0].Fee)
	require.Equal(t, int64(50e8+5000), tpl.CoinbaseValue)
	require.Equal(t, job.WitnessCommitment(tpl.Transactions), tpl.WitnessCommitment)
	require.NotEmpty(t, tpl.LongPollID)
}

func TestBTCDLongPollNoticesABlockFromElsewhere(t *testing.T) {
	a, b := testnode.Start(t, nil), testnode.Start(t, nil)
	a.Connect(b)
	b.AwaitTip(a.Generate(1)[0])
	w := watch(t, a.Node(), rpcjob.Options{Interval: never})
	w.tip(a.Tip())
	for range 3 {
		until(t, "a long poll is out", func() bool { return w.Stats().LongPolls == w.Stats().Tips })
		mined := b.Generate(1)[0]
		notice := w.tip(mined)
		require.Equal(t, rpcjob.LongPoll, notice.Way)
		t.Logf("template %v after the notice", notice.Took)
	}
	require.Equal(t, uint64(1), w.Stats().Requests)
}

func TestBTCDFreezeStopAndStartWhileWatching(t *testing.T) {
	n := testnode.Start(t, nil)
	n.Generate(1)
	w := watch(t, n.Node(), rpcjob.Options{
		Interval: 20 * time.Millisecond, RetryInterval: 20 * time.Millisecond, Timeout: 200 * time.Millisecond,
	})
	w.tip(n.Tip())

	n.Freeze()
	require.ErrorIs(t, get(t, w.failures, "a failure while frozen"), context.DeadlineExceeded)
	n.Thaw()
	w.tip(n.Generate(1)[0])

	n.Stop()
	for len(w.failures) > 0 {
		<-w.failures
	}
	get(t, w.failures, "a failure while stopped")
	n.Start()
	mined := n.Generate(1)[0]
	notice := w.tip(mined)
	require.Equal(t, int32(4), notice.Height)
}

func TestBTCDCheck(t *testing.T) {
	n := testnode.Start(t, nil)
	s, err := rpcjob.New(n.Node(), nil)
	require.NoError(t, err)
	require.NoError(t, s.Check(t.Context(), testnode.Params()))

	wrong := n.Node()
	wrong.Pass = "wrong"
	s, err = rpcjob.New(wrong, nil)
	require.NoError(t, err)
	require.ErrorIs(t, s.Check(t.Context(), testnode.Params()), rpcjob.ErrUnauthorized)
}

func Example() {
	node := httptest.NewServer(exampleNode{})
	defer node.Close()

	source, err := rpcjob.New(rpcjob.Node{URL: node.URL, User: "pool", Pass: "secret"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = source.Watch(ctx, func(t *job.Template) {
		fmt.Println("template for block", t.Height)
		cancel()
	})
	fmt.Println("watch:", err)
	// Output:
	// template for block 100
	// watch: <nil>
}

// BenchmarkNoticeToTemplate measures one new block: ZMQ's absence, the long poll's reply, the parsing and the put.
func BenchmarkNoticeToTemplate(b *testing.B) {
	for _, name := range jobtest.Names() {
		b.Run(name, func(b *testing.B) {
			n := newBenchNode(b, jobtest.Reply(b, name))
			source, err := rpcjob.New(rpcjob.Node{URL: n.URL}, &rpcjob.Options{Interval: time.Hour})
			require.NoError(b, err)
			ctx, cancel := context.WithCancel(b.Context())
			put, done := make(chan *job.Template), make(chan struct{})
			go func() { defer close(done); source.Watch(ctx, func(t *job.Template) { put <- t }) }()
			<-put
			<-n.waiting
			b.ReportAllocs()
			for b.Loop() {
				n.mine <- struct{}{}
				<-put
				<-n.waiting
			}
			cancel()
			<-done
		})
	}
}
