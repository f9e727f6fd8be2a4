package block

import (
	"context"
	"time"
)

// A backoff is a pause that doubles from one failure to the next, up to a limit.
type backoff struct{ next, limit time.Duration }

func (b *backoff) pause() time.Duration {
	d := b.next
	b.next = min(2*d, b.limit)
	return d
}

// wait returns false when ctx ends before the pause does.
func (b *backoff) wait(ctx context.Context) bool {
	t := time.NewTimer(b.pause())
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
