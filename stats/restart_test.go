package stats_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stats"
	"github.com/poolkit/poolkit/stats/statstest"
	"github.com/stretchr/testify/require"
)

const t0 = 1713597568

// A source is a share log: positions are how many shares lie before them.
type source []share.Share

func newSource(r *rand.Rand, n int, seconds int64) source {
	verdicts := []share.Verdict{share.Accepted, share.Accepted, share.Accepted, share.LowDifficulty, share.Stale}
	s := make(source, n)
	for i := range s {
		user := int32(r.IntN(6)) + 1
		s[i] = share.Share{
			UserID: user, WorkerID: int64(r.IntN(3)) - 3, Verdict: verdicts[r.IntN(len(verdicts))],
			Time: time.Unix(t0+int64(i)*seconds/int64(n), 0), Difficulty: difficulty.Difficulty(int64(1) << r.IntN(30)),
			JobID: 1 << 40, Height: 840000, Nonce: uint32(i), Bits: 0x17034219, IP: netip.AddrFrom4([4]byte{10, 0, 0, byte(user)}),
		}
		if i%97 == 96 {
			s[i].Verdict = share.Solved
		}
	}
	return s
}

func (s source) from(position []byte) source {
	if position == nil {
		return s
	}
	return s[binary.BigEndian.Uint64(position):]
}

func (s source) position(rest source) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(len(s)-len(rest)))
}

// view is everything that must not depend on restarts.
type view struct {
	Snap    *stats.Snapshot
	Workers []stats.WorkerStats
	Rounds  []stats.Round
}

func viewOf(a *stats.Aggregator, now time.Time) view {
	return view{a.Snapshot(now), a.Workers(now, 0), a.Rounds()}
}

// TestKilledAtAnyPoint feeds a log through aggregators that are killed, with batches that fail, and batches that get
// through and whose caller never hears of it; in the end, everything is as if nothing had happened.
func TestKilledAtAnyPoint(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			log := newSource(r, 3000, 3*3600)
			// Buckets of a second, so that windows too must come out the same; the clock runs with the log.
			now := time.Unix(t0, 0)
			opts := &stats.Options{BucketSpan: time.Second, Now: func() time.Time { return now }, NormalizeRejects: seed%2 == 0}
			store := new(stats.Memory)
			kills := 0
			var last *stats.Aggregator
			done := false
			for !done {
				flaky := &statstest.Flaky{Store: store}
				agg, err := stats.New(opts)
				require.NoError(t, err)
				position, err := agg.Restore(t.Context(), flaky)
				require.NoError(t, err)
				rest := log.from(position)
				flusher := stats.NewFlusher(agg, flaky, nil)
				life := r.IntN(1500)
				for i := 0; ; i++ {
					if kills < 40 && life <= 0 {
						kills++
						break // kill -9: what was not written is gone
					}
					n := min(r.IntN(60), len(rest))
					if n > 0 {
						now = rest[n-1].Time
					}
					life -= n
					batch := rest[:n]
					rest = rest[n:]
					require.NoError(t, agg.Apply(t.Context(), batch, log.position(rest)))
					agg.Observe(3, -1, share.Worker{User: "carol", Name: "rig"})
					if r.IntN(4) == 0 {
						flaky.Fail(statstest.Failure(r.IntN(3)), statstest.Failure(r.IntN(3)))
						if err := flusher.Flush(t.Context()); err != nil {
							require.ErrorIs(t, err, statstest.ErrFlaky)
							if kills < 40 && r.IntN(2) == 0 {
								kills++
								break // killed in the middle of a write
							}
						}
						flaky.Fail()
					}
					if len(rest) == 0 {
						require.NoError(t, flusher.Flush(t.Context()))
						last, done = agg, true
						break
					}
				}
			}
			require.Greater(t, kills, 2)

			reference, err := stats.New(opts)
			require.NoError(t, err)
			for i := range log {
				now = log[i].Time
				require.NoError(t, reference.Put(t.Context(), log[i:i+1]))
			}
			reference.Observe(3, -1, share.Worker{User: "carol", Name: "rig"})
			want := viewOf(reference, now)
			require.Equal(t, want, viewOf(last, now))

			// And once more from the store alone.
			again, err := stats.New(opts)
			require.NoError(t, err)
			position, err := again.Restore(t.Context(), store)
			require.NoError(t, err)
			require.Empty(t, log.from(position))
			require.Equal(t, want, viewOf(again, now))

			var buckets, rounds difficulty.Difficulty
			for b, err := range store.Buckets(t.Context(), stats.Query{}) {
				require.NoError(t, err)
				buckets += b.Accepted.Sum
			}
			require.Equal(t, want.Snap.Pool.Accepted.Sum, buckets)
			for _, round := range want.Rounds {
				users, err := store.RoundUsers(t.Context(), round.Number)
				require.NoError(t, err)
				for _, u := range users {
					rounds += u.Shares
				}
			}
			require.Equal(t, want.Snap.Pool.Accepted.Sum, rounds+want.Snap.RoundShares)
		})
	}
}

func TestRestoreResolution(t *testing.T) {
	now := time.Unix(t0, 0)
	opts := &stats.Options{Now: func() time.Time { return now }}
	a, err := stats.New(opts)
	require.NoError(t, err)
	store := new(stats.Memory)
	f := stats.NewFlusher(a, store, nil)
	for ago := int64(3590); ago >= 0; ago -= 7 {
		require.NoError(t, a.Put(t.Context(), []share.Share{{
			UserID: 1, WorkerID: 1, Verdict: share.Accepted, Time: time.Unix(t0-ago, 0), Difficulty: 16}}))
	}
	require.NoError(t, f.Flush(t.Context()))
	b, err := stats.New(opts)
	require.NoError(t, err)
	_, err = b.Restore(t.Context(), store)
	require.NoError(t, err)
	want, got := a.Snapshot(now).Pool, b.Snapshot(now).Pool
	require.Equal(t, want.Accepted, got.Accepted)
	require.Equal(t, want.Large.Sum, got.Large.Sum)
	for _, pair := range [][2]difficulty.Difficulty{
		{want.Accept1m, got.Accept1m}, {want.Accept5m, got.Accept5m}, {want.Accept15m, got.Accept15m},
		{want.Accept1h, got.Accept1h},
	} {
		require.InDelta(t, float64(pair[0]), float64(pair[1]), 32, "off by no more than what comes in a bucket")
	}
}

func TestRestoreAfterADay(t *testing.T) {
	now := time.Unix(t0, 0)
	opts := &stats.Options{Now: func() time.Time { return now }}
	a, err := stats.New(opts)
	require.NoError(t, err)
	store := new(stats.Memory)
	f := stats.NewFlusher(a, store, nil)
	s := share.Share{
		UserID: 1, WorkerID: 1, Verdict: share.Accepted, Time: now, Difficulty: 16,
		Worker: share.Worker{User: "alice", Name: "rig"},
	}
	require.NoError(t, a.Put(t.Context(), []share.Share{s}))
	require.NoError(t, f.Flush(t.Context()))

	now = now.Add(25 * time.Hour)
	b, err := stats.New(opts)
	require.NoError(t, err)
	_, err = b.Restore(t.Context(), store)
	require.NoError(t, err)
	snap := b.Snapshot(now)
	require.Zero(t, snap.TotalWorkers)
	require.Zero(t, snap.Pool.Accept1h)
	require.Equal(t, stats.Tally{Count: 1, Sum: 16}, snap.Pool.Accepted)
	require.Equal(t, difficulty.Difficulty(16), snap.RoundShares)
	require.Equal(t, "alice", snap.Users[0].Name)
	b.Sweep(now)
	g := stats.NewFlusher(b, store, nil)
	require.NoError(t, g.Flush(t.Context()))
	st, err := store.State(t.Context())
	require.NoError(t, err)
	require.Len(t, st.Totals, 2, "the worker is gone, the pool and the user stay")
	for range store.Buckets(t.Context(), stats.Query{}) {
		t.Error("a bucket was not pruned after a day")
	}
}

func TestRestoreErrors(t *testing.T) {
	a, err := stats.New(nil)
	require.NoError(t, err)
	store := new(stats.Memory)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.Restore(ctx, store)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, a.Put(t.Context(), []share.Share{{
		UserID: 1, WorkerID: 1, Verdict: share.Accepted, Time: time.Now(), Difficulty: 16}}))
	_, err = a.Restore(t.Context(), store)
	require.ErrorContains(t, err, "has counted shares already")
}

func TestFlusherRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := stats.New(nil)
		require.NoError(t, err)
		store := &statstest.Flaky{Store: new(stats.Memory)}
		f := stats.NewFlusher(a, store, nil)
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 1)
		go func() { errs <- f.Run(ctx) }()
		put := func() {
			require.NoError(t, a.Put(t.Context(), []share.Share{{
				UserID: 1, WorkerID: 1, Verdict: share.Accepted, Time: time.Now(), Difficulty: 16}}))
		}
		stored := func() (n uint64) {
			for b, err := range store.Buckets(t.Context(), stats.Query{}) {
				require.NoError(t, err)
				n += b.Accepted.Count
			}
			return n
		}
		wait := func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}
		put()
		wait(14 * time.Second)
		require.Zero(t, stored())
		wait(2 * time.Second)
		require.EqualValues(t, 1, stored(), "written after 15 seconds")
		commits := store.Commits()
		wait(time.Minute)
		require.Equal(t, commits, store.Commits(), "nothing new, nothing written")

		store.Fail(statstest.Before, statstest.After)
		put()
		wait(45 * time.Second)
		require.EqualValues(t, 2, stored(), "repeated until it got through, and counted once")
		put()
		cancel()
		require.NoError(t, <-errs)
		require.EqualValues(t, 3, stored(), "and once more at the end")
	})
}

func TestFlusherGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(stats.Memory)
		errs := make(chan error, 2)
		aggs := make([]*stats.Aggregator, 2)
		for i := range aggs {
			var err error
			aggs[i], err = stats.New(nil)
			require.NoError(t, err)
			_, err = aggs[i].Restore(t.Context(), store)
			require.NoError(t, err)
		}
		// The first one writes, and the second one does not know of it.
		require.NoError(t, aggs[0].Apply(t.Context(), nil, []byte("1")))
		require.NoError(t, stats.NewFlusher(aggs[0], store, nil).Flush(t.Context()))
		require.NoError(t, aggs[1].Apply(t.Context(), nil, []byte("2")))
		require.NoError(t, stats.NewFlusher(aggs[0], store, nil).Flush(t.Context()))
		go func() { errs <- stats.NewFlusher(aggs[1], store, nil).Run(t.Context()) }()
		require.ErrorIs(t, <-errs, stats.ErrConflict)
		st, err := store.State(t.Context())
		require.NoError(t, err)
		require.Equal(t, "1", string(st.Position))
	})
}

func ExampleAggregator() {
	now := time.Unix(1713597568, 0)
	agg, err := stats.New(&stats.Options{Now: func() time.Time { return now }})
	if err != nil {
		fmt.Println(err)
		return
	}
	rig := share.Worker{User: "alice", Name: "rig1"}
	for ago := 600; ago > 0; ago -= 10 {
		s := share.Share{
			Worker: rig, UserID: 42, WorkerID: rig.ID(), Verdict: share.Accepted, Difficulty: 16384,
			Time: now.Add(time.Duration(-ago) * time.Second),
		}
		if err := agg.Put(context.Background(), []share.Share{s}); err != nil {
			fmt.Println(err)
		}
	}
	snap := agg.Snapshot(now)
	fmt.Println(snap.TotalWorkers, "worker,", difficulty.HashrateOf(snap.Pool.Accept5m, 5*time.Minute))
	for _, w := range agg.Workers(now, 42) {
		fmt.Println(w.Name, w.AcceptCount, "shares,", w.Small.Hashrate)
	}
	// Output:
	// 1 worker, 6.80 TH/s
	// rig1 60 shares, 7.04 TH/s
}

func ExampleWindow() {
	w := stats.NewWindow(5)
	for i := range int64(5) {
		w.Insert(i, float64(i+1))
	}
	fmt.Println(w.Sum(4, 2), w.Sum(4, 5))
	w.Insert(8, 9) // slots up to 3 leave
	fmt.Println(w.Sum(8, 5), w.Insert(3, 100))
	// Output:
	// 9 15
	// 14 false
}
