package stratum

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// A poller waits for the sockets of all sessions with one goroutine, the leader, and works for those that have something
// to say. A goroutine for each socket would cost more memory than all the rest of a session: 2 KB of stack at least, and
// 8 once it has hashed something; and the net package's read deadlines a timer each.
//
// The leader works itself, on the thread that the kernel woke: to wake another one takes longer than to judge a share.
// When many sessions have something at once, helpers take from the same batch, so that all processors are used. Work
// that may take long is preceded by a call of Session.mayBlock, which has another goroutine lead, or help, instead.
//
// The epoll descriptor is waited for by the runtime, like any other file. A blocking epoll_wait of our own would be a
// thread that the runtime's monitor takes the processor from 50,000 times a second, and whose return needs a free one:
// measured with 1,000 miners of 5 shares a second, that doubled what an otherwise empty loop costs.
type poller struct {
	work   func(*Session) // for a session that was claimed
	epoll  *os.File
	raw    syscall.RawConn // of epoll
	fd     int             // of epoll, for as long as there are sessions
	shared chan *batch     // to the helpers

	// For the leader.
	poll   func(fd uintptr) bool // asks for next
	next   *batch
	rested bool
	yield  time.Time // when the leader last had nothing to do, or let others go first

	mu       sync.Mutex
	sessions []*Session // by descriptor

	batches sync.Pool
	ended   sync.WaitGroup // leaders and helpers
}

const canPoll = true

const (
	// epollET is syscall.EPOLLET, which is declared negative.
	epollET = 1 << 31
	// worthHelp is how many sessions a helper is called for. To wake one costs as much as two or three shares.
	worthHelp = 8
	// leaderTurn is how long the leader works before those who push jobs go first.
	leaderTurn = 2 * time.Millisecond
)

// A batch is sessions that have something at the same time.
type batch struct {
	events   [128]syscall.EpollEvent
	sessions []*Session
	next     atomic.Int32 // of sessions, to be worked for
	users    atomic.Int32
}

// take claims the next session that nobody works for yet, nil when none is left.
func (b *batch) take() *Session {
	for {
		i := int(b.next.Add(1)) - 1
		if i >= len(b.sessions) {
			return nil
		}
		if s := b.sessions[i]; s.polled.claim() {
			return s
		}
	}
}

func (p *poller) release(b *batch) {
	if b.users.Add(-1) == 0 {
		clear(b.sessions)
		b.sessions = b.sessions[:0]
		b.next.Store(0)
		p.batches.Put(b)
	}
}

func newPoller(work func(*Session)) (*poller, error) {
	p := &poller{work: work, shared: make(chan *batch, runtime.GOMAXPROCS(0)-1)}
	p.batches.New = func() any { return &batch{sessions: make([]*Session, 0, len(batch{}.events))} }
	p.poll = func(fd uintptr) bool {
		p.next = p.ask(fd)
		p.rested = p.rested || p.next == nil
		return p.next != nil
	}
	var err error
	if p.fd, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("stratum: make a poller: %w", os.NewSyscallError("epoll_create1", err))
	}
	if err = syscall.SetNonblock(p.fd, true); err != nil {
		syscall.Close(p.fd)
		return nil, fmt.Errorf("stratum: make a poller: %w", os.NewSyscallError("fcntl", err))
	}
	p.epoll = os.NewFile(uintptr(p.fd), "epoll")
	if err = p.epoll.SetReadDeadline(time.Time{}); err == nil { // which fails for a file that cannot be waited for
		p.raw, err = p.epoll.SyscallConn()
	}
	if err != nil {
		p.epoll.Close()
		return nil, fmt.Errorf("stratum: make a poller: %w", err)
	}
	return p, nil
}

// start begins to wait.
func (p *poller) start() {
	p.spawn(&pollWorker{p: p, leads: true})
	for range cap(p.shared) {
		p.spawn(&pollWorker{p: p})
	}
}

func (p *poller) spawn(w *pollWorker) { p.ended.Go(w.run) }

// ask returns sessions that have something now, nil when none has. A session is told of once, whoever asks.
func (p *poller) ask(fd uintptr) *batch {
	b := p.batches.Get().(*batch)
	b.users.Store(1)
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&b.events)),
		uintptr(len(b.events)), 0, 0, 0)
	if errno != 0 { // a signal; what the call is given cannot be wrong
		n = 0
	}
	p.mu.Lock()
	for i := range b.events[:n] {
		e := &b.events[i]
		if int(e.Fd) >= len(p.sessions) || p.sessions[e.Fd] == nil {
			continue // closed meanwhile
		}
		s := p.sessions[e.Fd]
		if e.Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
			s.polled.hungUp.Store(true)
		}
		b.sessions = append(b.sessions, s)
	}
	p.mu.Unlock()
	if len(b.sessions) == 0 {
		p.release(b)
		return nil
	}
	return b
}

// wait returns sessions that have something, nil when the poller is closed. It is for the leader.
func (p *poller) wait() *batch {
	if p.raw.Read(p.poll) != nil {
		return nil
	}
	if now := time.Now(); p.rested {
		p.rested, p.yield = false, now
	} else if now.Sub(p.yield) > leaderTurn {
		p.yield = now
		runtime.Gosched()
	}
	p.share(p.next)
	return p.next
}

// glance is called now and then by those who keep all processors busy, when the runtime looks after sockets every 10 ms
// only. Sessions that have something go first.
func (p *poller) glance() {
	found := false
	_ = p.raw.Control(func(fd uintptr) { // which fails once the poller is closed, and makes close wait until then
		if b := p.ask(fd); b != nil {
			p.spawn(&pollWorker{p: p, batch: b, once: true})
			found = true
		}
	})
	if found {
		runtime.Gosched()
	}
}

// share calls helpers to a batch that has work for them. Those that are busy come when they have time.
func (p *poller) share(b *batch) {
	for range min(len(b.sessions)/worthHelp, cap(p.shared)) {
		b.users.Add(1)
		select {
		case p.shared <- b:
		default:
			b.users.Add(-1) // the leader has it, so this is not the last
			return
		}
	}
}

// A pollWorker is a goroutine that works for the sessions of one batch after the other.
type pollWorker struct {
	p     *poller
	leads bool   // it gets the batches itself; a helper gets those of the leader
	once  bool   // it works for one batch only
	batch *batch // nil before the first
	lost  bool   // another goroutine goes on in its place
}

func (w *pollWorker) run() {
	for {
		if w.batch != nil {
			for s := w.batch.take(); s != nil; s = w.batch.take() {
				s.polled.worker = w
				w.p.work(s)
				if w.lost {
					return
				}
			}
			w.p.release(w.batch)
		}
		if w.once {
			return
		}
		if !w.leads {
			w.batch = <-w.p.shared
		} else if w.batch = w.p.wait(); w.batch == nil {
			close(w.p.shared)
		}
		if w.batch == nil {
			return
		}
	}
}

// handOver has another goroutine go on with what the worker has not begun.
func (w *pollWorker) handOver() {
	w.lost = true
	w.p.spawn(&pollWorker{p: w.p, leads: w.leads, batch: w.batch, once: w.once})
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
		if ok = syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, int(fd), &event) == nil; !ok {
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
		_ = syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_DEL, fd, &syscall.EpollEvent{}) // closing it does the same
	}
}

// close ends the leader and the helpers. All sessions have ended.
func (p *poller) close() {
	p.epoll.Close()
	p.ended.Wait()
}
