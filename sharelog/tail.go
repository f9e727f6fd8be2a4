package sharelog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/share"
)

// A DeliverFunc takes the next shares of a log, and the position behind them. It stores both, or what it makes of the
// shares and the position, in one transaction: then each share counts exactly once. After an error it is called again
// with the same shares and the same position. It must not keep the slice.
type DeliverFunc func(ctx context.Context, shares []share.Share, next Position) error

// TailOptions tune a [Tail].
type TailOptions struct {
	// Batch is how many shares are delivered at once at most; 0 means 4,096.
	Batch int

	// Poll is how often the log is looked at when it had nothing new; 0 means 1 s.
	Poll time.Duration

	// MaxErrors is how many times in a row the log may fail to be read, with ErrorPause in between, before Run gives
	// up. 0 means 5, negative that it never does.
	MaxErrors int

	// ErrorPause is the pause after the log could not be read, and the longest one after a delivery failed; those
	// begin with 50 ms and double. 0 means 5 s.
	ErrorPause time.Duration

	// StopTimeout is how long Run goes on when it is told to stop, to deliver what is in the log already; 0 means not at
	// all.
	StopTimeout time.Duration

	// OnDamage is told what cannot be read. The logger hears of it as well.
	OnDamage func(*DamageError)

	// Logger hears of failures; nil discards.
	Logger *slog.Logger
}

// A Tail delivers the shares of a log from a position on, and goes on with those that are written from then on.
type Tail struct {
	log     Log
	deliver DeliverFunc
	opts    TailOptions
	pos     atomic.Pointer[Position]
	ran     atomic.Bool
}

// NewTail returns a Tail of log from a position on. Nil options are all defaults.
func NewTail(log Log, from Position, deliver DeliverFunc, opts *TailOptions) (*Tail, error) {
	t := &Tail{log: log, deliver: deliver}
	t.pos.Store(&from)
	if opts != nil {
		t.opts = *opts
	}
	o := &t.opts
	if o.Batch == 0 {
		o.Batch = 4096
	}
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	if o.MaxErrors == 0 {
		o.MaxErrors = 5
	}
	if o.ErrorPause == 0 {
		o.ErrorPause = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if log == nil || deliver == nil {
		errs = append(errs, errors.New("sharelog: new tail: it needs a log and somewhere to deliver to"))
	}
	if o.Batch < 0 {
		errs = append(errs, fmt.Errorf("sharelog: new tail: Batch %d is negative", o.Batch))
	}
	if o.Poll < 0 || o.ErrorPause < 0 || o.StopTimeout < 0 {
		errs = append(errs, fmt.Errorf("sharelog: new tail: Poll %v, ErrorPause %v or StopTimeout %v is negative",
			o.Poll, o.ErrorPause, o.StopTimeout))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return t, nil
}

// Position returns the place behind the last share delivered.
func (t *Tail) Position() Position { return *t.pos.Load() }

// Run delivers shares until ctx ends; then it returns nil, after what is being delivered has come to an end: that call
// sees ctx end, too, and may still succeed. With a StopTimeout it first goes on to the end of the log, or to the first
// failure. An error means that the log could not be read too many times in a row. A delivery that fails is repeated until
// it succeeds. Run can be called once.
func (t *Tail) Run(ctx context.Context) error {
	if t.ran.Swap(true) {
		return errors.New("sharelog: run tail: it runs already, or has run")
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	pause := func(d time.Duration) {
		timer.Reset(d)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	var c Cursor
	defer func() {
		if c != nil {
			_ = c.Close() // reads only: nothing can be lost
		}
	}()
	batch := make([]share.Share, t.opts.Batch)
	failures := 0
	for ctx.Err() == nil {
		n, err := 0, error(nil)
		if c == nil {
			c, err = t.log.Scan(t.Position(), 0)
		}
		if err == nil {
			n, err = c.Read(ctx, batch)
		}
		var damage *DamageError
		switch {
		case err == nil:
			failures = 0
			t.hand(ctx, batch[:n], c.Position(), pause)
		case err == io.EOF:
			failures = 0
			pause(t.opts.Poll)
		case ctx.Err() != nil:
		case errors.As(err, &damage):
			t.opts.Logger.Error("part of a share log cannot be read and is passed over", "err", err)
			if t.opts.OnDamage != nil {
				t.opts.OnDamage(damage)
			}
		default:
			failures++
			if t.opts.MaxErrors >= 0 && failures > t.opts.MaxErrors {
				return fmt.Errorf("sharelog: tail: gave up after %d failures: %w", failures, err)
			}
			t.opts.Logger.Warn("the share log cannot be read; trying again", "pause", t.opts.ErrorPause, "err", err)
			pause(t.opts.ErrorPause)
		}
	}
	if t.opts.StopTimeout > 0 {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.opts.StopTimeout)
		defer cancel()
		t.finish(last, &c, batch)
	}
	return nil
}

// finish delivers what is left of the log. Whatever stops it before the end is left to the next Run there is.
func (t *Tail) finish(ctx context.Context, c *Cursor, batch []share.Share) {
	// A new cursor: the old one may stand behind shares whose delivery the stop cut short.
	if *c != nil {
		_ = (*c).Close()
	}
	var err error
	if *c, err = t.log.Scan(t.Position(), 0); err != nil {
		*c = nil
		return
	}
	for {
		n, err := (*c).Read(ctx, batch)
		if err != nil {
			return
		}
		next := (*c).Position()
		if t.deliver(ctx, batch[:n], next) != nil {
			return
		}
		t.pos.Store(&next)
	}
}

// hand delivers shares, until that succeeds or ctx ends.
func (t *Tail) hand(ctx context.Context, shares []share.Share, next Position, pause func(time.Duration)) {
	for wait := min(50*time.Millisecond, t.opts.ErrorPause); ; wait = min(2*wait, t.opts.ErrorPause) {
		err := t.deliver(ctx, shares, next)
		if err == nil {
			t.pos.Store(&next)
			return
		}
		if ctx.Err() != nil {
			return
		}
		t.opts.Logger.Warn("shares of the log could not be delivered; trying again", "shares", len(shares), "pause", wait,
			"err", err)
		pause(wait)
		if ctx.Err() != nil {
			return
		}
	}
}
