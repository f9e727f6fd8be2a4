package stratum

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// Pollers are as many as there are processors, each with its share of the sessions, so that no lock is one for all.
// They start with the first session: a server that has only connections in memory, as in tests, waits for no descriptor.
type pollers struct {
	work  func(*Session)
	start sync.Once
	all   []*poller
	next  atomic.Uint32
}

func (p *pollers) open() {
	for range runtime.GOMAXPROCS(0) {
		one, err := newPoller(p.work)
		if err != nil {
			return
		}
		p.all = append(p.all, one)
		one.start()
	}
}

// add gives a session to a poller. It returns false for one that needs a goroutine of its own.
func (p *pollers) add(ctx context.Context, s *Session) bool {
	if !canPoll || s.out.raw == nil {
		return false
	}
	p.start.Do(p.open)
	if len(p.all) == 0 {
		return false // descriptors are short; the session can still be served
	}
	if s.stage == stageSniff { // otherwise the address is not known yet
		if err := s.meet(); err != nil {
			s.end(ctx, err)
			return true
		}
	}
	return p.all[int(p.next.Add(1))%len(p.all)].add(s)
}

// stop ends the pollers. All their sessions have ended.
func (p *pollers) stop() {
	p.start.Do(func() {})
	for _, one := range p.all {
		one.close()
	}
}
