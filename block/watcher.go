package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/job"
)

// A Confirmer knows how deep a block lies in the best chain. Every Confirmer
//   - CountsFromOne: the block at the tip has 1 confirmation, its parent 2, and so on;
//   - KnowsOrphans: a block that is known but not on the best chain has a negative number of confirmations;
//   - ReportsUnknown: [ErrUnknownBlock] means that there is no such block, and that the node knows the chain well enough
//     to say so: a node that is syncing gives another error;
//   - HonorsContext: it returns soon after ctx ends;
//   - AllowsConcurrentCalls.
//
// Any other error says nothing about the block; the call will be repeated.
type Confirmer interface {
	Confirmations(ctx context.Context, hash chainhash.Hash) (int64, error)
}

// WatcherOptions tune a [Watcher].
type WatcherOptions struct {
	Chain job.Chain // only blocks of this chain; empty means all

	Interval time.Duration // between two looks at the chain; 0 means 10s
	Timeout  time.Duration // of one question; 0 means 30s

	// ConfirmDepth is how many confirmations make a candidate immature; 0 means 6.
	ConfirmDepth int64

	// MatureDepth is how many confirmations make a block mature; 0 means 100, after which consensus lets the coinbase
	// be spent in the next block. Wallets that count strictly want 101.
	MatureDepth int64

	// SubmitGrace is how long a block that has been ruled on may be unknown to the node before it counts as orphaned;
	// 0 means 60s.
	SubmitGrace time.Duration

	// OrphanWindow is how long after it was found an orphaned block is asked about, the time that a reorganisation may
	// take to bring it back, and after which a block that nobody has ruled on counts as orphaned, too, when it is
	// unknown; 0 means 48h.
	OrphanWindow time.Duration

	// Changed is called after a change of state is on record, on the goroutine of Run or Check. It may be nil.
	Changed func(f Found, from State)

	Logger *slog.Logger // nil discards
}

// WatcherStats count what happened since NewWatcher.
type WatcherStats struct {
	Checks    int64 // looks at the chain
	Questions int64 // calls of the Confirmer
	Changes   int64 // states changed
	Failures  int64 // of the Confirmer and the Recorder
}

// A Watcher follows found blocks until their reward can be spent:
//
//	candidate ──▶ immature ──▶ matured
//	    │  ConfirmDepth  │  MatureDepth
//	    ▼                ▼
//	orphaned ──────────▶ immature, when a reorganisation brings it back
//
// It asks about every block that is not final at every interval. One answer alone never orphans a block because it is
// unknown, for the node may be new or behind: it must be unknown for SubmitGrace, and must have been ruled on. A block
// that was immature is never orphaned for being unknown.
type Watcher struct {
	rec  Recorder
	conf Confirmer
	opts WatcherOptions

	// unknown says since when a block has been unknown without interruption. It belongs to whoever holds turn.
	unknown map[foundKey]time.Time
	turn    chan struct{}

	checks, questions, changes, failures atomic.Int64
}

// NewWatcher returns a Watcher of the blocks in rec. It reports everything wrong with its arguments at once.
func NewWatcher(rec Recorder, conf Confirmer, opts *WatcherOptions) (*Watcher, error) {
	w := &Watcher{rec: rec, conf: conf, unknown: make(map[foundKey]time.Time), turn: make(chan struct{}, 1)}
	if opts != nil {
		w.opts = *opts
	}
	o := &w.opts
	var errs []error
	if rec == nil {
		errs = append(errs, errors.New("no recorder"))
	}
	if conf == nil {
		errs = append(errs, errors.New("no confirmer"))
	}
	errs = append(errs,
		defaultDuration(&o.Interval, 10*time.Second, "Interval"),
		defaultDuration(&o.Timeout, 30*time.Second, "Timeout"),
		defaultDuration(&o.SubmitGrace, time.Minute, "SubmitGrace"),
		defaultDuration(&o.OrphanWindow, 48*time.Hour, "OrphanWindow"))
	switch {
	case o.ConfirmDepth < 0:
		errs = append(errs, errors.New("ConfirmDepth is negative"))
	case o.MatureDepth < 0:
		errs = append(errs, errors.New("MatureDepth is negative"))
	}
	if o.ConfirmDepth == 0 {
		o.ConfirmDepth = 6
	}
	if o.MatureDepth == 0 {
		o.MatureDepth = max(100, o.ConfirmDepth)
	}
	if o.MatureDepth < o.ConfirmDepth {
		errs = append(errs, fmt.Errorf("MatureDepth %d is below ConfirmDepth %d", o.MatureDepth, o.ConfirmDepth))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("block: new watcher: %w", err)
	}
	return w, nil
}

// Run looks at the chain at once and then at every interval until ctx ends, and returns nil. What fails is logged and
// counted, and tried again at the next interval.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTicker(w.opts.Interval)
	defer tick.Stop()
	for {
		if err := w.Check(ctx); err != nil && ctx.Err() == nil {
			w.opts.Logger.Warn("found blocks: check failed", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// maxFailures in a row end a check: the node is down, and asking on would only take time.
const maxFailures = 3

// Check looks at the chain once. It goes on after an error and returns all of them joined, but gives up when the
// Confirmer or the Recorder fails three times in a row. Calls do not overlap: a second one waits.
func (w *Watcher) Check(ctx context.Context) error {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	w.checks.Add(1)
	blocks, err := w.rec.Found(ctx, Query{Chain: w.opts.Chain, States: []State{Candidate, Immature, Orphaned}})
	if err != nil {
		w.failures.Add(1)
		return fmt.Errorf("block: list found blocks: %w", err)
	}
	slices.Reverse(blocks) // the lowest first, as they mature first

	now := time.Now()
	still := make(map[foundKey]time.Time, len(w.unknown))
	var errs []error
	row := 0
	for i := range blocks {
		f := &blocks[i]
		if f.State == Orphaned && w.tooOld(f, now) {
			continue // for good
		}
		key := foundKey{f.Chain, f.Hash}
		if ctx.Err() != nil || row == maxFailures {
			// Not asked about: what was known of it stays.
			if at, ok := w.unknown[key]; ok {
				still[key] = at
			}
			continue
		}
		next, err := w.ask(ctx, f, now, still)
		if err == nil && next != f.State {
			err = w.change(ctx, f, next)
		}
		if err != nil {
			w.failures.Add(1)
			errs = append(errs, err)
			row++
			if at, ok := w.unknown[key]; ok && still[key].IsZero() {
				still[key] = at
			}
			continue
		}
		row = 0
	}
	w.unknown = still
	return errors.Join(errs...)
}

// tooOld reports whether a block that is not on the best chain was found so long ago that it will not come back.
func (w *Watcher) tooOld(f *Found, now time.Time) bool {
	return now.Sub(f.FoundAt) > w.opts.OrphanWindow
}

// ask returns the state that f should be in.
func (w *Watcher) ask(ctx context.Context, f *Found, now time.Time, still map[foundKey]time.Time) (State, error) {
	w.questions.Add(1)
	question, cancel := context.WithTimeout(ctx, w.opts.Timeout)
	n, err := w.conf.Confirmations(question, f.Hash)
	cancel()
	if errors.Is(err, ErrUnknownBlock) {
		return w.unknownState(f, now, still), nil
	}
	switch {
	case err != nil:
		return f.State, fmt.Errorf("block: confirmations of %v: %w", f.Hash, err)
	case n >= w.opts.MatureDepth:
		return Matured, nil
	case n >= w.opts.ConfirmDepth:
		return Immature, nil
	case n < 0:
		return Orphaned, nil
	}
	return f.State, nil // on the chain, not deep enough for a change
}

// unknownState returns the state of a block that the node does not know.
func (w *Watcher) unknownState(f *Found, now time.Time, still map[foundKey]time.Time) State {
	if f.State != Candidate {
		return f.State
	}
	key := foundKey{f.Chain, f.Hash}
	since, ok := w.unknown[key]
	if !ok {
		since = now
	}
	still[key] = since
	ruled := f.Outcome.Final() || w.tooOld(f, now)
	if ruled && now.Sub(since) >= w.opts.SubmitGrace {
		delete(still, key)
		return Orphaned
	}
	return Candidate
}

// change records a new state.
func (w *Watcher) change(ctx context.Context, f *Found, to State) error {
	from := f.State
	next := *f
	next.State = to
	if err := w.rec.Record(ctx, &next); err != nil {
		return fmt.Errorf("block: record %v as %v: %w", f.Hash, to, err)
	}
	w.changes.Add(1)
	level := slog.LevelInfo
	if to == Orphaned {
		level = slog.LevelWarn
	}
	w.opts.Logger.Log(ctx, level, "block "+to.String(), append(foundAttrs(&next), "from", from.String())...)
	if w.opts.Changed != nil {
		w.opts.Changed(next, from)
	}
	return nil
}

// Stats returns the counters.
func (w *Watcher) Stats() WatcherStats {
	return WatcherStats{Checks: w.checks.Load(), Questions: w.questions.Load(), Changes: w.changes.Load(),
		Failures: w.failures.Load()}
}
