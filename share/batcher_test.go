package share_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/share/sharetest"
)

// run starts b.Run and returns a function that stops it and returns its error.
func run(t testing.TB, b *share.Batcher) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

func newBatcher(t testing.TB, next share.Sink, opts *share.BatcherOptions) *share.Batcher {
	b, err := share.NewBatcher(next, opts)
	require.NoError(t, err)
	return b
}

func TestBatcherIsASink(t *testing.T) {
	for name, opts := range map[string]*share.BatcherOptions{
		"defaults":      nil,
		"tiny":          {MaxQueue: 7, MaxBatch: 3, Interval: -1},
		"one at a time": {MaxQueue: 1},
	} {
		t.Run(name, func(t *testing.T) {
			sharetest.TestSink(t, func(t *testing.T) sharetest.Backend {
				m := new(sharetest.Memory)
				f := sharetest.NewFlaky(m)
				b := newBatcher(t, f, opts)
				stop := run(t, b)
				t.Cleanup(func() { f.Heal(); require.NoError(t, stop()) })
				return sharetest.Backend{
					Sink: b,
					Shares: func() ([]share.Share, error) {
						err := b.Flush(t.Context())
						return m.Shares(), err
					},
					Stall: func() func() { f.Block(); return f.Heal },
				}
			})
		})
	}
}

func TestBatcherWaitsForCompanyAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(sharetest.Memory)
		b := newBatcher(t, m, &share.BatcherOptions{MaxBatch: 10, Interval: time.Second})
		stop := run(t, b)
		require.NoError(t, b.Put(t.Context(), sharetest.Numbers(0, 1)))
		time.Sleep(600 * time.Millisecond) // the bubble's clock
		require.NoError(t, b.Put(t.Context(), sharetest.Numbers(1, 3)))
		time.Sleep(399 * time.Millisecond)
		synctest.Wait()
		require.Empty(t, m.Batches())
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.Equal(t, []int{3}, m.Batches(), "the oldest share has waited a second")

		require.NoError(t, b.Put(t.Context(), sharetest.Numbers(3, 15)))
		synctest.Wait()
		require.Equal(t, []int{3, 10}, m.Batches(), "a full batch goes out at once, the rest waits")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []int{3, 10, 2}, m.Batches())

		require.NoError(t, b.Put(t.Context(), sharetest.Numbers(15, 16)))
		require.NoError(t, b.Flush(t.Context()))
		require.Equal(t, []int{3, 10, 2, 1}, m.Batches(), "Flush waits for nothing")

		require.NoError(t, b.Put(t.Context(), sharetest.Numbers(16, 20)))
		require.NoError(t, stop())
		require.Equal(t, sharetest.Numbers(0, 20), m.Shares(), "what was accepted is passed on at the end")
		require.Equal(t, share.BatcherStats{Accepted: 20, Delivered: 20, Batches: 5}, b.Stats())
		require.ErrorIs(t, b.Put(t.Context(), sharetest.Numbers(20, 21)), share.ErrStopped)
		require.ErrorContains(t, b.Run(t.Context()), "has run")
		require.NoError(t, b.Flush(t.Context()), "everything has been passed on")
	})
}

func TestBatcherHasABoundAndDropsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(sharetest.Memory)
		f := sharetest.NewFlaky(m)
		f.Block()
		b := newBatcher(t, f, &share.BatcherOptions{MaxQueue: 10, MaxBatch: 4})
		stop := run(t, b)
		require.NoError(t, b.Put(t.Context(), sharetest.Numbers(0, 8)))
		errs := make(chan error, 3)
		put := func(ctx context.Context, from, to int) {
			go func() { errs <- b.Put(ctx, sharetest.Numbers(from, to)) }()
			synctest.Wait()
		}
		gaveUp, cancel := context.WithCancel(t.Context())
		put(gaveUp, 100, 105) // waits: only 2 fit
		put(t.Context(), 8, 13)
		put(t.Context(), 13, 14) // would fit, but must not overtake
		require.Empty(t, errs)
		require.Equal(t, 8, b.Stats().Queued)
		cancel()
		require.ErrorIs(t, <-errs, context.Canceled)
		synctest.Wait()
		require.Equal(t, 8, b.Stats().Queued, "a Put that gave up has queued nothing")

		f.Heal()
		require.NoError(t, <-errs)
		require.NoError(t, <-errs)
		require.NoError(t, b.Put(t.Context(), sharetest.Numbers(14, 50)), "more than the queue holds goes in by pieces")
		require.NoError(t, stop())
		require.Equal(t, sharetest.Numbers(0, 50), m.Shares())
		require.Equal(t, uint64(4), b.Stats().Waits)
	})
}

func TestBatcherRetriesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(sharetest.Memory)
		f := sharetest.NewFlaky(m)
		var log bytes.Buffer
		b := newBatcher(t, f, &share.BatcherOptions{MaxQueue: 100, MaxBatch: 3, Interval: -1, MaxBackoff: time.Second,
			Logger: slog.New(slog.NewTextHandler(&log, nil))})
		stop := run(t, b)
		f.FailNext(-1, errors.New("disk full"))
		start := time.Now()
		for i := range 10 {
			require.NoError(t, b.Put(t.Context(), sharetest.Numbers(i, i+1)))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		// Attempts at 0, 50, 150, 350, 750, 1550 ms and then every second.
		require.Equal(t, 6+8, f.Calls())
		f.Heal()
		require.NoError(t, b.Flush(t.Context()))
		require.LessOrEqual(t, time.Since(start), 11*time.Second)
		require.Equal(t, sharetest.Numbers(0, 10), m.Shares())
		require.Equal(t, uint64(14), b.Stats().Failures)
		require.NoError(t, stop())
		require.Contains(t, log.String(), "disk full")
	})
}

func TestBatcherGivesUpAtStopWithinItsBound(t *testing.T) {
	for name, break_ := range map[string]func(f *sharetest.Flaky){
		"sink fails": func(f *sharetest.Flaky) { f.FailNext(-1, errors.New("disk full")) },
		"sink hangs": func(f *sharetest.Flaky) { f.Block() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := new(sharetest.Memory)
				f := sharetest.NewFlaky(m)
				break_(f)
				b := newBatcher(t, f, &share.BatcherOptions{MaxQueue: 5, StopTimeout: 2 * time.Second})
				stop := run(t, b)
				require.NoError(t, b.Put(t.Context(), sharetest.Numbers(0, 5)))
				waits, flush := make(chan error, 1), make(chan error, 1)
				go func() { waits <- b.Put(t.Context(), sharetest.Numbers(5, 6)) }()
				go func() { flush <- b.Flush(t.Context()) }()
				time.Sleep(time.Minute)
				synctest.Wait()
				start := time.Now()
				require.ErrorContains(t, stop(), "5 shares not passed on")
				require.Equal(t, 2*time.Second, time.Since(start))
				require.ErrorIs(t, <-waits, share.ErrStopped)
				require.ErrorIs(t, <-flush, share.ErrStopped)
			})
		})
	}
}

func TestBatcherRecoversDuringStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(sharetest.Memory)
		f := sharetest.NewFlaky(m)
		f.FailNext(-1, errors.New("disk full"))
		b := newBatcher(t, f, &share.BatcherOptions{MaxBackoff: time.Hour})
		stop := run(t, b)
		require.NoError(t, b.Put(t.Context(), sharetest.Numbers(0, 5)))
		time.Sleep(time.Minute)
		time.AfterFunc(time.Second, f.Heal)
		require.NoError(t, stop(), "a long pause between attempts must not outlast the bound")
		require.Equal(t, sharetest.Numbers(0, 5), m.Shares())
	})
}

func TestBatcherDoesNotRepeatInvalidShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(sharetest.Memory)
		f := sharetest.NewFlaky(m)
		b := newBatcher(t, f, nil)
		stop := run(t, b)
		f.LoseReplies(-1, fmt.Errorf("share 3: %w", share.ErrInvalid))
		require.NoError(t, b.Put(t.Context(), sharetest.Numbers(0, 5)))
		require.NoError(t, b.Flush(t.Context()))
		require.Equal(t, 1, f.Calls())
		require.Equal(t, uint64(5), b.Stats().Refused)
		require.NoError(t, stop())
	})
}

func TestOnlyInvalid(t *testing.T) {
	other := errors.New("disk full")
	invalid := fmt.Errorf("share 3: %w", share.ErrInvalid)
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"no error", nil, false},
		{"the error itself", share.ErrInvalid, true},
		{"wrapped", fmt.Errorf("sharelog: %w", invalid), true},
		{"joined with its like", errors.Join(invalid, share.ErrInvalid), true},
		{"joined with another", errors.Join(invalid, other), false},
		{"another", other, false},
		{"another, wrapped", fmt.Errorf("sharelog: %w", other), false},
		{"joined and wrapped", fmt.Errorf("tee: %w", errors.Join(other, invalid)), false},
	} {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, share.OnlyInvalid(tt.err)) })
	}
}

func TestNewBatcherRefuses(t *testing.T) {
	_, err := share.NewBatcher(nil, &share.BatcherOptions{MaxQueue: 5, MaxBatch: 6, MaxBackoff: -1, StopTimeout: -1})
	for _, says := range []string{"no sink", "MaxBatch 6", "MaxBackoff", "StopTimeout"} {
		require.ErrorContains(t, err, says)
	}
	_, err = share.NewBatcher(new(sharetest.Memory), &share.BatcherOptions{MaxQueue: -1})
	require.ErrorContains(t, err, "MaxQueue -1")
}

func TestBatcherPutAmortisedAllocatesNothing(t *testing.T) {
	discard := share.SinkFunc(func(context.Context, []share.Share) error { return nil })
	b := newBatcher(t, discard, &share.BatcherOptions{Interval: time.Hour})
	stop := run(t, b)
	one := sharetest.Numbers(0, 1)
	n := testing.AllocsPerRun(100_000, func() {
		if err := b.Put(context.Background(), one); err != nil {
			t.Fatal(err)
		}
	})
	require.Zero(t, n)
	require.NoError(t, stop())
}

func ExampleBatcher() {
	stored := new(sharetest.Memory)
	b, err := share.NewBatcher(stored, nil) // in front of something slow
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()

	for i := range 1000 {
		if err := b.Put(ctx, []share.Share{sharetest.Numbered(i)}); err != nil {
			fmt.Println(err)
		}
	}
	stop() // passes on what is queued
	fmt.Println(<-done, len(stored.Shares()))
	// Output: <nil> 1000
}

func BenchmarkBatcherPut(b *testing.B) {
	discard := share.SinkFunc(func(context.Context, []share.Share) error { return nil })
	batcher := newBatcher(b, discard, nil)
	stop := run(b, batcher)
	one := sharetest.Numbers(0, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		if err := batcher.Put(ctx, one); err != nil {
			b.Fatal(err)
		}
	}
	if err := stop(); err != nil {
		b.Fatal(err)
	}
}
