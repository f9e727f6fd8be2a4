package stratum

import (
	"context"
	"io"
	"sync/atomic"
)

// A polledSession is what a session holds for its poller.
type polledSession struct {
	by     *poller
	worker *pollWorker // who works for it, when that is one of the poller's
	fd     int32
	state  atomic.Uint32
	hungUp atomic.Bool // the peer sends no more than what is there
}

// Whether a session is worked for: never by two goroutines at a time.
const (
	pollOff     uint32 = iota // it has a goroutine of its own
	pollIdle                  // it waits
	pollRunning               // a worker has it
	pollAgain                 // and is to look again when it is done
)

// claim reports whether the caller is to have the session worked for; otherwise somebody does already.
func (p *polledSession) claim() bool {
	for {
		switch state := p.state.Load(); state {
		case pollIdle:
			if p.state.CompareAndSwap(pollIdle, pollRunning) {
				return true
			}
		case pollRunning:
			if p.state.CompareAndSwap(pollRunning, pollAgain) {
				return false
			}
		default:
			return false
		}
	}
}

// yield reports whether the worker is done with the session; otherwise it is to look again.
func (p *polledSession) yield() bool {
	if p.state.CompareAndSwap(pollRunning, pollIdle) {
		return true
	}
	p.state.Store(pollRunning)
	return false
}

// kick has the session looked at, for what its socket does not tell. It never blocks.
func (s *Session) kick() {
	if s.polled.claim() {
		s.polled.worker = nil
		go s.polled.by.work(s)
	}
}

// mayBlock is called before what may take long. A poller that works for the session has another goroutine poll.
func (s *Session) mayBlock() {
	if w := s.polled.worker; w != nil {
		s.polled.worker = nil
		w.handOver()
	}
}

// work is done for a session whose socket has something, by whoever has claimed it.
func (s *Session) work(ctx context.Context) {
	for {
		if err := s.turn(ctx); err != nil {
			s.end(ctx, err) // it stays claimed, so nobody works for it again
			return
		}
		if s.secured {
			// TLS cannot be read without waiting. It stays claimed, and has a goroutine from now on.
			s.polled.by.remove(s)
			s.polled.worker = nil
			go s.run(ctx)
			return
		}
		if s.polled.yield() {
			return
		}
	}
}

// turn reads and answers until there is nothing left to read.
func (s *Session) turn(ctx context.Context) error {
	for {
		if err := s.mayRead(); err != nil {
			return err
		}
		sc := s.take()
		space := sc.buf[len(s.partial):]
		n, again, err := sc.op.readFrom(s.out.raw, space)
		if n > 0 {
			err = s.process(ctx, len(s.partial)+n)
		}
		s.release()
		switch {
		case again:
			return nil
		case err != nil:
			return err
		case n == 0:
			return io.EOF
		}
		s.extendDeadline()
		if s.pause > 0 {
			s.rest(ctx)
		}
		// Less than there was room for is all there is: what comes later is another event. The end of the connection
		// that came together with it is none.
		if s.secured || n < len(space) && !s.polled.hungUp.Load() {
			return nil
		}
	}
}
