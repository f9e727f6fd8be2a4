package share

import (
	"context"
	"errors"
	"fmt"
)

// Tee returns a [Sink] that gives every batch to each of sinks, one after the other in the order given; nil ones are
// left out, and with none it accepts everything. A sink that fails keeps the others from nothing: all get the batch,
// and the errors are returned together, each naming its sink by number, from 0, and type.
//
// After an error the caller cannot retry for one sink alone, and those that had succeeded get the batch again. Put a
// [Batcher] in front of each sink that may fail or be slow, so that each retries for itself and none waits for another.
func Tee(sinks ...Sink) Sink {
	t := make(tee, 0, len(sinks))
	for i, s := range sinks {
		if s != nil {
			t = append(t, numbered{i, s})
		}
	}
	return t
}

type tee []numbered

type numbered struct {
	n int
	Sink
}

func (t tee) Put(ctx context.Context, shares []Share) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var errs []error
	for _, s := range t {
		if err := s.Put(ctx, shares); err != nil {
			errs = append(errs, fmt.Errorf("share: sink %d (%T): %w", s.n, s.Sink, err))
		}
	}
	return errors.Join(errs...)
}
