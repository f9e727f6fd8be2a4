package stratum

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// A parkedSession is what remains of a session whose connection has ended, for the miner to come back to. It holds the
// prefix, so that nobody else gets it, and with the prefix the shares that were sent under it: what was credited once is
// a duplicate after the miner came back too.
type parkedSession struct {
	prefix    uint32
	moved     []uint32
	at        time.Time
	addr      netip.Addr
	agent     string
	worker    share.Worker
	state     difficulty.State
	wish      difficulty.Difficulty // what the miner had asked for, where the policy could not be told
	validator share.Validator
	sent      []sentJob
	last      *job.Job
	refreshed uint32

	taken bool // no longer in the lot
}

// A parkingLot holds parked sessions. Server.mu guards it.
type parkingLot struct {
	byPrefix map[uint32]*parkedSession
	queue    []*parkedSession // oldest first, also those taken since
	done     int              // entries of queue that are gone
}

func newParkingLot() parkingLot {
	return parkingLot{byPrefix: make(map[uint32]*parkedSession)}
}

func (l *parkingLot) add(p *parkedSession) {
	l.byPrefix[p.prefix] = p
	l.queue = append(l.queue, p)
}

func (l *parkingLot) take(p *parkedSession) {
	p.taken = true
	delete(l.byPrefix, p.prefix)
}

// expire takes out and returns the oldest session if it has been there for longer than it may, or if there are more
// than max.
func (l *parkingLot) expire(now time.Time, keep time.Duration, max int) *parkedSession {
	for l.done < len(l.queue) {
		p := l.queue[l.done]
		if !p.taken && now.Sub(p.at) < keep && len(l.byPrefix) <= max {
			return nil
		}
		l.queue[l.done] = nil
		if l.done++; l.done > len(l.queue)/2 {
			n := copy(l.queue, l.queue[l.done:])
			clear(l.queue[n:])
			l.queue, l.done = l.queue[:n], 0
		}
		if !p.taken {
			l.take(p)
			return p
		}
	}
	return nil
}

// park keeps what a session that has ended leaves. It returns nil for one that cannot be resumed. Server.mu is held,
// so that the prefix does not change.
func (s *Session) park(now time.Time) *parkedSession {
	if s.srv.opts.ResumeTime < 0 || !s.authorized() || s.agents != nil || s.sentDiff == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &parkedSession{
		prefix:    s.prefix,
		moved:     s.moved,
		at:        now,
		addr:      s.remote.Addr(),
		agent:     s.miner.agent,
		worker:    s.miner.worker,
		state:     s.miner.state(s.sentDiff, now),
		wish:      s.miner.fixed,
		validator: s.validator,
		sent:      s.sent,
		last:      s.last,
		refreshed: s.refreshed,
	}
}

// leave takes a session that has ended off the books. Its prefix is given back, unless the miner may come back for it.
func (s *Server) leave(sess *Session, now time.Time) {
	s.mu.Lock()
	p := sess.park(now)
	delete(s.sessions, sess.prefix)
	if p != nil {
		s.lot.add(p)
	}
	if sess.gone != nil {
		close(sess.gone)
	}
	if s.empty != nil && len(s.sessions) == 0 {
		close(s.empty)
		s.empty = nil
	}
	s.mu.Unlock()
	if p == nil {
		s.releaseAll(sess.prefix, sess.moved, now)
	}
	s.forgetParked(now)
}

func (s *Server) releaseAll(prefix uint32, moved []uint32, now time.Time) {
	s.prefixes.Release(prefix, now)
	for _, p := range moved {
		s.prefixes.Release(p, now)
	}
}

// forgetParked gives up sessions that nobody came back for.
func (s *Server) forgetParked(now time.Time) {
	for {
		s.mu.Lock()
		p := s.lot.expire(now, s.opts.ResumeTime, s.opts.MaxParked)
		s.mu.Unlock()
		if p == nil {
			return
		}
		s.releaseAll(p.prefix, p.moved, now)
	}
}

// resumeWait is how long a miner that names a session which is still open waits for that to end: it may have closed the
// old connection a moment ago.
const resumeWait = 250 * time.Millisecond

// resume gives a session that has not been told its extranonce the one it had before, if it can prove to be the miner
// it was: the id is that of a session which ended recently and had the same address and software. A session that is
// open is never taken over.
func (s *Session) resume(id, agent string) {
	if len(id) != 8 || s.srv.opts.ResumeTime < 0 {
		return
	}
	n, err := strconv.ParseUint(id, 16, 32)
	if err != nil {
		return
	}
	prefix, addr := uint32(n), s.remote.Addr()
	srv := s.srv
	fresh := s.prefix
	p, gone := srv.reclaim(s, prefix, addr, agent)
	if gone != nil {
		s.mayBlock()
		timer := time.NewTimer(resumeWait)
		defer timer.Stop()
		select {
		case <-gone:
			p, _ = srv.reclaim(s, prefix, addr, agent)
		case <-timer.C:
		}
	}
	if p == nil {
		return
	}
	// The prefix it had so far was never told to anybody.
	srv.prefixes.Release(fresh, time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.validator, s.sent, s.last, s.refreshed = p.validator, p.sent, p.last, p.refreshed
	s.resumeFrom, s.resumeWish = &p.state, p.wish
	srv.counters.resumed.Add(1)
}

// reclaim takes a parked session out of the lot for sess. When it is not parked but open, and could be the same miner's,
// gone is closed once it has ended.
func (s *Server) reclaim(sess *Session, prefix uint32, addr netip.Addr, agent string) (p *parkedSession, gone <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.sessions[prefix]; old != nil && old != sess {
		if old.Remote().Addr() != addr || old.Agent() != agent {
			return nil, nil
		}
		if old.gone == nil {
			old.gone = make(chan struct{})
		}
		return nil, old.gone
	}
	p = s.lot.byPrefix[prefix]
	if p == nil || p.addr != addr || p.agent != agent {
		return nil, nil
	}
	s.lot.take(p)
	delete(s.sessions, sess.prefix)
	s.sessions[p.prefix] = sess
	sess.mu.Lock()
	sess.prefix, sess.moved = p.prefix, p.moved
	sess.mu.Unlock()
	return p, nil
}

// rename gives a session another prefix and tells the miner so. It fails when the session has ended.
func (s *Server) rename(sess *Session, prefix uint32) error {
	en1 := extranonce1(prefix)
	line := sv1.AppendSetExtranonce(nil, en1[:], s.opts.Extranonce2Size)
	s.mu.Lock()
	defer s.mu.Unlock()
	sess.mu.Lock()
	defer sess.mu.Unlock()
	if s.sessions[sess.prefix] != sess {
		return net.ErrClosed
	}
	delete(s.sessions, sess.prefix)
	s.sessions[prefix] = sess
	sess.moved = append(sess.moved, sess.prefix)
	sess.prefix = prefix
	// Under the lock, so that no job is sent with the new prefix before the miner has heard of it. A failure shows at
	// the next write.
	_ = sess.out.push(line)
	return nil
}
