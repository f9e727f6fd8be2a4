package sharelog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/poolkit/poolkit/share"
)

// A Reader is for loops over a part of a log. It is for one goroutine.
type Reader struct {
	log Log
	pos Position
	to  Day
}

// NewReader returns a Reader of log at from that ends with day to, or with what has been written when to is 0.
func NewReader(log Log, from Position, to Day) *Reader { return &Reader{log: log, pos: from, to: to} }

// Position returns the place behind the last share that the loop was given.
func (r *Reader) Position() Position { return r.pos }

// All returns the shares from the Reader's position on. Leaving the loop and calling All again goes on behind the last
// share. The body sees an error instead of a share where something cannot be read: a loop that goes on after a
// [*DamageError] gets what follows it, any other error is the last.
//
// [Replay], which takes shares in batches, is faster.
func (r *Reader) All(ctx context.Context) iter.Seq2[share.Share, error] {
	return func(yield func(share.Share, error) bool) {
		c, err := r.log.Scan(r.pos, r.to)
		if err != nil {
			yield(share.Share{}, err)
			return
		}
		defer c.Close() // reads only: nothing can be lost
		var one [1]share.Share
		for {
			_, err := c.Read(ctx, one[:])
			if err == io.EOF {
				return
			}
			r.pos = c.Position()
			if err != nil {
				if !yield(share.Share{}, err) || !errors.As(err, new(*DamageError)) {
					return
				}
				continue
			}
			if !yield(one[0], nil) {
				return
			}
		}
	}
}

// ReplayOptions tune [Replay]. The zero value replays all there is.
type ReplayOptions struct {
	// To is the last day to replay; 0 means to go on to the end of the log.
	To Day

	// Batch is how many shares the sink gets at once at most; 0 means 4,096.
	Batch int

	// OnBatch is told the position behind each batch that the sink has taken. An error ends the replay, and the
	// position before that batch is returned.
	OnBatch func(next Position) error

	// OnDamage is told what cannot be read, and the replay goes on. When it is nil damage ends the replay with that
	// error, and the position returned is behind the damage.
	OnDamage func(*DamageError)
}

// Replay puts the shares of log from a position on into sink, in batches, and returns the position to go on from, even
// with an error: what lies before it was put, what lies behind was not. Only when sink itself fails, and has kept part
// of the batch, that part comes again.
func Replay(ctx context.Context, log Log, from Position, sink share.Sink, opts *ReplayOptions) (Position, error) {
	var o ReplayOptions
	if opts != nil {
		o = *opts
	}
	if o.Batch <= 0 {
		o.Batch = 4096
	}
	c, err := log.Scan(from, o.To)
	if err != nil {
		return from, err
	}
	defer c.Close() // reads only: nothing can be lost
	batch := make([]share.Share, o.Batch)
	for at := from; ; {
		n, err := c.Read(ctx, batch)
		var damage *DamageError
		switch {
		case err == io.EOF:
			return c.Position(), nil
		case errors.As(err, &damage):
			at = c.Position()
			if o.OnDamage == nil {
				return at, err
			}
			o.OnDamage(damage)
			continue
		case err != nil:
			return at, err
		}
		if err := sink.Put(ctx, batch[:n]); err != nil {
			return at, fmt.Errorf("sharelog: replay: %w", err)
		}
		if o.OnBatch != nil {
			if err := o.OnBatch(c.Position()); err != nil {
				return at, fmt.Errorf("sharelog: replay: %w", err)
			}
		}
		at = c.Position()
	}
}
