package sharelog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/poolkit/poolkit/share"
)

// WriterOptions tune a [Writer]. With the zero value a share is in the log two seconds after Put at the latest, on a
// disk that works.
type WriterOptions struct {
	// Interval is how long a share waits to be written together with others; 0 means 1.5 s, negative not at all.
	Interval time.Duration

	// MaxBatch is how many shares are written at once at most; so many are written without waiting. 0 means 16,384.
	MaxBatch int

	// MaxQueue is how many shares wait at most, which is what a full disk fills; Put then waits. 0 means 262,144, which
	// take 50 MB.
	MaxQueue int

	// MaxAhead is how far a share's time may be ahead of the clock: a wrong time would open the file of a day to come,
	// and upset whoever sums up the last minutes. Shares further ahead are invalid. 0 means 60 s, negative no limit.
	MaxAhead time.Duration

	// MaxBackoff bounds the pause between attempts when the log fails; 0 means 5 s.
	MaxBackoff time.Duration

	// StopTimeout bounds the time that Run takes to write what is left when it is told to stop; 0 means 3 s.
	StopTimeout time.Duration

	// Logger hears of failures; nil discards.
	Logger *slog.Logger
}

// A Writer is the [share.Sink] in front of a [Log]. Put queues shares and returns; [Writer.Run] writes them. What has
// been put is not in the log until then, or until [Writer.Flush] has returned.
//
// When the log fails, the Writer keeps the shares, tries again for as long as it takes, and writes none twice that the
// log has said to have stored. When its queue is full Put waits. It never drops a share. Invalid ones it refuses, with
// an error that wraps [share.ErrInvalid], after it has taken the others of the batch.
type Writer struct {
	queue    *share.Batcher
	maxAhead time.Duration
}

// WriterStats are counts since the start, in shares where nothing else is said.
type WriterStats = share.BatcherStats

var _ share.Sink = (*Writer)(nil)

// NewWriter returns a Writer to log; nil options are all defaults.
func NewWriter(log Log, opts *WriterOptions) (*Writer, error) {
	var o WriterOptions
	if opts != nil {
		o = *opts
	}
	if log == nil {
		return nil, errors.New("sharelog: new writer: no log to write to")
	}
	if o.Interval == 0 {
		o.Interval = 1500 * time.Millisecond
	}
	if o.MaxQueue == 0 {
		o.MaxQueue = max(1<<18, o.MaxBatch)
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = min(1<<14, o.MaxQueue)
	}
	if o.MaxAhead == 0 {
		o.MaxAhead = time.Minute
	}
	queue, err := share.NewBatcher(&appender{log: log}, &share.BatcherOptions{
		MaxQueue: o.MaxQueue, MaxBatch: o.MaxBatch, Interval: o.Interval,
		MaxBackoff: o.MaxBackoff, StopTimeout: o.StopTimeout, Logger: o.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("sharelog: new writer: %w", err)
	}
	return &Writer{queue, o.MaxAhead}, nil
}

// Put queues shares, as [share.Batcher.Put] does.
func (w *Writer) Put(ctx context.Context, shares []share.Share) error {
	latest := int64(1<<63 - 1)
	if w.maxAhead >= 0 {
		latest = time.Now().Add(w.maxAhead).Unix()
	}
	for i := range shares {
		if shares[i].Time.Unix() > latest || shares[i].Check() != nil {
			return w.putValid(ctx, shares, latest)
		}
	}
	return w.queue.Put(ctx, shares)
}

// putValid puts the valid ones of shares.
func (w *Writer) putValid(ctx context.Context, shares []share.Share, latest int64) error {
	var errs []error
	valid := make([]share.Share, 0, len(shares))
	for i := range shares {
		err := shares[i].Check()
		if err == nil && shares[i].Time.Unix() > latest {
			err = fmt.Errorf("%w: its time %v is more than %v ahead of the clock", share.ErrInvalid, shares[i].Time,
				w.maxAhead)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sharelog: put share %d of %d: %w", i, len(shares), err))
			continue
		}
		valid = append(valid, shares[i])
	}
	if err := w.queue.Put(ctx, valid); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// Run writes until ctx ends, and then what is left; see [share.Batcher.Run]. It can be called once.
func (w *Writer) Run(ctx context.Context) error {
	if err := w.queue.Run(ctx); err != nil {
		return fmt.Errorf("sharelog: write: %w", err)
	}
	return nil
}

// Flush writes what was put before, and returns when the log has it, ctx ends or Run has given up.
func (w *Writer) Flush(ctx context.Context) error { return w.queue.Flush(ctx) }

// Stats returns counts that belong to one moment. Failures counts attempts to write.
func (w *Writer) Stats() WriterStats { return w.queue.Stats() }

// An appender is the Sink that the queue of a Writer feeds. The queue repeats a batch until it succeeds, so it is
// enough to remember which days of the present batch are stored.
type appender struct {
	log    Log
	stored []Day
}

func (a *appender) Put(ctx context.Context, batch []share.Share) error {
	left := batch
	if len(a.stored) > 0 {
		left = slices.DeleteFunc(slices.Clone(batch), func(s share.Share) bool {
			return slices.Contains(a.stored, DayOf(s.Time))
		})
	}
	err := a.log.Append(ctx, left)
	var partial *PartialError
	if errors.As(err, &partial) {
		a.stored = append(a.stored, partial.Stored...)
		return err
	}
	if err == nil || share.OnlyInvalid(err) {
		a.stored = a.stored[:0]
	}
	return err
}
