package stratum

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// A Server speaks Stratum V1 to miners.
type Server struct {
	feed      job.Feed
	auth      Authorizer
	shares    share.Sink
	solutions share.SolutionSink
	opts      Options
	prefixes  Extranonces
	scratch   sync.Pool

	recent *job.Recent
	latest atomic.Pointer[encodedJob]

	// pushMu serialises pushes and guards what they work with.
	pushMu    sync.Mutex
	lastPush  time.Time
	lastEmpty bool
	targets   []*Session // scratch

	tipAt atomic.Int64 // when the latest tip was learned, Unix nanoseconds

	mu       sync.Mutex
	sessions map[*Session]struct{}
	draining atomic.Bool // set under mu, so that no session is added once drain has begun

	counters counters
}

// An encodedJob is a job with the part of its mining.notify that all sessions share.
type encodedJob struct {
	job  *job.Job
	body []byte
}

type counters struct {
	accepted  atomic.Int64 // connections
	refused   atomic.Int64
	malformed atomic.Int64
	solutions atomic.Int64
	lostPuts  atomic.Int64
	verdicts  [64]atomic.Int64
}

// Stats are a server's counters since it was made.
type Stats struct {
	Sessions    int   // connected now
	Authorized  int   // of these, with a worker that was let in
	Connections int64 // accepted
	Refused     int64 // turned away because the server was full
	Malformed   int64 // lines that were no requests
	Solutions   int64 // headers that met the network target
	NotRecorded int64 // shares that the sink refused, and the miner was told so
	Verdicts    map[share.Verdict]int64

	LastJob     *job.Job  // nil before the first
	LastJobSent time.Time // when it was last pushed to everybody
}

// New returns a Server that hands out the jobs of feed to the workers that auth lets in, gives every share to shares
// and every solved block to solutions. Everything that is wrong with the options is reported at once.
func New(feed job.Feed, auth Authorizer, shares share.Sink, solutions share.SolutionSink, opts *Options) (*Server, error) {
	s := &Server{
		feed: feed, auth: auth, shares: shares, solutions: solutions,
		recent:   job.NewRecent(nil),
		sessions: make(map[*Session]struct{}),
	}
	if opts != nil {
		s.opts = *opts
	}
	if err := s.opts.complete(); err != nil {
		return nil, err
	}
	if feed == nil || auth == nil || shares == nil || solutions == nil {
		return nil, errors.New("stratum: new server: a feed, an authorizer, a sink for shares and one for solutions are needed")
	}
	s.prefixes = s.opts.Extranonces
	if s.prefixes == nil {
		s.prefixes = NewPrefixes(s.opts.ServerID, 0)
	}
	s.scratch.New = func() any { return newScratch(s.opts.MaxLine) }
	return s, nil
}

// Serve accepts miners on the listeners until ctx ends. Then it closes them, lets every session finish what it has
// read, which includes recording its shares, and returns nil; sessions that take longer than the drain timeout are
// cut off. It returns an error when a listener fails for good.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	defer func() {
		for _, ln := range listeners {
			ln.Close()
		}
	}()
	s.mu.Lock()
	s.draining.Store(false)
	s.mu.Unlock()

	front, stopFront := context.WithCancelCause(ctx)
	defer stopFront(nil)
	// Shares that were read before the stop are still recorded after it, within the drain timeout.
	back, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()

	var pushing, accepting, serving sync.WaitGroup
	pushing.Go(func() { s.follow(front) })
	pushing.Go(func() { s.keepSending(front) })
	for _, ln := range listeners {
		accepting.Go(func() {
			if err := s.accept(front, back, ln, &serving); err != nil {
				stopFront(err)
			}
		})
	}

	<-front.Done()
	for _, ln := range listeners {
		ln.Close()
	}
	accepting.Wait()
	s.drain()
	done := make(chan struct{})
	go func() { serving.Wait(); close(done) }()
	timer := time.NewTimer(s.opts.DrainTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		stopBack()
		for _, sess := range s.snapshot(nil) {
			sess.out.conn.Close()
		}
		<-done
	}
	pushing.Wait()
	if err := context.Cause(front); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// drain tells every session to stop reading.
func (s *Server) drain() {
	s.mu.Lock()
	s.draining.Store(true)
	s.mu.Unlock()
	for _, sess := range s.snapshot(nil) {
		sess.out.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

func (s *Server) accept(ctx, back context.Context, ln net.Listener, serving *sync.WaitGroup) error {
	delay := time.Duration(0)
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("stratum: accept on %v: %w", ln.Addr(), err)
			}
			// Descriptors may have run out; they come back as miners leave.
			if delay == 0 {
				s.opts.Logger.Error("cannot accept connections, trying again", "listener", ln.Addr().String(), "error", err)
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
			continue
		}
		delay = 0
		sess, err := s.open(conn)
		if err != nil {
			s.counters.refused.Add(1)
			s.opts.Logger.Warn("connection refused", "remote", conn.RemoteAddr().String(), "error", err)
			conn.Close()
			continue
		}
		serving.Go(func() { sess.serve(back) })
	}
}

// open makes the session of a connection. The extranonce is leased here, so that a server that runs out of them says
// so at once.
func (s *Server) open(conn net.Conn) (*Session, error) {
	now := time.Now()
	prefix, err := s.prefixes.Lease(now)
	if err != nil {
		return nil, err
	}
	sess := newSession(s, conn, prefix, now)
	s.mu.Lock()
	full := s.opts.MaxSessions > 0 && len(s.sessions) >= s.opts.MaxSessions
	draining := s.draining.Load()
	if !full && !draining {
		s.sessions[sess] = struct{}{}
	}
	s.mu.Unlock()
	switch {
	case full:
		s.prefixes.Release(prefix, now)
		return nil, fmt.Errorf("stratum: %d sessions are open, the most allowed", s.opts.MaxSessions)
	case draining:
		s.prefixes.Release(prefix, now)
		return nil, errors.New("stratum: the server is stopping")
	}
	s.counters.accepted.Add(1)
	return sess, nil
}

func (s *Server) forget(sess *Session) {
	s.mu.Lock()
	delete(s.sessions, sess)
	s.mu.Unlock()
	s.prefixes.Release(sess.prefix, time.Now())
}

func (s *Server) snapshot(dst []*Session) []*Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	dst = slices.Grow(dst[:0], len(s.sessions))
	for sess := range s.sessions {
		dst = append(dst, sess)
	}
	return dst
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
	clean, err := s.recent.Add(j, now)
	if errors.Is(err, job.ErrDuplicateJob) {
		return // a feed that is followed anew begins with a job from before
	}
	if err != nil {
		s.opts.Logger.Warn("job dropped", "job", j.ID.String(), "height", j.Height, "error", err)
		return
	}
	enc := s.encode(j)
	s.pushMu.Lock()
	defer s.pushMu.Unlock()
	if clean {
		s.tipAt.Store(now.UnixNano())
	}
	s.latest.Store(enc)
	if clean || s.lastEmpty && !j.Empty() || now.Sub(s.lastPush) >= s.opts.NotifyInterval {
		s.push(enc, clean, now)
	}
}

// keepSending sends the latest job when nothing has been sent for the notify interval.
func (s *Server) keepSending(ctx context.Context) {
	tick := time.NewTicker(min(time.Second, s.opts.NotifyInterval))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.pushMu.Lock()
			if enc := s.latest.Load(); enc != nil && now.Sub(s.lastPush) >= s.opts.NotifyInterval {
				s.push(enc, false, now)
			}
			s.pushMu.Unlock()
		}
	}
}

func (s *Server) encode(j *job.Job) *encodedJob {
	n := sv1.Notify{
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
	return &encodedJob{job: j, body: sv1.AppendNotifyBody(nil, &n)}
}

// push sends a job to every session that is ready for one. The lock is held.
func (s *Server) push(enc *encodedJob, clean bool, now time.Time) {
	s.lastPush, s.lastEmpty = now, enc.job.Empty()
	s.targets = s.snapshot(s.targets)
	var next, sent atomic.Int64
	work := func() {
		buf := make([]byte, 0, len(enc.body)+256)
		for {
			i := next.Add(1) - 1
			if i >= int64(len(s.targets)) {
				return
			}
			if s.targets[i].push(buf, enc, clean, now) {
				sent.Add(1)
			}
		}
	}
	// Writing to sockets is nearly all of the work and goes on every processor.
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(s.targets)/64) {
		wg.Go(work)
	}
	work()
	wg.Wait()
	clear(s.targets)
	if hook := s.opts.Hooks.JobSent; hook != nil {
		hook(enc.job, int(sent.Load()), time.Since(now))
	}
}

// inGrace reports whether shares for the last block are still accepted.
func (s *Server) inGrace(now time.Time) bool {
	return s.opts.StaleGrace > 0 && now.UnixNano()-s.tipAt.Load() <= int64(s.opts.StaleGrace)
}

// assignable bounds d and makes it one that sums exactly.
func (s *Server) assignable(d difficulty.Difficulty, floor difficulty.Difficulty) difficulty.Difficulty {
	lo := max(s.opts.MinDifficulty, floor)
	if !(d > lo) {
		return min(lo, s.opts.MaxDifficulty)
	}
	if d = min(d, s.opts.MaxDifficulty); d.Assignable() {
		return d
	}
	if d < 1 {
		return max(d.FloorPow2(), lo)
	}
	return max(difficulty.Difficulty(uint64(d)), lo)
}

// Sessions calls yield with every connected session until it returns false, in no order.
func (s *Server) Sessions(yield func(*Session) bool) {
	for _, sess := range s.snapshot(nil) {
		if !yield(sess) {
			return
		}
	}
}

// LatestJob returns the job that a miner who comes now is sent, nil before the first.
func (s *Server) LatestJob() *job.Job {
	if enc := s.latest.Load(); enc != nil {
		return enc.job
	}
	return nil
}

// Stats returns the server's counters. It looks at every session.
func (s *Server) Stats() Stats {
	st := Stats{
		Connections: s.counters.accepted.Load(),
		Refused:     s.counters.refused.Load(),
		Malformed:   s.counters.malformed.Load(),
		Solutions:   s.counters.solutions.Load(),
		NotRecorded: s.counters.lostPuts.Load(),
		Verdicts:    make(map[share.Verdict]int64),
	}
	for v := range s.counters.verdicts {
		if n := s.counters.verdicts[v].Load(); n > 0 {
			st.Verdicts[share.Verdict(v)] = n
		}
	}
	for _, sess := range s.snapshot(nil) {
		st.Sessions++
		if sess.isAuthorized() {
			st.Authorized++
		}
	}
	st.LastJob = s.LatestJob()
	s.pushMu.Lock()
	st.LastJobSent = s.lastPush
	s.pushMu.Unlock()
	return st
}

func remoteAddr(conn net.Conn) netip.AddrPort {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	}
	ap, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	return ap
}
