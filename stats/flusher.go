package stats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// FlusherOptions tune a Flusher.
type FlusherOptions struct {
	Interval time.Duration // between writes; 0 means 15s
	Sweep    time.Duration // between calls of [Aggregator.Sweep] and prunings of the store; 0 means 10m

	// Retention is how long buckets stay in the store; 0 means 24h. It is at least the large window and an hour. A
	// worker with a share every ten seconds leaves some 20 bytes each time, 170 KB a day.
	Retention time.Duration

	// RoundRetention is how long closed rounds stay in the store; 0 means 90 days, negative for ever.
	RoundRetention time.Duration

	StopTimeout time.Duration // bounds the last write when Run stops; 0 means 5s
	Logger      *slog.Logger  // nil discards
}

// A Flusher writes what an Aggregator counts to a Store.
type Flusher struct {
	agg   *Aggregator
	store Store
	opts  FlusherOptions

	mu        sync.Mutex
	unwritten *Batch // cut off, and perhaps in the store already
	written   []byte // position in the store
	pruned    time.Time
}

// NewFlusher returns a Flusher for a and store, and makes a note what it counts from now on: call it, or
// [Aggregator.Restore], before the first share. One Flusher serves an Aggregator, and one Aggregator a Store.
func NewFlusher(a *Aggregator, store Store, opts *FlusherOptions) *Flusher {
	f := &Flusher{agg: a, store: store}
	if opts != nil {
		f.opts = *opts
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&f.opts.Interval, 15*time.Second)
	def(&f.opts.Sweep, 10*time.Minute)
	def(&f.opts.Retention, 24*time.Hour)
	f.opts.Retention = max(f.opts.Retention, a.opts.LargeWindow+time.Hour)
	if f.opts.RoundRetention == 0 {
		f.opts.RoundRetention = 90 * 24 * time.Hour
	}
	def(&f.opts.StopTimeout, 5*time.Second)
	if f.opts.Logger == nil {
		f.opts.Logger = slog.New(slog.DiscardHandler)
	}
	a.mu.Lock()
	a.collect = true
	f.written = slices.Clone(a.position)
	a.mu.Unlock()
	return f
}

// Run writes every Interval and once more when ctx ends; then it returns nil, or why the last write failed. Writes
// that fail are logged and repeated. Run returns at once with [ErrConflict], for another process has taken the Store
// over.
func (f *Flusher) Run(ctx context.Context) error {
	write := time.NewTicker(f.opts.Interval)
	defer write.Stop()
	sweep := time.NewTicker(f.opts.Sweep)
	defer sweep.Stop()
	for {
		select {
		case <-sweep.C:
			f.agg.Sweep(f.agg.opts.Now())
		case <-write.C:
			err := f.Flush(ctx)
			if errors.Is(err, ErrConflict) {
				return err
			}
			if err != nil && ctx.Err() == nil {
				f.opts.Logger.Error("statistics could not be written and will be again", "error", err,
					"waiting", f.agg.pending.Load())
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.opts.StopTimeout)
			defer cancel()
			return f.Flush(last)
		}
	}
}

// Flush writes what was counted so far. After an error, the next Flush first writes the same once more. It is safe for
// concurrent use.
func (f *Flusher) Flush(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unwritten != nil { // what failed before
		if err := f.commit(ctx); err != nil {
			return err
		}
	}
	b, ok := f.agg.cut()
	now := f.agg.opts.Now()
	prune := now.Sub(f.pruned) >= f.opts.Sweep || now.Before(f.pruned)
	if prune {
		b.PruneBuckets = now.Add(-f.opts.Retention)
		if f.opts.RoundRetention > 0 {
			b.PruneRounds = now.Add(-f.opts.RoundRetention)
		}
	}
	if !ok && string(b.Position) == string(f.written) && !prune {
		return nil
	}
	f.unwritten = b
	f.agg.mu.Lock()
	f.agg.seq = b.Seq
	f.agg.mu.Unlock()
	if prune {
		f.pruned = now
	}
	return f.commit(ctx)
}

func (f *Flusher) commit(ctx context.Context) error {
	if err := f.store.Commit(ctx, f.unwritten); err != nil {
		return fmt.Errorf("stats: flush batch %d: %w", f.unwritten.Seq, err)
	}
	f.written = f.unwritten.Position
	f.unwritten = nil
	return nil
}
