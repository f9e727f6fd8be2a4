package stratum

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// A poller waits for the sockets of many sessions with one goroutine, and hands those that have something to say to
// workers. A goroutine for each socket would cost more memory than all the rest of a session: 2 KB of stack at least,
// and 8 once it has hashed something; and the net package's read deadlines a timer each.
//
// Go's own poller waits for the poller's epoll descriptor like for any file, so no thread blocks for it.
type poller struct {
	work func(*Session) // for a session that was claimed
	file *os.File
	raw  syscall.RawConn

	mu       sync.Mutex
	sessions []*Session // by descriptor

	workMu  sync.Mutex
	idle    []chan *Session // workers without work, the latest last: its stack is warm
	stopped bool
}

const canPoll = true

// maxIdleWorkers bounds the workers of one poller that are kept for later.
const maxIdleWorkers = 64

// epollET is syscall.EPOLLET, which is declared negative.
const epollET = 1 << 31

func newPoller(work func(*Session)) (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("stratum: make a poller: %w", os.NewSyscallError("epoll_create1", err))
	}
	_ = syscall.SetNonblock(fd, true) // cannot fail on a descriptor that is open
	p := &poller{work: work, file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("stratum: make a poller: %w", err)
	}
	return p, nil
}

// run hands out work until close.
func (p *poller) run() {
	var events [128]syscall.EpollEvent
	var ready [len(events)]*Session
	n := 0
	wait := func(fd uintptr) bool {
		var err error
		n, err = syscall.EpollWait(int(fd), events[:], 0)
		return n > 0 || err != nil && err != syscall.EINTR
	}
	for p.raw.Read(wait) == nil {
		p.mu.Lock()
		for i := range max(n, 0) {
			ready[i] = nil
			if fd := int(events[i].Fd); fd < len(p.sessions) {
				ready[i] = p.sessions[fd]
			}
		}
		p.mu.Unlock()
		for i := range max(n, 0) {
			s := ready[i]
			if s == nil {
				continue // closed meanwhile
			}
			if events[i].Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
				s.polled.hungUp.Store(true)
			}
			if s.polled.claim() {
				p.dispatch(s)
			}
			ready[i] = nil
		}
	}
}

// add begins to wait for a session's socket. It returns false for a connection that cannot be waited for.
func (p *poller) add(s *Session) bool {
	if s.out.raw == nil {
		return false
	}
	ok := false
	err := s.out.raw.Control(func(fd uintptr) {
		p.mu.Lock()
		for int(fd) >= len(p.sessions) {
			p.sessions = append(p.sessions, make([]*Session, max(64, int(fd)+1-len(p.sessions)))...)
		}
		p.sessions[fd] = s
		p.mu.Unlock()
		s.polled.by, s.polled.fd = p, int32(fd)
		s.polled.state.Store(pollIdle)
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | epollET, Fd: int32(fd)}
		ok = p.control(syscall.EPOLL_CTL_ADD, int(fd), &event)
		if !ok {
			p.mu.Lock()
			p.sessions[fd] = nil
			p.mu.Unlock()
			s.polled.state.Store(pollOff)
		}
	})
	return ok && err == nil
}

// control calls epoll_ctl. File.Fd would make the descriptor a blocking one.
func (p *poller) control(op, fd int, event *syscall.EpollEvent) (ok bool) {
	err := p.raw.Control(func(ep uintptr) { ok = syscall.EpollCtl(int(ep), op, fd, event) == nil })
	return ok && err == nil
}

// remove stops waiting for a session, which still has its socket.
func (p *poller) remove(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fd := int(s.polled.fd); fd < len(p.sessions) && p.sessions[fd] == s {
		p.sessions[fd] = nil
		p.control(syscall.EPOLL_CTL_DEL, fd, &syscall.EpollEvent{})
	}
}

// dispatch lets a worker work for a session that was claimed. It never blocks.
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

// close ends run and the workers that wait.
func (p *poller) close() {
	p.file.Close()
	p.workMu.Lock()
	defer p.workMu.Unlock()
	p.stopped = true
	for _, w := range p.idle {
		w <- nil
	}
	p.idle = nil
}
