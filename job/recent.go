package job

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of [RecentOptions].
const (
	DefaultJobLifetime = 300 * time.Second
	DefaultMaxDelay    = 60 * time.Second
	DefaultMaxJobs     = 1024
)

// RecentOptions tune a [Recent]. Zero and negative values mean the defaults.
type RecentOptions struct {
	Lifetime time.Duration // how long after its ID's time a job can be mined; DefaultJobLifetime
	MaxDelay time.Duration // a job that comes later than this after its ID's time is refused; DefaultMaxDelay
	MaxJobs  int           // the oldest jobs beyond this many are forgotten before their time; DefaultMaxJobs
}

// Reasons why [Recent.Add] refuses a job.
var (
	ErrLateJob      = errors.New("job: the job came too late")
	ErrDuplicateJob = errors.New("job: the job is known already")
)

// A State says what a share for a job is worth now.
type State uint8

const (
	// Expired jobs are forgotten, or were never known. The zero value pays nothing.
	Expired State = iota

	// Current jobs are on the tip that miners work on.
	Current

	// Stale jobs were sent, but a block was found since: no share for them can help.
	Stale
)

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case Expired:
		return "expired"
	case Current:
		return "current"
	case Stale:
		return "stale"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// A Recent keeps the jobs of one chain that can still be mined: those of the last five minutes, and the last one
// however old it is. It tells jobs on the current tip from those that a new block has made stale.
//
// All methods may be called at any time by any goroutine. All but Add take no lock and allocate nothing, so that every
// share can ask.
type Recent struct {
	lifetime, maxDelay time.Duration
	maxJobs            int

	mu   sync.Mutex // serialises Add
	snap atomic.Pointer[recentJobs]
}

// recentJobs is a state of a Recent; it is never changed.
type recentJobs struct {
	entries []recentEntry // ascending by id
	last    *Job          // the one added last
}

type recentEntry struct {
	id      ID
	expires int64 // Unix nanoseconds
	stale   bool
	job     *Job
}

// NewRecent returns an empty Recent.
func NewRecent(opts *RecentOptions) *Recent {
	r := &Recent{lifetime: DefaultJobLifetime, maxDelay: DefaultMaxDelay, maxJobs: DefaultMaxJobs}
	if opts != nil {
		if opts.Lifetime > 0 {
			r.lifetime = opts.Lifetime
		}
		if opts.MaxDelay > 0 {
			r.maxDelay = opts.MaxDelay
		}
		if opts.MaxJobs > 0 {
			r.maxJobs = opts.MaxJobs
		}
	}
	r.snap.Store(new(recentJobs))
	return r
}

// Add makes j the latest job. The error matches [ErrLateJob] or [ErrDuplicateJob] when j is not taken; nothing has
// changed then.
//
// clean reports that miners must be told to drop what they have: j is on another tip than the job added before, and not
// below it. All jobs on other tips are stale from then on. The Clean mark of j itself is not asked: it speaks of the
// jobs of one maker, and with several of them, or after a maker's restart, it would throw work away on a tip that
// miners have already. A job below the one before it comes from a node that lags behind and makes nothing stale.
func (r *Recent) Add(j *Job, now time.Time) (clean bool, err error) {
	if j == nil {
		return false, errors.New("job: add: no job")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.snap.Load()
	made := j.ID.Time()
	if now.Sub(made) >= r.maxDelay+time.Second { // IDs count whole seconds
		return false, fmt.Errorf("%w: job %d is %v old, at most %v is allowed", ErrLateJob, j.ID,
			now.Sub(made).Truncate(time.Second), r.maxDelay)
	}
	if old.find(j.ID) != nil {
		return false, fmt.Errorf("%w: %d", ErrDuplicateJob, j.ID)
	}
	clean = old.last == nil || j.PrevHash != old.last.PrevHash && j.Height >= old.last.Height

	next := &recentJobs{entries: make([]recentEntry, 0, len(old.entries)+1), last: j}
	for _, e := range old.entries {
		if e.expires <= now.UnixNano() {
			continue
		}
		if clean {
			e.stale = e.job.PrevHash != j.PrevHash // a tip that comes back is mined on again
		}
		next.entries = append(next.entries, e)
	}
	e := recentEntry{id: j.ID, expires: made.Add(r.lifetime).UnixNano(), job: j}
	i, _ := slices.BinarySearchFunc(next.entries, j.ID, compareEntry)
	next.entries = slices.Insert(next.entries, i, e)
	for len(next.entries) > r.maxJobs {
		oldest := 0
		if next.entries[0].job == j { // the last one stays, whatever its ID
			oldest = min(1, len(next.entries)-1)
		}
		next.entries = slices.Delete(next.entries, oldest, oldest+1)
	}
	r.snap.Store(next)
	return clean, nil
}

// Get returns the job with the given ID, and whether it is stale. It returns [ErrUnknownJob] when there is none, or
// none any more.
func (r *Recent) Get(id ID, now time.Time) (j *Job, stale bool, err error) {
	snap := r.snap.Load()
	e := snap.find(id)
	if e == nil || snap.expired(e, now) {
		return nil, false, ErrUnknownJob
	}
	return e.job, e.stale, nil
}

// Latest returns the job that was added last, nil when there was none.
func (r *Recent) Latest() *Job { return r.snap.Load().last }

// State returns what a share for j is worth at now. It goes by the ID of j, not by the pointer, and takes some
// nanoseconds.
func (r *Recent) State(j *Job, now time.Time) State {
	snap := r.snap.Load()
	e := snap.find(j.ID)
	switch {
	case e == nil || snap.expired(e, now):
		return Expired
	case e.stale:
		return Stale
	}
	return Current
}

func (s *recentJobs) expired(e *recentEntry, now time.Time) bool {
	return e.job != s.last && e.expires <= now.UnixNano()
}

// find returns the entry with the given ID, nil when there is none. Nearly all shares are for one of the newest jobs.
func (s *recentJobs) find(id ID) *recentEntry {
	for i := len(s.entries) - 1; i >= max(0, len(s.entries)-4); i-- {
		if s.entries[i].id == id {
			return &s.entries[i]
		}
	}
	if i, ok := slices.BinarySearchFunc(s.entries, id, compareEntry); ok {
		return &s.entries[i]
	}
	return nil
}

func compareEntry(e recentEntry, id ID) int {
	switch {
	case e.id < id:
		return -1
	case e.id > id:
		return 1
	}
	return 0
}
