package block_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/blocktest"
)

func newNodes(t testing.TB, opts *block.NodesOptions, submitters ...block.Submitter) *block.Nodes {
	t.Helper()
	var list []block.Node
	for i, s := range submitters {
		list = append(list, block.Node{Name: string(rune('a' + i)), Submitter: s})
	}
	n, err := block.NewNodes(list, opts)
	require.NoError(t, err)
	t.Cleanup(func() { n.Close() })
	return n
}

// says is a node that gives the same answers over and over.
func says(errs ...error) *blocktest.FlakySubmitter {
	s := new(blocktest.FlakySubmitter)
	s.FailNext(errs...)
	s.FailAll(errs[len(errs)-1])
	return s
}

// hangs is a node that answers when its context ends.
func hangs() block.Submitter {
	return block.SubmitterFunc(func(ctx context.Context, _ []byte) error {
		<-ctx.Done()
		return ctx.Err()
	})
}

func TestNodesKeepThePromises(t *testing.T) {
	for _, count := range []int{1, 3} {
		t.Run(fmt.Sprint(count, " nodes"), func(t *testing.T) {
			blocktest.TestSubmitter(t, func(t *testing.T) blocktest.SubmitterBackend {
				chain := make([]*blocktest.Node, count)
				var submitters []block.Submitter
				for i := range chain {
					chain[i] = new(blocktest.Node)
					submitters = append(submitters, chain[i])
				}
				extra := uint64(0)
				made := map[chainhash.Hash][]byte{}
				on := func(prev chainhash.Hash, height int32) []byte {
					extra++
					tmpl := blocktest.NewTemplate(prev, height, 2)
					_, s := blocktest.Solve(tmpl, extra)
					raw, err := block.Assemble(s, tmpl.Transactions)
					require.NoError(t, err)
					made[s.Hash] = raw
					return raw
				}
				// next returns a block for the highest tip, and sees to it that all nodes know that, as peers would.
				next := func(t *testing.T) []byte {
					tip, height := chain[0].Tip()
					for _, c := range chain[1:] {
						if hash, h := c.Tip(); h > height {
							tip, height = hash, h
						}
					}
					var path [][]byte
					for at := tip; at != (chainhash.Hash{}); at = chainhash.Hash(made[at][4:36]) {
						path = append(path, made[at])
					}
					for _, raw := range slices.Backward(path) {
						for _, c := range chain {
							if err := c.Submit(t.Context(), raw); !errors.Is(err, block.ErrDuplicate) {
								require.NoError(t, err)
							}
						}
					}
					return on(tip, height+1)
				}
				n := newNodes(t, &block.NodesOptions{RetryMin: time.Millisecond, RetryMax: time.Millisecond}, submitters...)
				return blocktest.SubmitterBackend{
					Submitter: n,
					Block:     next,
					// A slower node may take the second submission before it gets the first.
					ForgetsDuplicates: count > 1,
					Stale: func(t *testing.T) []byte {
						raw := next(t)
						for _, c := range chain {
							require.NoError(t, c.Submit(t.Context(), raw))
						}
						tip, height := chain[0].Tip()
						return on(chainhash.Hash(made[tip][4:36]), height)
					},
					Down: func(*testing.T) {
						for _, c := range chain {
							c.SetDown(true)
						}
					},
					Up: func(*testing.T) {
						for _, c := range chain {
							c.SetDown(false)
						}
					},
				}
			})
		})
	}
}

func TestNodesVerdict(t *testing.T) {
	down := errors.New("connection refused")
	reject := func(reason string) error { return &block.RejectedError{Reason: reason} }
	tests := []struct {
		name     string
		nodes    []error // what each answers, for good
		accepted bool
		is, not  error
		rejected bool
		text     []string
	}{
		{"all take it", []error{nil, nil}, true, nil, nil, false, nil},
		{"one takes it", []error{reject("bad"), down, nil}, true, nil, nil, false, nil},
		{"one has it", []error{reject("bad"), down, block.ErrDuplicate}, true, block.ErrDuplicate, nil, false, nil},
		{"one has it, wrapped", []error{fmt.Errorf("rpc: %w", block.ErrDuplicate), down}, true, block.ErrDuplicate, nil, false, nil},
		{"stale here, refused there", []error{reject("bad"), block.ErrStale}, false, block.ErrStale, nil, false, []string{"node b"}},
		{"stale here, down there", []error{down, block.ErrStale}, false, block.ErrStale, nil, false, []string{"node b"}},
		{"all refuse", []error{reject("bad-txnmrklroot"), reject("high-hash")}, false, nil, nil, true,
			[]string{"node a rejected the block: bad-txnmrklroot", "node b rejected the block: high-hash"}},
		{"one refuses, one is down", []error{reject("bad-cb-amount"), down}, false, down, nil, false,
			[]string{"no verdict", "node b: connection refused", "node a rejected the block: bad-cb-amount"}},
		{"all are down", []error{down, down}, false, down, nil, false, []string{"node a", "node b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var submitters []block.Submitter
				for _, err := range tt.nodes {
					submitters = append(submitters, says(err))
				}
				n := newNodes(t, nil, submitters...)
				err := n.Submit(t.Context(), make([]byte, 81))
				if tt.accepted {
					require.True(t, err == nil || errors.Is(err, block.ErrDuplicate), "%v", err)
				} else {
					require.Error(t, err)
					require.NotErrorIs(t, err, block.ErrDuplicate)
				}
				if tt.is != nil {
					require.ErrorIs(t, err, tt.is)
				}
				var rejected *block.RejectedError
				require.Equal(t, tt.rejected, errors.As(err, &rejected), "%v", err)
				if tt.rejected {
					require.NotEmpty(t, rejected.Node)
				}
				for _, s := range tt.text {
					require.ErrorContains(t, err, s)
				}
				require.NoError(t, n.Close())
				require.Zero(t, n.Stats().Pending)
			})
		})
	}
}

// The first node to take the block decides; the others get it all the same, with their own retries.
func TestNodesFirstSuccessWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("connection refused")
		slow := says(down, down, nil)
		slow.Submitter = block.SubmitterFunc(func(_ context.Context, raw []byte) error {
			if raw[0] != 0 {
				return &block.RejectedError{Reason: "the caller's buffer"}
			}
			return nil
		})
		slow.FailAll(nil)
		results := make(chan block.NodeResult, 10)
		n := newNodes(t, &block.NodesOptions{Result: func(r block.NodeResult) { results <- r }}, slow, hangs(), says(nil))
		raw := make([]byte, 81)
		started := time.Now()
		require.NoError(t, n.Submit(t.Context(), raw))
		require.Zero(t, time.Since(started))
		raw[0] = 0xff // the caller's again

		synctest.Wait()
		time.Sleep(99 * time.Millisecond) // in the bubble
		synctest.Wait()
		require.Equal(t, 1, slow.Calls())
		time.Sleep(201 * time.Millisecond) // 100 ms, then 200 ms
		synctest.Wait()
		require.Equal(t, 3, slow.Calls())
		require.EqualValues(t, 1, n.Stats().Pending)

		// The one that hangs is let go of after its attempts: three of 30 s.
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Zero(t, n.Stats().Pending)
		close(results)
		got := map[string][]bool{}
		for r := range results {
			require.Equal(t, chainhash.DoubleHashH(make([]byte, 80)), r.Hash)
			got[r.Node] = append(got[r.Node], r.Last)
			require.Equal(t, len(got[r.Node]), r.Attempt)
			if r.Node == "b" {
				require.Equal(t, 30*time.Second, r.Took)
				require.ErrorIs(t, r.Err, context.DeadlineExceeded)
			}
		}
		require.Equal(t, map[string][]bool{"a": {false, false, true}, "b": {false, false, true}, "c": {true}}, got)
		require.Equal(t, block.NodesStats{Submitted: 1, Attempts: 7, Accepted: 2, Failed: 5}, n.Stats())
	})
}

func TestNodesHonorContextAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan struct{})
		ended := make(chan error, 1)
		n := newNodes(t, &block.NodesOptions{CloseTimeout: 5 * time.Second},
			block.SubmitterFunc(func(ctx context.Context, _ []byte) error {
				select {
				case <-late:
					return nil
				case <-ctx.Done():
					ended <- ctx.Err()
					return ctx.Err()
				}
			}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		started := time.Now()
		err := n.Submit(ctx, make([]byte, 81))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(started))
		require.EqualValues(t, 1, n.Stats().Pending, "the delivery goes on")

		started = time.Now()
		require.NoError(t, n.Close())
		require.Equal(t, 5*time.Second, time.Since(started))
		require.ErrorIs(t, <-ended, context.Canceled)
		require.Zero(t, n.Stats().Pending)
		require.ErrorContains(t, n.Submit(t.Context(), make([]byte, 81)), "closed")
		require.NoError(t, n.Close())
	})
	synctest.Test(t, func(t *testing.T) {
		n := newNodes(t, &block.NodesOptions{CloseTimeout: -1}, says(nil), hangs())
		require.NoError(t, n.Submit(t.Context(), make([]byte, 81)))
		started := time.Now()
		require.NoError(t, n.Close())
		require.Zero(t, time.Since(started))
	})
}

func TestNodesAttemptsWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs []error
		for range 50 {
			errs = append(errs, errors.New("down"))
		}
		s := says(append(errs, nil)...)
		n := newNodes(t, &block.NodesOptions{Attempts: -1}, s)
		started := time.Now()
		require.NoError(t, n.Submit(t.Context(), make([]byte, 81)))
		require.Equal(t, 51, s.Calls())
		// 0.1 + 0.2 + … + 6.4 s, and 43 pauses of 10 s.
		require.Equal(t, 12700*time.Millisecond+43*10*time.Second, time.Since(started))
	})
}

// A node that hangs takes up no more memory than MaxPending blocks.
func TestNodesBoundPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		busy := 0
		n := newNodes(t, &block.NodesOptions{MaxPending: 4, Result: func(r block.NodeResult) {
			mu.Lock()
			defer mu.Unlock()
			if r.Node == "b" && r.Err != nil && r.Took == 0 {
				busy++
			}
		}}, says(nil), hangs())
		for range 10 {
			require.NoError(t, n.Submit(t.Context(), make([]byte, 81)))
			synctest.Wait()
		}
		mu.Lock()
		require.Equal(t, 6, busy)
		mu.Unlock()
		require.EqualValues(t, 4, n.Stats().Pending)

		// Alone, it gives no verdict, so that the block is tried again later.
		n = newNodes(t, &block.NodesOptions{MaxPending: 1, CloseTimeout: -1}, hangs())
		go n.Submit(t.Context(), make([]byte, 81))
		synctest.Wait()
		err := n.Submit(t.Context(), make([]byte, 81))
		require.ErrorContains(t, err, "too many blocks under way")
		var rejected *block.RejectedError
		require.NotErrorAs(t, err, &rejected)
	})
}

func TestNewNodesReportsEverything(t *testing.T) {
	_, err := block.NewNodes(nil, nil)
	require.ErrorContains(t, err, "no nodes")
	_, err = block.NewNodes([]block.Node{{Name: "a", Submitter: says(nil)}, {Name: "a"}, {Submitter: says(nil)}},
		&block.NodesOptions{AttemptTimeout: -1, RetryMin: time.Minute, RetryMax: time.Second, MaxPending: -1})
	for _, want := range []string{`two nodes are named "a"`, `node 2, "a", has no Submitter`, "node 3 has no name",
		"AttemptTimeout is negative", "RetryMax 1s is below RetryMin 1m0s", "MaxPending is negative"} {
		require.ErrorContains(t, err, want)
	}
}
