package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A swarm is one run against a pool: it connects, submits for a time, waits for the replies and counts.
type swarm struct {
	cfg      *config
	addr     netip.AddrPort
	password string // as a JSON string
	lanes    []*lane
	blocks   *blocks
	puzzles  chan puzzle
	start    time.Time
	streams  sync.WaitGroup
	own      usage                  // of this process before the run
	cmdError atomic.Pointer[string] // the last failure of -block-cmd
	judged   atomic.Int64           // when a block must have been seen for it to be missed; 0 before the end
}

// errNothing is the result of a run in which no connection logged in.
var errNothing = errors.New("no connection logged in")

// newSwarm prepares a run. Nothing is sent yet.
func newSwarm(ctx context.Context, cfg *config) (*swarm, error) {
	if cfg.conns+cfg.agents == 0 {
		return nil, errors.New("no connections to make")
	}
	if err := needDescriptors(cfg.conns + cfg.agents); err != nil {
		return nil, err
	}
	if cfg.totalRate > 0 {
		shared := *cfg
		shared.rate = cfg.totalRate / float64(cfg.conns+cfg.agents*cfg.workers)
		cfg = &shared
	}
	s := &swarm{cfg: cfg, blocks: newBlocks(), start: time.Now(), own: ownUsage()}
	var err error
	if s.addr, err = resolve(ctx, cfg.pool); err != nil {
		return nil, err
	}
	for _, a := range cfg.sources {
		if a.Is4() != s.addr.Addr().Is4() {
			return nil, fmt.Errorf("-source %v cannot reach -pool %v: one is IPv4 and the other is not", a, s.addr)
		}
	}
	if s.addr.Addr().Is4() {
		if err := needPorts(cfg.conns+cfg.agents, max(len(cfg.sources), 1)); err != nil {
			return nil, err
		}
	}
	quote := func(text string) string {
		b, _ := json.Marshal(text)
		return string(b)
	}
	s.password = quote(cfg.password)
	if cfg.real {
		s.puzzles = make(chan puzzle, min((cfg.conns+cfg.agents)*max(cfg.inflight, 4), maxPuzzles))
	}
	for n := range min(cfg.lanes, cfg.conns+cfg.agents) {
		l := newLane(s, n)
		if cfg.tls == nil {
			if l.poll, err = newPoller(); err != nil {
				return nil, err
			}
		}
		s.lanes = append(s.lanes, l)
	}
	for i := range cfg.conns + cfg.agents {
		l := s.lanes[i%len(s.lanes)]
		c := &conn{
			lane: l, index: i, fd: -1, slot: -1,
			user: quote(strings.Replace(cfg.user, "%d", strconv.Itoa(i), 1)),
		}
		if i >= cfg.conns {
			c.agent = newAgent(cfg.workers)
			// Agents log in for an account and name the workers later.
			c.user = quote(strings.SplitN(strings.Replace(cfg.user, "%d", strconv.Itoa(i), 1), ".", 2)[0])
		}
		l.conns = append(l.conns, c)
	}
	return s, nil
}

func resolve(ctx context.Context, pool string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(pool)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("-pool %q is not host:port", pool)
	}
	n, _ := strconv.ParseUint(port, 10, 16)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addrs) == 0 {
		return netip.AddrPort{}, fmt.Errorf("-pool %q has no address: %w", pool, err)
	}
	for _, a := range addrs {
		if a.Unmap().Is4() {
			return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
		}
	}
	return netip.AddrPortFrom(addrs[0], uint16(n)), nil
}

// now is the time since the start in nanoseconds.
func (s *swarm) now() int64 { return int64(time.Since(s.start)) }

// A tally is what all lanes have together at a moment.
type tally struct {
	live, joining, open int
}

func (s *swarm) tally() (t tally) {
	for _, l := range s.lanes {
		l.mu.Lock()
		t.live += l.live
		t.joining += l.joining
		t.open += l.open
		l.mu.Unlock()
	}
	return t
}

// counts returns the counts so far.
func (s *swarm) counts() *stats {
	all := new(stats)
	for _, l := range s.lanes {
		l.mu.Lock()
		all.merge(&l.stats)
		l.mu.Unlock()
	}
	return all
}

// run does everything, and is over within the times that the flags name. When ctx ends it goes on to the report.
func (s *swarm) run(ctx context.Context, progress io.Writer) (*result, error) {
	cfg := s.cfg
	r := &result{cfg: cfg, pool: cfg.pool}
	var err error
	if r.before, err = s.sample(); err != nil {
		return nil, err
	}
	r.before.own = s.own
	hashing, stopHashing := context.WithCancel(context.WithoutCancel(ctx))
	var working, hashers sync.WaitGroup
	if cfg.real {
		for range cfg.lanes {
			hashers.Go(func() { s.hash(hashing) })
		}
	}
	s.schedule()
	release := reserve(len(s.lanes))
	for _, l := range s.lanes {
		working.Go(l.run)
	}
	defer func() {
		stopHashing()
		for _, l := range s.lanes {
			l.stop()
		}
		working.Wait()
		release()
		hashers.Wait()
		s.streams.Wait()
	}()

	lines := newProgress(s, progress)
	defer lines.stop()

	// Connect.
	limit := cfg.timeout + time.Second
	if cfg.connectRate > 0 {
		limit += time.Duration(min(float64(cfg.conns+cfg.agents)/cfg.connectRate, 24*3600) * float64(time.Second))
	}
	s.until(ctx, limit, func(t tally) bool { return t.joining == 0 })
	r.connecting = time.Since(s.start)
	r.atLogin = s.tally()
	if ctx.Err() == nil && r.atLogin.live > 0 {
		// The first jobs come right after, and what the pool has to clean up.
		s.until(ctx, 2*time.Second, func(tally) bool { return s.haveWork() })
		s.pause(ctx, cfg.settle)
	}
	if r.idle, err = s.sample(); err != nil {
		return nil, err
	}
	r.atIdle = s.counts()

	// Submit.
	if ctx.Err() == nil && r.atLogin.live > 0 {
		lines.loading()
		var blocks sync.WaitGroup
		making, stopMaking := context.WithCancel(ctx)
		if cfg.blockCmd != "" {
			blocks.Go(func() { s.makeBlocks(making) })
		}
		begun := time.Now()
		for _, l := range s.lanes {
			l.startLoad()
		}
		s.until(ctx, cfg.duration, func(t tally) bool { return t.live+t.joining == 0 })
		for _, l := range s.lanes {
			l.stopLoad()
		}
		r.loading = time.Since(begun)
		stopMaking()
		blocks.Wait()
		s.until(ctx, cfg.drain, func(t tally) bool { return t.open == 0 && t.joining == 0 })
		// A block that some have already has as long to reach the others; one that comes from now on does not count.
		s.judged.Store(s.now())
		s.until(ctx, cfg.drain, func(tally) bool { return s.haveBlocks(s.judged.Load()) })
	}
	if r.after, err = s.sample(); err != nil {
		r.died = err.Error()
		err = nil
	}
	r.atEnd = s.tally()
	lines.stop()

	var tables []spreadTable
	for _, l := range s.lanes {
		l.stop()
		l.mu.Lock()
		tables = append(tables, l.spreads)
		l.mu.Unlock()
	}
	r.counts = s.counts()
	r.spreads = merged(tables)
	r.blocks = s.blocks.total
	if text := s.cmdError.Load(); text != nil {
		r.cmdError = *text
	}
	if r.counts.loggedIn == 0 {
		return r, errNothing
	}
	return r, nil
}

// schedule gives every connection the moment to begin at.
func (s *swarm) schedule() {
	for _, l := range s.lanes {
		l.mu.Lock()
		l.joining = len(l.conns)
		now := s.now()
		for _, c := range l.conns {
			at := now
			if s.cfg.connectRate > 0 {
				at += int64(float64(c.index) / s.cfg.connectRate * float64(time.Second))
			}
			l.schedule(c, at)
		}
		l.mu.Unlock()
	}
}

// until looks every few milliseconds whether something is so, for at most limit.
func (s *swarm) until(ctx context.Context, limit time.Duration, done func(tally) bool) {
	end := time.NewTimer(limit)
	defer end.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !done(s.tally()) {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			return
		case <-look.C:
		}
	}
}

func (s *swarm) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// haveWork reports whether every connection that has logged in got a job.
func (s *swarm) haveWork() bool {
	for _, l := range s.lanes {
		l.mu.Lock()
		for _, c := range l.conns {
			if c.phase == phaseLive && c.job == "" {
				l.mu.Unlock()
				return false
			}
		}
		l.mu.Unlock()
	}
	return true
}

// haveBlocks reports whether every miner with a job has the last block that was seen by a time.
func (s *swarm) haveBlocks(by int64) bool {
	last := int64(0)
	for _, b := range s.blocks.recent() {
		if b.seen <= by {
			last = max(last, b.seen)
		}
	}
	for _, l := range s.lanes {
		l.mu.Lock()
		for _, c := range l.conns {
			if c.phase == phaseLive && c.job != "" && c.blockSeen < last {
				l.mu.Unlock()
				return false
			}
		}
		l.mu.Unlock()
	}
	return true
}

// A sample is the usage of the pool's processes and of this one at a moment.
type sample struct {
	pool usage // zero without -pid
	own  usage
}

func (s *swarm) sample() (sample, error) {
	var p sample
	var err error
	if len(s.cfg.pids) > 0 {
		p.pool, err = processes(s.cfg.pids)
	}
	p.own = ownUsage()
	return p, err
}

// makeBlocks runs -block-cmd again and again.
func (s *swarm) makeBlocks(ctx context.Context) {
	tick := time.NewTicker(s.cfg.blockEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		cmd := exec.CommandContext(ctx, "sh", "-c", s.cfg.blockCmd)
		cmd.WaitDelay = time.Second
		s.blocks.start(s.now())
		if out, err := cmd.CombinedOutput(); err != nil && ctx.Err() == nil {
			text := strings.TrimSpace(err.Error() + ": " + string(out[:min(len(out), 200)]))
			s.cmdError.Store(&text)
		}
	}
}
