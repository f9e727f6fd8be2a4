package stratum

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// A chain is what a server knows of one chain's jobs. A server without a Router has one, whatever its jobs say.
type chain struct {
	name   job.Chain
	recent *job.Recent
	latest atomic.Pointer[encodedJob]
	tipAt  atomic.Int64 // when the latest tip was learned, Unix nanoseconds

	// mu serialises pushes and guards what they work with.
	mu        sync.Mutex
	lastPush  time.Time
	lastEmpty bool
	targets   []*Session // scratch
}

// An encodedJob is a job with the lines that tell of it. All sessions get the same ones, so a push copies nothing.
type encodedJob struct {
	job    *job.Job
	chain  *chain
	number uint32 // counts the server's jobs; the short id is its lowest byte

	// ceiling is the highest difficulty that it may be sent with.
	ceiling difficulty.Difficulty

	lines [2]notifyLines // by idForm
	ntime uint32         // of a job that one session was sent again, whose lines have an id and no text; else 0
}

// notifyLines are the mining.notify lines of a job under one form of its id.
type notifyLines struct {
	id           uint64
	clean, plain []byte
}

// An idForm is how job ids look. BTCAgent frames have one byte for them; NiceHash wants them never to come again.
type idForm uint8

const (
	shortIDs idForm = iota // 0 to 255, in turn
	longIDs                // the job's Unix time, times 256, plus the short id
)

// chainOf returns the chain that jobs of that name belong to, and makes it if need be.
func (s *Server) chainOf(name job.Chain) *chain {
	if s.opts.Router == nil {
		name = ""
	}
	if c := (*s.chains.Load())[name]; c != nil {
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.chains.Load()
	if c := old[name]; c != nil {
		return c
	}
	c := &chain{name: name, recent: job.NewRecent(nil)}
	all := map[job.Chain]*chain{name: c}
	for n, c := range old {
		all[n] = c
	}
	s.chains.Store(&all)
	return c
}

// follow takes jobs from the feed for as long as ctx lasts.
func (s *Server) follow(ctx context.Context) {
	for {
		err := s.feed.Follow(ctx, 1, func(j *job.Job) { s.take(j, time.Now()) })
		if ctx.Err() != nil {
			return
		}
		s.opts.Logger.Warn("the job feed ended, following it again", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// take puts a job to use: it is sent at once when it is on a new tip or replaces an empty one, and otherwise when the
// last one has been out for the notify interval.
func (s *Server) take(j *job.Job, now time.Time) {
	c := s.chainOf(j.Chain)
	clean, err := c.recent.Add(j, now)
	if errors.Is(err, job.ErrDuplicateJob) {
		return // a feed that is followed anew begins with a job from before
	}
	if err != nil {
		s.opts.Logger.Warn("job dropped", "job", j.ID.String(), "height", j.Height, "error", err)
		return
	}
	enc := s.encode(c, j)
	c.mu.Lock()
	if clean {
		c.tipAt.Store(now.UnixNano())
	}
	c.latest.Store(enc)
	var p pushed
	if clean || c.lastEmpty && !j.Empty() || now.Sub(c.lastPush) >= s.opts.NotifyInterval {
		p = s.push(enc, clean, now)
	}
	c.mu.Unlock()
	s.tell(p)
}

// A pushed is a job that was sent to everybody.
type pushed struct {
	job      *job.Job // nil when none was
	sessions int
	took     time.Duration
}

func (s *Server) tell(p pushed) {
	if hook := s.opts.Hooks.JobSent; hook != nil && p.job != nil {
		hook(p.job, p.sessions, p.took)
	}
}

// keepSending sends the latest job of a chain when nothing has been sent for the notify interval.
func (s *Server) keepSending(ctx context.Context) {
	tick := time.NewTicker(min(time.Second, s.opts.NotifyInterval))
	defer tick.Stop()
	var sessions []*Session // scratch
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, c := range *s.chains.Load() {
				var p pushed
				c.mu.Lock()
				if enc := c.latest.Load(); enc != nil && now.Sub(c.lastPush) >= s.opts.NotifyInterval {
					p = s.push(enc, false, now)
				}
				c.mu.Unlock()
				s.tell(p)
			}
			s.forgetParked(now)
			sessions = s.lookAfter(sessions, now)
		}
	}
}

// notify returns a job as mining.notify tells of it, but for the id.
func (s *Server) notify(j *job.Job) *sv1.Notify {
	n := &sv1.Notify{
		PrevHash: j.PrevHash,
		// A miner that counts through less than 8 bytes gets the rest as zeros in front of its extranonce1.
		Coinb1:  append(slices.Clip(j.Coinb1), make([]byte, job.Extranonce2Size-s.opts.Extranonce2Size)...),
		Coinb2:  j.Coinb2,
		Version: uint32(j.Version),
		Bits:    j.Bits,
		NTime:   j.Time,
	}
	for _, step := range j.Branch {
		n.Branch = append(n.Branch, step)
	}
	return n
}

func (s *Server) encode(c *chain, j *job.Job) *encodedJob {
	body := sv1.AppendNotifyBody(nil, s.notify(j))
	enc := &encodedJob{job: j, chain: c, number: s.jobs.Add(1) - 1, ceiling: s.ceilingOf(j)}
	short := uint64(uint8(enc.number))
	for form, id := range [...]uint64{shortIDs: short, longIDs: uint64(j.ID.Time().Unix())<<8 | short} {
		size := len(body) + 128
		enc.lines[form] = notifyLines{
			id:    id,
			clean: sv1.AppendNotifyFrom(make([]byte, 0, size), id, body, true),
			plain: sv1.AppendNotifyFrom(make([]byte, 0, size), id, body, false),
		}
	}
	return enc
}

// line returns the mining.notify to send.
func (e *encodedJob) line(form idForm, clean bool) []byte {
	if clean {
		return e.lines[form].clean
	}
	return e.lines[form].plain
}

// pushesInARow is how many sessions get a job before shares that came meanwhile go first: a fifth of a millisecond.
const pushesInARow = 32

// push sends a job to every session that is ready for one. The chain's lock is held.
func (s *Server) push(enc *encodedJob, clean bool, now time.Time) pushed {
	c := enc.chain
	c.lastPush, c.lastEmpty = now, enc.job.Empty()
	c.targets = s.snapshot(c.targets)
	var next, sent atomic.Int64
	work := func() {
		var buf []byte
		for {
			i := next.Add(1) - 1
			if i >= int64(len(c.targets)) {
				return
			}
			sess := c.targets[i]
			if sess.push(&buf, enc, clean, now) {
				sent.Add(1)
			}
			if i%pushesInARow == 0 && sess.polled.state.Load() != pollOff {
				sess.polled.by.glance()
			}
		}
	}
	// Writing to sockets is nearly all of the work and goes on every processor.
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0)-1, len(c.targets)/64) {
		wg.Go(work)
	}
	work()
	wg.Wait()
	clear(c.targets)
	return pushed{enc.job, int(sent.Load()), time.Since(now)}
}

// inGrace reports whether shares for the last block are still accepted.
func (s *Server) inGrace(c *chain, now time.Time) bool {
	return s.opts.StaleGrace > 0 && now.UnixNano()-c.tipAt.Load() <= int64(s.opts.StaleGrace)
}
