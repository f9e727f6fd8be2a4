package job

import (
	"context"
	"errors"
	"sync"
)

// DefaultRemember is how many jobs a [Hub] keeps for followers that come later: what a block maker asks for.
const DefaultRemember = 120

// HubOptions tune a [Hub].
type HubOptions struct {
	Remember int // jobs kept for followers that come later; below DefaultRemember means DefaultRemember
}

// HubStats count what a [Hub] has done.
type HubStats struct {
	Jobs      uint64 // broadcast
	Skipped   uint64 // not put to a follower that was behind, summed over all followers
	Followers int    // calls of Follow that have not returned
}

// A Hub is the [Broadcaster] and the [Feed] within one process. A follower that is still busy with one job when others
// come is put the newest of them next. All methods are safe for concurrent use.
type Hub struct {
	mu        sync.Mutex
	recent    []*Job        // ring, by number modulo its length
	count     uint64        // jobs broadcast; they are numbered from 1
	lastClean uint64        // number of the last one that was marked clean
	changed   chan struct{} // closed when the next job comes
	skipped   uint64
	followers int
}

var (
	_ Broadcaster = (*Hub)(nil)
	_ Feed        = (*Hub)(nil)
)

// NewHub returns an empty Hub.
func NewHub(opts *HubOptions) *Hub {
	remember := DefaultRemember
	if opts != nil {
		remember = max(remember, opts.Remember)
	}
	return &Hub{recent: make([]*Job, remember), changed: make(chan struct{})}
}

// Broadcast hands j to all followers. It does not wait for any of them, and fails only when ctx has ended or j is nil.
func (h *Hub) Broadcast(ctx context.Context, j *Job) error {
	if j == nil {
		return errors.New("job: broadcast: no job")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	h.recent[h.count%uint64(len(h.recent))] = j
	if j.Clean {
		h.lastClean = h.count
	}
	close(h.changed)
	h.changed = make(chan struct{})
	return nil
}

// Follow implements [Feed]. A job is the one that was broadcast, the same pointer, but for one that has to be marked
// clean for those that were skipped: that is a copy.
func (h *Hub) Follow(ctx context.Context, last int, put func(*Job)) error {
	if put == nil {
		return errors.New("job: follow: no function to put jobs to")
	}
	h.mu.Lock()
	h.followers++
	seen := h.count
	var replay []*Job
	for n := min(uint64(max(last, 0)), h.count, uint64(len(h.recent))); n > 0; n-- {
		replay = append(replay, h.recent[(seen-n+1)%uint64(len(h.recent))])
	}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.followers--
	}()

	for _, j := range replay {
		if ctx.Err() != nil {
			return nil
		}
		put(j)
	}
	for {
		h.mu.Lock()
		newest, changed := h.count, h.changed
		j := h.recent[newest%uint64(len(h.recent))]
		missedClean := seen < h.lastClean && h.lastClean < newest
		if newest > seen {
			h.skipped += newest - seen - 1
		}
		h.mu.Unlock()

		if newest == seen {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if missedClean && !j.Clean {
			marked := *j
			marked.Clean = true
			j = &marked
		}
		seen = newest
		put(j)
	}
}

// Stats returns the counters as they stand.
func (h *Hub) Stats() HubStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return HubStats{Jobs: h.count, Skipped: h.skipped, Followers: h.followers}
}
