package block_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/blocktest"
)

// depths is a chain of which only the answers are known.
type depths struct {
	mu      sync.Mutex
	answers map[chainhash.Hash]int64
	err     error // for every question
	bad     chainhash.Hash
	asked   []chainhash.Hash
}

func (d *depths) set(hash chainhash.Hash, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answers == nil {
		d.answers = map[chainhash.Hash]int64{}
	}
	if n == 0 {
		delete(d.answers, hash)
	} else {
		d.answers[hash] = n
	}
}

func (d *depths) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *depths) Confirmations(ctx context.Context, hash chainhash.Hash) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, hash)
	switch n, ok := d.answers[hash]; {
	case d.err != nil:
		return 0, d.err
	case hash == d.bad:
		return 0, errors.New("internal error")
	case !ok:
		return 0, fmt.Errorf("rpc: %w", block.ErrUnknownBlock)
	default:
		return n, nil
	}
}

func (d *depths) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.asked)
}

func candidate(i int, outcome block.Outcome) *block.Found {
	f := someFound(i)
	f.Outcome, f.FoundAt, f.CreatedAt = outcome, time.Now().UTC().Round(0), time.Now().UTC().Round(0)
	return f
}

func TestWatcherFollowsTheChain(t *testing.T) {
	const unknown = 0
	tests := []struct {
		name    string
		outcome block.Outcome
		answers []int64
		waits   []time.Duration
		want    []block.State
	}{
		{
			"confirmed and matured", block.Accepted,
			[]int64{1, 5, 6, 99, 100}, []time.Duration{0, 0, 0, 0, 0},
			[]block.State{block.Candidate, block.Candidate, block.Immature, block.Immature, block.Matured},
		}, {
			"orphaned as a candidate", block.Accepted,
			[]int64{1, -1, 5, 6, 100}, []time.Duration{0, 0, 0, 0, 0},
			[]block.State{block.Candidate, block.Orphaned, block.Orphaned, block.Immature, block.Matured},
		}, {
			"orphaned when immature, and back", block.Accepted,
			[]int64{6, -1, -1, 7, -1, 120}, []time.Duration{0, 0, 0, 0, 0, 0},
			[]block.State{block.Immature, block.Orphaned, block.Orphaned, block.Immature, block.Orphaned, block.Matured},
		}, {
			"matured is final", block.Accepted,
			[]int64{100, -1, unknown}, []time.Duration{0, 0, time.Hour},
			[]block.State{block.Matured, block.Matured, block.Matured},
		}, {
			"immature and then unknown", block.Accepted,
			[]int64{6, unknown, unknown, 7}, []time.Duration{0, time.Hour, time.Hour, 0},
			[]block.State{block.Immature, block.Immature, block.Immature, block.Immature},
		}, {
			"immature with fewer confirmations", block.Accepted,
			[]int64{6, 2, 100}, []time.Duration{0, 0, 0},
			[]block.State{block.Immature, block.Immature, block.Matured},
		}, {
			"unknown for a minute", block.Accepted,
			[]int64{unknown, unknown}, []time.Duration{50 * time.Second, 10 * time.Second},
			[]block.State{block.Candidate, block.Orphaned},
		}, {
			"unknown with an interruption", block.Accepted,
			[]int64{unknown, 1, unknown, unknown}, []time.Duration{50 * time.Second, 0, 50 * time.Second, 10 * time.Second},
			[]block.State{block.Candidate, block.Candidate, block.Candidate, block.Orphaned},
		}, {
			"rejected", block.Rejected,
			[]int64{unknown, unknown}, []time.Duration{50 * time.Second, 10 * time.Second},
			[]block.State{block.Candidate, block.Orphaned},
		}, {
			"rejected by mistake", block.Rejected,
			[]int64{unknown, 6, 100}, []time.Duration{0, 0, 0},
			[]block.State{block.Candidate, block.Immature, block.Matured},
		}, {
			"stale that wins", block.Stale,
			[]int64{-1, 6, 100}, []time.Duration{0, 0, 0},
			[]block.State{block.Orphaned, block.Immature, block.Matured},
		}, {
			"not submitted yet", block.Unsubmitted,
			[]int64{unknown, unknown, 6}, []time.Duration{time.Hour, 40 * time.Hour, 0},
			[]block.State{block.Candidate, block.Candidate, block.Immature},
		}, {
			"never submitted", block.Unsubmitted,
			[]int64{unknown, unknown}, []time.Duration{48 * time.Hour, 2 * time.Minute},
			[]block.State{block.Candidate, block.Orphaned},
		}, {
			"an orphan is not asked about for ever", block.Accepted,
			[]int64{-1, -1, 50}, []time.Duration{0, 49 * time.Hour, time.Hour},
			[]block.State{block.Orphaned, block.Orphaned, block.Orphaned},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var rec block.Memory
				var chain depths
				var mu sync.Mutex
				var changes []block.State
				w, err := block.NewWatcher(&rec, &chain, &block.WatcherOptions{Changed: func(f block.Found, from block.State) {
					mu.Lock()
					defer mu.Unlock()
					changes = append(changes, from, f.State)
				}})
				require.NoError(t, err)
				f := candidate(1, tt.outcome)
				require.NoError(t, rec.Record(t.Context(), f))
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				var want []block.State
				last := block.Candidate
				for i, answer := range tt.answers {
					chain.set(f.Hash, answer)
					if i == 0 {
						go func() { done <- w.Run(ctx) }()
						synctest.Wait() // the first look is at once
					} else {
						time.Sleep(10 * time.Second)
						synctest.Wait()
					}
					time.Sleep(tt.waits[i])
					synctest.Wait()
					list := foundList(t, &rec, block.Query{})
					require.Len(t, list, 1)
					require.Equal(t, tt.want[i], list[0].State, "step %d", i)
					require.Equal(t, tt.outcome, list[0].Outcome)
					if tt.want[i] != last {
						want = append(want, last, tt.want[i])
						last = tt.want[i]
					}
				}
				cancel()
				require.NoError(t, <-done)
				require.Equal(t, want, changes)
				require.EqualValues(t, len(want)/2, w.Stats().Changes)
			})
		})
	}
}

func TestWatcherSurvivesFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &blocktest.FlakyRecorder{Recorder: new(block.Memory)}
		var chain depths
		w, err := block.NewWatcher(rec, &chain, nil)
		require.NoError(t, err)
		for i := range 10 {
			f := candidate(i, block.Accepted)
			require.NoError(t, rec.Record(t.Context(), f))
			chain.set(f.Hash, 6)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		chain.fail(errDown)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		require.Equal(t, 3, chain.count(), "a node that is down is not asked about every block")
		chain.fail(nil)

		rec.FoundFaults.FailNext(errDown)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, 3, chain.count())

		rec.FailNext(nil, errDown, nil) // the second block is not recorded this time
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, 13, chain.count())
		require.Len(t, foundList(t, rec, block.Query{States: []block.State{block.Candidate}}), 1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Empty(t, foundList(t, rec, block.Query{States: []block.State{block.Candidate}}))
		require.Equal(t, block.WatcherStats{Checks: 4, Questions: 23, Changes: 10, Failures: 5}, w.Stats())
		cancel()
		require.NoError(t, <-done)
	})
}

// One block that the node cannot answer for does not hide the others, nor do failures make a block unknown.
func TestWatcherIsolatesBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec block.Memory
		var chain depths
		w, err := block.NewWatcher(&rec, &chain, &block.WatcherOptions{Chain: "btc", ConfirmDepth: 1, MatureDepth: 3})
		require.NoError(t, err)
		first, second, other := candidate(1, block.Accepted), candidate(2, block.Accepted), candidate(3, block.Accepted)
		other.Chain = "bch"
		for _, f := range []*block.Found{first, second, other} {
			require.NoError(t, rec.Record(t.Context(), f))
		}
		chain.bad = first.Hash
		chain.set(second.Hash, 1)
		for range 3 {
			err := w.Check(t.Context())
			require.ErrorContains(t, err, "internal error")
			time.Sleep(time.Hour)
		}
		list := foundList(t, &rec, block.Query{})
		require.Equal(t, []block.State{block.Candidate, block.Immature, block.Candidate},
			[]block.State{list[0].State, list[1].State, list[2].State})
		require.NotContains(t, chain.asked, other.Hash)

		chain.set(second.Hash, 3)
		require.Error(t, w.Check(t.Context()))
		require.Equal(t, block.Matured, foundList(t, &rec, block.Query{})[1].State)
	})
}

// A failure between two answers "unknown" does not start the grace period anew, nor does it end it.
func TestWatcherGraceAcrossFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec block.Memory
		var chain depths
		w, err := block.NewWatcher(&rec, &chain, nil)
		require.NoError(t, err)
		f := candidate(1, block.Accepted)
		require.NoError(t, rec.Record(t.Context(), f))
		require.NoError(t, w.Check(t.Context()))
		time.Sleep(30 * time.Second)
		chain.fail(errDown)
		require.Error(t, w.Check(t.Context()))
		time.Sleep(40 * time.Second)
		require.Error(t, w.Check(t.Context()))
		require.Equal(t, block.Candidate, foundList(t, &rec, block.Query{})[0].State)
		chain.fail(nil)
		require.NoError(t, w.Check(t.Context()))
		require.Equal(t, block.Orphaned, foundList(t, &rec, block.Query{})[0].State)
	})
}

// Maker and Watcher write the same record, and a resubmission does not undo what the chain has said.
func TestWatcherBesideMaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		stop := b.run()
		w, err := block.NewWatcher(&b.rec, &b.chain, &block.WatcherOptions{ConfirmDepth: 1, MatureDepth: 2})
		require.NoError(t, err)
		s := solution(1)
		require.NoError(t, b.maker.PutSolution(t.Context(), s))
		synctest.Wait()
		require.NoError(t, w.Check(t.Context()))
		require.Equal(t, block.Immature, b.found()[0].State)

		require.NoError(t, b.maker.PutSolution(t.Context(), s))
		synctest.Wait()
		require.Equal(t, block.Immature, b.found()[0].State)
		require.Contains(t, b.found()[0].Reason, "already")

		_, next := blocktest.Solve(blocktest.NewTemplate(s.Hash, 2, 1), 1)
		require.NoError(t, b.maker.PutSolution(t.Context(), next))
		synctest.Wait()
		require.NoError(t, w.Check(t.Context()))
		list := b.found()
		require.Equal(t, []block.State{block.Immature, block.Matured}, []block.State{list[0].State, list[1].State})
		stop()
	})
}

func TestNewWatcherReportsEverything(t *testing.T) {
	_, err := block.NewWatcher(nil, nil, &block.WatcherOptions{Interval: -1, ConfirmDepth: -1, MatureDepth: -2, SubmitGrace: -1})
	for _, want := range []string{"no recorder", "no confirmer", "Interval is negative", "ConfirmDepth is negative",
		"SubmitGrace is negative"} {
		require.ErrorContains(t, err, want)
	}
	_, err = block.NewWatcher(new(block.Memory), new(depths), &block.WatcherOptions{ConfirmDepth: 7, MatureDepth: 6})
	require.ErrorContains(t, err, "MatureDepth 6 is below ConfirmDepth 7")
}
