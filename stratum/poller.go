package stratum

import (
	"context"
	"sync"
)

// A lazyPoller is a server's poller, which starts with the first session that it is for: a server that has only
// connections in memory, as in tests, waits for no descriptor.
type lazyPoller struct {
	work   func(*Session)
	start  sync.Once
	poller *poller // nil when there is none
}

// add gives a session to the poller. It returns false for one that needs a goroutine of its own.
func (l *lazyPoller) add(ctx context.Context, s *Session) bool {
	if !canPoll || s.out.raw == nil {
		return false
	}
	l.start.Do(func() {
		if p, err := newPoller(l.work); err == nil {
			l.poller = p
			p.start()
		} // otherwise descriptors are short; the session can still be served
	})
	if l.poller == nil {
		return false
	}
	if s.stage == stageSniff { // otherwise the address is not known yet
		if err := s.meet(); err != nil {
			s.end(ctx, err)
			return true
		}
	}
	return l.poller.add(s)
}

// stop ends the poller. All its sessions have ended.
func (l *lazyPoller) stop() {
	l.start.Do(func() {})
	if l.poller != nil {
		l.poller.close()
	}
}
