package job

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Feeds are several feeds as one, for whoever takes the jobs of several chains. A chain has to have a feed of its own: to
// a follower that is behind, a feed gives its newest job only, whichever chain that is of.
type Feeds []Feed

var _ Feed = (Feeds)(nil)

// Follow implements [Feed]: it follows all of them, the last jobs of each, and puts one job at a time. When one feed
// ends, all do.
func (f Feeds) Follow(ctx context.Context, last int, put func(*Job)) error {
	if put == nil {
		return errors.New("job: follow: no function to put jobs to")
	}
	if len(f) == 0 {
		return errors.New("job: follow: no feeds")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var putting sync.Mutex
	var following sync.WaitGroup
	for i, feed := range f {
		following.Go(func() {
			err := feed.Follow(ctx, last, func(j *Job) {
				putting.Lock()
				defer putting.Unlock()
				if ctx.Err() == nil {
					put(j)
				}
			})
			if err != nil {
				err = fmt.Errorf("job: follow feed %d of %d: %w", i+1, len(f), err)
			}
			cancel(err)
		})
	}
	following.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
