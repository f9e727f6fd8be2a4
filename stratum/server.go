package stratum

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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

	made  time.Time // what the guard counts time from
	guard *guard
	jobs  atomic.Uint32 // encoded

	machines atomic.Int64 // behind all agents

	difficulties DifficultyStore // nil when nothing is remembered

	slowPuts atomic.Int32  // how slow the share sink was lately; see Session.put
	reroutes atomic.Uint32 // calls of Reroute that have begun

	chains atomic.Pointer[map[job.Chain]*chain] // replaced under mu

	mu       sync.Mutex
	sessions map[uint32]*Session // by extranonce1
	lot      parkingLot
	empty    chan struct{}                 // closed when the last session leaves; nil when nobody waits for that
	leaving  bool                          // Shutdown was called
	quit     atomic.Pointer[chan struct{}] // closed when sessions are to finish

	// Of the Serve under way.
	stopAccepting, stopServing func()

	draining atomic.Bool // set under mu, so that no session is added once drain has begun

	counters counters

	refusedLog, junkLog, badLog, loginLog logLimit
}

type counters struct {
	accepted     atomic.Int64 // connections
	refused      atomic.Int64
	resumed      atomic.Int64
	malformed    atomic.Int64
	unregistered atomic.Int64
	solutions    atomic.Int64
	hurried      atomic.Int64
	lostPuts     atomic.Int64
	verdicts     [64]atomic.Int64
}

// Stats are a server's counters since it was made, and how things stand now.
type Stats struct {
	Sessions     int           // connected now
	States       map[State]int // of these, how far they have come
	AgentWorkers int           // machines registered behind agents now
	Parked       int           // sessions that can be resumed

	Connections  int64 // accepted, with those that Limits refused then
	Refused      int64 // closed at once, because the server was full or stopping or out of extranonces
	Resumed      int64 // sessions that went on after their connection was lost
	Malformed    int64 // lines and frames that meant nothing, and connections that were not Stratum
	Unregistered int64 // machines behind agents that were not let in, because there were too many
	Solutions    int64 // headers that met the network target
	Hurried      int64 // jobs sent out of turn, for policies that could not wait
	NotRecorded  int64 // shares that the sink refused, and the miner was told so

	Verdicts map[share.Verdict]int64 // submits answered, by what was answered

	Limits LimitStats
	Chains map[job.Chain]ChainStats // one without a name where the server has no Router
}

// ChainStats are what a server knows of a chain.
type ChainStats struct {
	LastJob     *job.Job      // nil before the first
	LastJobSent time.Time     // when one was last pushed to everybody
	Sessions    map[State]int // that mine it, or are not routed yet where there is one chain
}

// New returns a Server that hands out the jobs of feed to the workers that auth lets in, gives the shares they find to
// shares, also those that are refused for what they are, and every solved block to solutions. nil options mean all
// defaults. Everything that is wrong with the options is reported at once. It starts nothing.
func New(feed job.Feed, auth Authorizer, shares share.Sink, solutions share.SolutionSink, opts *Options) (*Server, error) {
	s := &Server{
		feed: feed, auth: auth, shares: shares, solutions: solutions,
		sessions: make(map[uint32]*Session),
		lot:      newParkingLot(),
		made:     time.Now(),
	}
	s.chains.Store(&map[job.Chain]*chain{})
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
	if s.difficulties = s.opts.Difficulties; s.difficulties == nil {
		s.difficulties = NewDifficultyMemory(nil)
	}
	if s.opts.KeepDifficulty < 0 {
		s.difficulties = nil
	}
	alive := s.opts.Validation.Alive
	s.opts.Validation.Alive = func(j *job.Job) bool {
		return alive != nil && alive(j) || s.chainOf(j.Chain).recent.State(j, time.Now()) != job.Expired
	}
	s.guard = newGuard(&s.opts.Limits)
	s.scratch.New = newScratch
	return s, nil
}

// Serve accepts miners on the listeners until ctx ends or [Server.Shutdown] is called. A listener that is a [*Port] has
// rules of its own. At the end Serve closes them, lets every session finish what it has read, which includes recording
// its shares, and returns nil; sessions that take longer than the drain timeout are cut off. It returns an error when
// something is wrong with a Port, before it accepts anybody, and when a listener fails for good; descriptors that run
// out are waited for. It may be called again when it has returned, but not twice at a time.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	var closing sync.Once
	closeAll := func() {
		closing.Do(func() {
			for _, ln := range listeners {
				ln.Close()
			}
		})
	}
	defer closeAll()
	var errs []error
	for _, ln := range listeners {
		if err := portOf(ln).check(); err != nil && portOf(ln) != plainPort {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}

	front, stopFront := context.WithCancelCause(ctx)
	defer stopFront(nil)
	// Shares that were read before the stop are still recorded after it, within the drain timeout.
	back, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()
	quit := make(chan struct{})
	poller := &lazyPoller{work: func(sess *Session) { sess.work(back) }}
	defer poller.stop()
	var accepting, pushing, serving sync.WaitGroup

	s.mu.Lock()
	s.draining.Store(false)
	s.leaving = false
	s.quit.Store(&quit)
	s.stopAccepting = func() { closeAll(); accepting.Wait() }
	s.stopServing = func() { stopFront(nil) }
	s.mu.Unlock()

	pushing.Go(func() { s.follow(front) })
	pushing.Go(func() { s.keepSending(front) })
	for _, ln := range listeners {
		accepting.Go(func() {
			if err := s.accept(front, back, ln, poller, &serving); err != nil {
				stopFront(err)
			}
		})
	}

	<-front.Done()
	closeAll()
	accepting.Wait()
	s.drain()
	close(quit)
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
			sess.kick()
		}
		<-done
	}
	pushing.Wait()
	if err := context.Cause(front); err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// stopping is closed when sessions are to finish.
func (s *Server) stopping() <-chan struct{} { return *s.quit.Load() }

// Shutdown is the gentle way to end Serve. It closes the listeners, so that newcomers go to whoever else holds their
// sockets, asks every miner to reconnect, and goes on serving until all have gone or ctx ends; shares that miners send
// meanwhile are judged and answered as ever. Then Serve ends as when its context does, which Shutdown does not wait for.
// Miners that come back to the next process find their session there if it was given what [Server.SaveSessions] writes
// once Serve has returned.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.leaving = true
	stopAccepting, stopServing := s.stopAccepting, s.stopServing
	s.mu.Unlock()
	if stopServing == nil {
		return // not serving
	}
	defer stopServing()
	stopAccepting()
	s.mu.Lock()
	if s.empty == nil { // or another call waits already
		s.empty = make(chan struct{})
	}
	empty := s.empty
	if len(s.sessions) == 0 {
		close(empty)
		s.empty = nil
	}
	s.mu.Unlock()
	for _, sess := range s.snapshot(nil) {
		_ = sess.Reconnect(sv1.Reconnect{})
	}
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// drain tells every session to stop reading.
func (s *Server) drain() {
	s.mu.Lock()
	s.draining.Store(true)
	s.mu.Unlock()
	for _, sess := range s.snapshot(nil) {
		sess.out.conn.SetReadDeadline(time.Unix(1, 0))
		sess.kick()
	}
}

func (s *Server) accept(ctx, back context.Context, ln net.Listener, poller *lazyPoller, serving *sync.WaitGroup) error {
	port := portOf(ln)
	delay := time.Duration(0)
	var said time.Time
	failures := 0
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || s.isLeaving() {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("stratum: accept on %v: %w", ln.Addr(), err)
			}
			// Descriptors may have run out; they come back as miners leave.
			failures++
			if now := time.Now(); now.Sub(said) >= time.Minute { // also when some get in between
				said = now
				s.opts.Logger.Error("cannot accept connections, trying again", "listener", ln.Addr().String(), "error", err,
					"failures", failures)
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
			continue
		}
		delay = 0
		sess, err := s.open(port, conn)
		if err != nil {
			s.counters.refused.Add(1)
			s.warn(&s.refusedLog, "connection refused", "remote", conn.RemoteAddr().String(), "error", err)
			conn.Close()
			continue
		}
		serving.Add(1)
		sess.done = serving.Done
		sess.extendDeadline()
		if !poller.add(back, sess) {
			go sess.run(back)
		}
	}
}

func (s *Server) isLeaving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaving
}

// open makes the session of a connection. The extranonce is leased here, so that a server that runs out of them says
// so at once.
func (s *Server) open(port *Port, conn net.Conn) (*Session, error) {
	now := time.Now()
	if s.isFull() { // which must not cost a prefix
		return nil, errFull
	}
	prefix, err := s.prefixes.Lease(now)
	if err != nil {
		return nil, err
	}
	sess := newSession(s, port, conn, prefix, now)
	s.mu.Lock()
	full := s.opts.MaxSessions > 0 && len(s.sessions) >= s.opts.MaxSessions
	draining := s.draining.Load()
	if !full && !draining {
		s.sessions[prefix] = sess
	}
	s.mu.Unlock()
	switch {
	case full:
		s.prefixes.Release(prefix, now)
		return nil, errFull
	case draining:
		s.prefixes.Release(prefix, now)
		return nil, errors.New("stratum: the server is stopping")
	}
	s.counters.accepted.Add(1)
	return sess, nil
}

var errFull = errors.New("stratum: as many sessions are open as are allowed")

func (s *Server) isFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opts.MaxSessions > 0 && len(s.sessions) >= s.opts.MaxSessions
}

func (s *Server) snapshot(dst []*Session) []*Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	dst = slices.Grow(dst[:0], len(s.sessions))
	for _, sess := range s.sessions {
		dst = append(dst, sess)
	}
	return dst
}

// Sessions calls yield with every connected session until it returns false, in no order.
func (s *Server) Sessions(yield func(*Session) bool) {
	for _, sess := range s.snapshot(nil) {
		if !yield(sess) {
			return
		}
	}
}

// LatestJob returns the job that a miner who comes now is sent, nil before the first. With a Router it is the newest of
// all chains.
func (s *Server) LatestJob() *job.Job {
	var latest *encodedJob
	for _, c := range *s.chains.Load() {
		if enc := c.latest.Load(); enc != nil && (latest == nil || int32(enc.number-latest.number) > 0) {
			latest = enc
		}
	}
	if latest == nil {
		return nil
	}
	return latest.job
}

// Bans returns what is banned now, workers and addresses, in no order.
func (s *Server) Bans() []BanInfo { return s.guard.bans(s.clock(time.Now())) }

// Unban forgets what is held against a worker at an address; with the zero Worker, against the address and everybody
// there; with the zero Addr, against the worker anywhere. It returns how many bans that lifted.
func (s *Server) Unban(addr netip.Addr, worker share.Worker) int {
	return s.guard.unban(addr, worker, s.clock(time.Now()))
}

// Stats returns the server's counters. It looks at every session.
func (s *Server) Stats() Stats {
	st := Stats{
		Connections:  s.counters.accepted.Load(),
		Refused:      s.counters.refused.Load(),
		Resumed:      s.counters.resumed.Load(),
		Malformed:    s.counters.malformed.Load(),
		Unregistered: s.counters.unregistered.Load(),
		Solutions:    s.counters.solutions.Load(),
		Hurried:      s.counters.hurried.Load(),
		NotRecorded:  s.counters.lostPuts.Load(),
		Verdicts:     make(map[share.Verdict]int64),
		States:       make(map[State]int),
		Limits:       s.guard.counters(s.clock(time.Now())),
		Chains:       make(map[job.Chain]ChainStats),
	}
	for v := range s.counters.verdicts {
		if n := s.counters.verdicts[v].Load(); n > 0 {
			st.Verdicts[share.Verdict(v)] = n
		}
	}
	for name, c := range *s.chains.Load() {
		cs := ChainStats{Sessions: make(map[State]int)}
		c.mu.Lock()
		cs.LastJobSent = c.lastPush
		c.mu.Unlock()
		if enc := c.latest.Load(); enc != nil {
			cs.LastJob = enc.job
		}
		st.Chains[name] = cs
	}
	for _, sess := range s.snapshot(nil) {
		state := sess.State()
		st.Sessions++
		st.States[state]++
		st.AgentWorkers += sess.AgentWorkers()
		if cs, ok := st.Chains[sess.Chain()]; ok {
			cs.Sessions[state]++
		}
	}
	s.mu.Lock()
	st.Parked = len(s.lot.byPrefix)
	s.mu.Unlock()
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
