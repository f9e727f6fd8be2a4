package stratum

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// A poller waits for the sockets of many sessions with one goroutine, and works for those that have something to say. A
// goroutine for each socket would cost more memory than all the rest of a session: 2 KB of stack at least, and 8 once it
// has hashed something; and the net package's read deadlines a timer each.
//
// The poller works itself, on the thread that the kernel woke: to wake another one takes longer than to judge a share.
// Work that may take long is preceded by a call of Session.mayBlock, which has another goroutine go on polling.
type poller struct {
	work  func(*Session) // for a session that was claimed
	epoll int
	wake  [2]int // a pipe, to end the waiting

	mu       sync.Mutex
	sessions []*Session // by descriptor

	workMu  sync.Mutex
	idle    []chan *Session // workers without work, the latest last: its stack is warm
	stopped bool
	ended   sync.WaitGroup // the goroutines that have polled
}

// A pollLoop is what the goroutine that polls at present works with.
type pollLoop struct {
	rest []*Session // that have something too, besides the one that is worked for
	lost bool       // another goroutine polls now
}

const canPoll = true

// maxIdleWorkers bounds the workers of one poller that are kept for later.
const maxIdleWorkers = 64

// epollET is syscall.EPOLLET, which is declared negative.
const epollET = 1 << 31

func newPoller(work func(*Session)) (*poller, error) {
	p := &poller{work: work}
	var err error
	if p.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("stratum: make a poller: %w", os.NewSyscallError("epoll_create1", err))
	}
	if err = syscall.Pipe2(p.wake[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		syscall.Close(p.epoll)
		return nil, fmt.Errorf("stratum: make a poller: %w", os.NewSyscallError("pipe2", err))
	}
	// Never edge-triggered: once it is written to, nobody waits any more.
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(p.wake[0])}
	if err = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, p.wake[0], &event); err != nil {
		p.release()
		return nil, fmt.Errorf("stratum: make a poller: %w", os.NewSyscallError("epoll_ctl", err))
	}
	return p, nil
}

func (p *poller) release() {
	syscall.Close(p.epoll)
	syscall.Close(p.wake[0])
	syscall.Close(p.wake[1])
}

// start begins to wait.
func (p *poller) start() { p.ended.Go(p.run) }

// run waits and works until close, or until another goroutine has taken over.
func (p *poller) run() {
	var events [128]syscall.EpollEvent
	var ready [len(events)]*Session
	var loop pollLoop
	for {
		n, err := syscall.EpollWait(p.epoll, events[:], -1)
		if err != nil && err != syscall.EINTR {
			return
		}
		n = max(n, 0)
		found := ready[:0]
		p.mu.Lock()
		for i := range n {
			fd := int(events[i].Fd)
			if fd == p.wake[0] {
				p.mu.Unlock()
				return
			}
			if fd >= len(p.sessions) || p.sessions[fd] == nil {
				continue // closed meanwhile
			}
			s := p.sessions[fd]
			if events[i].Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
				s.polled.hungUp.Store(true)
			}
			found = append(found, s)
		}
		p.mu.Unlock()
		for i, s := range found {
			if !s.polled.claim() {
				continue
			}
			loop = pollLoop{rest: found[i+1:]}
			s.polled.loop = &loop
			p.work(s)
			if loop.lost {
				return
			}
		}
		clear(found)
		runtime.Gosched() // to those that push jobs
	}
}

// handOver has another goroutine poll instead of the one that works for s.
func (p *poller) handOver(loop *pollLoop) {
	loop.lost = true
	for _, s := range loop.rest {
		if s.polled.claim() {
			p.dispatch(s)
		}
	}
	loop.rest = nil
	p.start()
}

// add begins to wait for a session's socket. It returns false for a connection that cannot be waited for.
func (p *poller) add(s *Session) bool {
	ok := false
	err := s.out.raw.Control(func(fd uintptr) {
		s.polled.by, s.polled.fd = p, int32(fd)
		s.polled.state.Store(pollIdle)
		p.mu.Lock()
		for int(fd) >= len(p.sessions) {
			p.sessions = append(p.sessions, make([]*Session, max(64, int(fd)+1-len(p.sessions)))...)
		}
		p.sessions[fd] = s
		p.mu.Unlock()
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | epollET, Fd: int32(fd)}
		if ok = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, int(fd), &event) == nil; !ok {
			p.mu.Lock()
			p.sessions[fd] = nil
			p.mu.Unlock()
			s.polled.state.Store(pollOff)
		}
	})
	return ok && err == nil
}

// remove stops waiting for a session, which still has its socket.
func (p *poller) remove(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fd := int(s.polled.fd); fd < len(p.sessions) && p.sessions[fd] == s {
		p.sessions[fd] = nil
		_ = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_DEL, fd, &syscall.EpollEvent{}) // closing it does the same
	}
}

// dispatch has a session that was claimed worked for by another goroutine. It never blocks.
func (p *poller) dispatch(s *Session) {
	p.workMu.Lock()
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.workMu.Unlock()
		w <- s
		return
	}
	p.workMu.Unlock()
	go p.worker(s)
}

func (p *poller) worker(s *Session) {
	w := make(chan *Session, 1)
	for s != nil {
		s.polled.loop = nil
		p.work(s)
		p.workMu.Lock()
		if p.stopped || len(p.idle) >= maxIdleWorkers {
			p.workMu.Unlock()
			return
		}
		p.idle = append(p.idle, w)
		p.workMu.Unlock()
		s = <-w
	}
}

// close ends run and the workers that wait. All sessions have ended.
func (p *poller) close() {
	_, _ = syscall.Write(p.wake[1], []byte{0})
	p.ended.Wait()
	p.release()
	p.workMu.Lock()
	defer p.workMu.Unlock()
	p.stopped = true
	for _, w := range p.idle {
		w <- nil
	}
	p.idle = nil
}
