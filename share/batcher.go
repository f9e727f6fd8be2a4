package share

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// ErrStopped is returned by Put and Flush of a [Batcher] whose Run has been told to stop.
var ErrStopped = errors.New("share: batcher stopped")

// OnlyInvalid reports whether err says nothing but that shares were invalid, so that the Sink that returned it has
// taken all others and putting the batch again cannot help. An error joined from several, as by [Tee], must say so in
// every part.
func OnlyInvalid(err error) bool {
	for err != nil {
		if err == ErrInvalid {
			return true
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			// A chain that names ErrInvalid beside its cause, as fmt.Errorf with two %w does, is not only that.
			parts := e.Unwrap()
			for _, part := range parts {
				if !OnlyInvalid(part) {
					return false
				}
			}
			return len(parts) > 0
		default:
			return false
		}
	}
	return false
}

// BatcherOptions tune a [Batcher]. The zero value suits a sink that answers within a second.
type BatcherOptions struct {
	// MaxQueue is how many shares are held at most, those of the batch under way included. 0 means 65,536, which take
	// 12 MB when the queue has been full once; a queue that is never long takes little.
	MaxQueue int

	// MaxBatch is how many shares the sink gets in one call at most; 0 means 4,096. It must not exceed MaxQueue.
	MaxBatch int

	// Interval is how long a share waits for others to share its batch. A full batch goes out at once. 0 means 100 ms,
	// negative not at all.
	Interval time.Duration

	// MaxBackoff bounds the pause between attempts when the sink fails; the first is 50 ms, each further one twice as
	// long. 0 means 5 s.
	MaxBackoff time.Duration

	// StopTimeout bounds the time that Run takes to empty the queue when it is told to stop; 0 means 3 s.
	StopTimeout time.Duration

	// Logger hears of failures and refused shares; nil discards.
	Logger *slog.Logger
}

// A Batcher is a [Sink] that queues shares for another Sink, so that a miner is never kept waiting by a slow one, and
// that does the retrying which Sinks do not. Put copies the shares into the queue and returns; [Batcher.Run] passes
// them on, in order and in batches, and repeats a batch until the next Sink has taken it.
//
// The queue is bounded. When it is full Put waits for room or for the end of its context: shares are never dropped. A
// Put that returns nil is as safe as the process. Until [Batcher.Flush] or the end of Run the next Sink need not have
// the shares.
//
// Shares that the next Sink finds invalid, see [OnlyInvalid], are logged and counted, not repeated.
type Batcher struct {
	next Sink
	opts BatcherOptions

	turn chan struct{} // held by the one Put that is next to get room; the others queue for it in order
	wake chan struct{} // tells Run to look again

	mu       sync.Mutex
	ring     []Share       // grows up to MaxQueue
	head, n  int           // the shares in ring: n from head on, around the end
	accepted uint64        // shares that ever entered the ring
	mark     uint64        // those of accepted that need wait no longer
	due      time.Time     // when the others have waited long enough
	waiting  int           // Puts that could not go ahead
	changed  chan struct{} // closed when shares leave the ring or Run stops; nil when nobody waits for that
	started  bool
	stopped  bool // no more shares
	finished bool // Run has returned

	stats BatcherStats
}

// BatcherStats are counts since the start, in shares where nothing else is said.
type BatcherStats struct {
	Queued    int    // in the queue now, the batch under way included
	Accepted  uint64 // taken by Put
	Delivered uint64 // passed on
	Refused   uint64 // shares of batches in which the next Sink found invalid ones; it took the valid ones
	Batches   uint64 // batches passed on
	Failures  uint64 // attempts that failed
	Waits     uint64 // Puts that found the queue full
}

// NewBatcher returns a Batcher in front of next; nil options are all defaults. The error names every option that is
// out of its range.
func NewBatcher(next Sink, opts *BatcherOptions) (*Batcher, error) {
	b := &Batcher{next: next, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	if opts != nil {
		b.opts = *opts
	}
	o := &b.opts
	if o.MaxQueue == 0 {
		o.MaxQueue = 1 << 16
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = min(4096, o.MaxQueue)
	}
	if o.Interval == 0 {
		o.Interval = 100 * time.Millisecond
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 5 * time.Second
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = 3 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if next == nil {
		errs = append(errs, errors.New("share: new batcher: no sink to pass shares on to"))
	}
	if o.MaxQueue < 0 {
		errs = append(errs, fmt.Errorf("share: new batcher: MaxQueue %d is negative", o.MaxQueue))
	}
	if o.MaxBatch < 0 || o.MaxBatch > o.MaxQueue {
		errs = append(errs, fmt.Errorf("share: new batcher: MaxBatch %d is not within 1 and MaxQueue %d",
			o.MaxBatch, o.MaxQueue))
	}
	if o.MaxBackoff < 0 {
		errs = append(errs, fmt.Errorf("share: new batcher: MaxBackoff %v is negative", o.MaxBackoff))
	}
	if o.StopTimeout < 0 {
		errs = append(errs, fmt.Errorf("share: new batcher: StopTimeout %v is negative", o.StopTimeout))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return b, nil
}

// Put copies shares into the queue. When there is no room for all of them it waits, behind the Puts that wait already,
// until there is, until ctx ends or until Run stops; then it returns the error of ctx or [ErrStopped] and has queued
// none of them. Only a call with more than MaxQueue shares goes in piece by piece, and may have queued some. Calls may
// overlap. Amortised it does not allocate.
func (b *Batcher) Put(ctx context.Context, shares []Share) error {
	if err := ctx.Err(); err != nil || len(shares) == 0 {
		return err
	}
	b.mu.Lock()
	if b.stopped {
		b.mu.Unlock()
		return ErrStopped
	}
	if b.waiting == 0 && len(shares) <= b.opts.MaxQueue-b.n {
		wake := b.push(shares)
		b.mu.Unlock()
		if wake {
			b.signal()
		}
		return nil
	}
	b.waiting++
	b.stats.Waits++
	b.mu.Unlock()
	return b.putSlowly(ctx, shares)
}

func (b *Batcher) putSlowly(ctx context.Context, shares []Share) error {
	defer func() {
		b.mu.Lock()
		b.waiting--
		b.mu.Unlock()
	}()
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		b.mu.Lock()
		if b.stopped {
			b.mu.Unlock()
			return ErrStopped
		}
		if k := min(len(shares), b.opts.MaxQueue); k <= b.opts.MaxQueue-b.n {
			wake := b.push(shares[:k])
			b.mu.Unlock()
			if wake {
				b.signal()
			}
			if shares = shares[k:]; len(shares) == 0 {
				return nil
			}
			continue
		}
		changed := b.change()
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// push appends shares, for which there is room, and reports whether Run must be told. mu is held.
func (b *Batcher) push(shares []Share) (wake bool) {
	if need := b.n + len(shares); need > len(b.ring) {
		// A batch that is being passed on lives on in the old ring.
		ring := make([]Share, min(max(2*len(b.ring), need, 64), b.opts.MaxQueue))
		first := min(b.n, len(b.ring)-b.head)
		copy(ring, b.ring[b.head:b.head+first])
		copy(ring[first:], b.ring[:b.n-first])
		b.ring, b.head = ring, 0
	}
	tail := b.head + b.n
	if tail >= len(b.ring) {
		tail -= len(b.ring)
	}
	k := copy(b.ring[tail:], shares)
	copy(b.ring, shares[k:])

	before := b.n
	b.n += len(shares)
	if b.accepted == max(b.mark, b.accepted-uint64(before)) { // nothing else waits for company
		b.due = time.Now().Add(max(b.opts.Interval, 0))
		wake = true
	}
	b.accepted += uint64(len(shares))
	b.stats.Accepted = b.accepted
	return wake || before < b.opts.MaxBatch && b.n >= b.opts.MaxBatch
}

// change returns a channel that is closed at the next change. mu is held.
func (b *Batcher) change() <-chan struct{} {
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}

// announce ends the waiting for a change. mu is held.
func (b *Batcher) announce() {
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

func (b *Batcher) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Flush passes on at once what was put before, and waits until the next Sink has taken it, ctx ends or Run has given
// up. Without Run it waits for ctx.
func (b *Batcher) Flush(ctx context.Context) error {
	b.mu.Lock()
	target := b.accepted
	b.mark = target
	for {
		switch {
		case b.accepted-uint64(b.n) >= target:
			b.mu.Unlock()
			return nil
		case b.finished:
			b.mu.Unlock()
			return ErrStopped
		}
		changed := b.change()
		b.mu.Unlock()
		b.signal()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		b.mu.Lock()
	}
}

// Stats returns counts that belong to one moment.
func (b *Batcher) Stats() BatcherStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Queued = b.n
	return s
}

// Run passes shares on until ctx ends. Put then takes no more, and what the queue holds is passed on within
// StopTimeout; when that was not enough the error says how many shares are lost, and why. Run can be called once.
func (b *Batcher) Run(ctx context.Context) error {
	b.mu.Lock()
	started := b.started
	b.started = true
	b.mu.Unlock()
	if started {
		return errors.New("share: run batcher: it runs already, or has run")
	}

	sendCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var guard sync.WaitGroup
	guard.Go(func() {
		select {
		case <-ctx.Done():
		case <-sendCtx.Done():
			return
		}
		b.mu.Lock()
		b.stopped = true
		b.announce()
		b.mu.Unlock()
		b.signal()
		timeout := time.NewTimer(b.opts.StopTimeout)
		defer timeout.Stop()
		select {
		case <-timeout.C:
			cancel()
		case <-sendCtx.Done():
		}
	})
	defer guard.Wait()
	defer cancel()

	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batch, wait, done := b.batch()
		if done {
			b.finish()
			return nil
		}
		if len(batch) == 0 {
			timer.Reset(wait)
			select {
			case <-b.wake:
			case <-timer.C:
			}
			continue
		}
		if err := b.deliver(ctx, sendCtx, batch, timer); err != nil {
			lost := b.finish()
			return fmt.Errorf("share: stop batcher: %d shares not passed on: %w", lost, err)
		}
	}
}

// finish lets everyone who waits go and returns how many shares are left.
func (b *Batcher) finish() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finished = true
	b.announce()
	return b.n
}

// batch returns the next batch when it is time for one, or how long to wait for it. Only Run takes shares out of the
// ring, so the batch, which stays in it, is not overwritten.
func (b *Batcher) batch() (batch []Share, wait time.Duration, done bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch first := b.accepted - uint64(b.n); {
	case b.n == 0:
		return nil, time.Hour, b.stopped
	case b.stopped:
		b.mark = b.accepted
	case b.mark > first:
	case b.n >= b.opts.MaxBatch:
		b.mark = first + uint64(b.opts.MaxBatch)
	default:
		if wait = time.Until(b.due); wait > 0 {
			return nil, wait, false
		}
		b.mark = b.accepted
	}
	k := min(b.n, b.opts.MaxBatch, len(b.ring)-b.head)
	return b.ring[b.head : b.head+k : b.head+k], 0, false
}

// taken drops k shares from the front of the ring.
func (b *Batcher) taken(k int, refused bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := min(k, len(b.ring)-b.head)
	clear(b.ring[b.head : b.head+first]) // lets go of the strings
	clear(b.ring[:k-first])
	if b.head += k; b.head >= len(b.ring) {
		b.head -= len(b.ring)
	}
	if b.n -= k; b.n == 0 {
		b.head = 0
	}
	b.stats.Batches++
	if refused {
		b.stats.Refused += uint64(k)
	} else {
		b.stats.Delivered += uint64(k)
	}
	b.announce()
}

// deliver repeats batch until the next Sink has taken it or sendCtx ends. The end of ctx cuts a pause short.
func (b *Batcher) deliver(ctx, sendCtx context.Context, batch []Share, timer *time.Timer) error {
	const firstPause, stopPause = 50 * time.Millisecond, 200 * time.Millisecond
	pause := min(firstPause, b.opts.MaxBackoff)
	for attempt := 1; ; attempt++ {
		err := b.next.Put(sendCtx, batch)
		if err == nil || OnlyInvalid(err) {
			if err != nil {
				b.opts.Logger.Error("shares were refused as invalid and are not recorded", "batch", len(batch), "err", err)
			} else if attempt > 1 {
				b.opts.Logger.Info("shares are passed on again", "attempts", attempt)
			}
			b.taken(len(batch), err != nil)
			return nil
		}
		b.mu.Lock()
		b.stats.Failures++
		queued := b.n
		b.mu.Unlock()
		if sendCtx.Err() != nil {
			return err
		}
		b.opts.Logger.Warn("shares could not be passed on; trying again", "attempt", attempt, "queued", queued,
			"pause", pause, "err", err)

		timer.Reset(pause)
		if ctx.Err() == nil {
			select {
			case <-timer.C:
				pause = min(2*pause, b.opts.MaxBackoff)
				continue
			case <-ctx.Done():
			}
			pause = min(firstPause, b.opts.MaxBackoff)
			continue
		}
		pause = min(2*pause, b.opts.MaxBackoff, stopPause)
		select {
		case <-timer.C:
		case <-sendCtx.Done():
			return err
		}
	}
}
