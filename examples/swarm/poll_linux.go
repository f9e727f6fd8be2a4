package main

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// A poller watches the sockets of a lane with epoll. The runtime's own poller would need a goroutine for each of them,
// and try each read twice.
type poller struct {
	epoll  int
	events [512]syscall.EpollEvent
	byFD   []*conn
}

// newPoller returns a poller for this system.
func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", os.NewSyscallError("epoll_create1", err))
	}
	return &poller{epoll: fd}, nil
}

// close ends the poller, when no socket is left and nobody waits.
func (p *poller) close() { syscall.Close(p.epoll) }

// connect begins a connection.
func (p *poller) connect(c *conn, source netip.Addr, to netip.AddrPort) error {
	family := syscall.AF_INET
	if to.Addr().Is6() {
		family = syscall.AF_INET6
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, syscall.IPPROTO_TCP)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	// Each write is what a miner would send at once, and miners do not wait for more.
	err = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	if err == nil && source.IsValid() {
		// The port is chosen when the destination is known, or 28,000 would be all that an address has. Not every
		// kernel knows the option, and none needs it.
		const ipBindAddressNoPort = 24
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
		err = syscall.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0)))
	}
	if err == nil {
		err = syscall.Connect(fd, sockaddr(to))
	}
	if err == nil || err == syscall.EINPROGRESS || err == syscall.EINTR {
		// Writable means connected, or failed.
		err = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLOUT, Fd: int32(fd)})
	}
	if err != nil {
		syscall.Close(fd)
		return os.NewSyscallError("connect", err)
	}
	for len(p.byFD) <= fd {
		p.byFD = append(p.byFD, nil)
	}
	p.byFD[fd] = c
	c.fd = fd
	return nil
}

func sockaddr(a netip.AddrPort) syscall.Sockaddr {
	if a.Addr().Is4() {
		return &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// forget closes the socket of c.
func (p *poller) forget(c *conn, reset bool) {
	p.byFD[c.fd] = nil
	if reset {
		_ = syscall.SetsockoptLinger(c.fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	}
	syscall.Close(c.fd)
	c.fd = -1
}

// waitWrite has the poller tell when c can be written again, or no longer.
func (p *poller) waitWrite(c *conn, on bool) error {
	e := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(c.fd)}
	if on {
		e.Events |= syscall.EPOLLOUT
	}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_MOD, c.fd, &e))
}

// write writes as much as the socket takes.
func (p *poller) write(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		m, err := callNow(syscall.SYS_WRITE, fd, b[n:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return n, nil
		case err != nil:
			return n, os.NewSyscallError("write", err)
		default:
			n += m
		}
	}
	return n, nil
}

// epollWait waits without telling the scheduler. The scheduler would give the lane's processor away as soon as it noticed
// the wait, and take it back for the next event: with 5,000 single submits a second that was nearly half of all this
// program cost, 67 us a submit instead of 38. The lane has an extra processor to sleep on from reserve, and where the
// runtime needs the thread, as to collect garbage, its signal ends the wait.
func epollWait(epoll int, events []syscall.EpollEvent, millis int) (n int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(millis), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// callNow reads or writes without telling the scheduler either, for sockets that never block.
func callNow(number uintptr, fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(number, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

var reserving sync.Mutex

// reserve gives the runtime n more processors, which are the lanes' to sleep on, until release is called.
func reserve(n int) (release func()) {
	add := func(n int) {
		reserving.Lock()
		defer reserving.Unlock()
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
	}
	add(n)
	return func() { add(-n) }
}

// wait waits for events and has them handled.
func (p *poller) wait(l *lane, sleep time.Duration) {
	// Milliseconds are what epoll counts, so that a wait may be one too long: shares go out in small groups then, as
	// they reach pools anyway.
	n, errno := epollWait(p.epoll, p.events[:], int((sleep+time.Millisecond-1)/time.Millisecond))
	switch errno {
	case 0:
	case syscall.EINTR: // the runtime wants something of this thread
		return
	default:
		time.Sleep(time.Millisecond) // which no epoll that is open gives reason for
		return
	}
	if n == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping {
		return
	}
	for i := range p.events[:n] {
		e := &p.events[i]
		if int(e.Fd) >= len(p.byFD) {
			continue
		}
		if c := p.byFD[e.Fd]; c != nil {
			p.handle(c, e.Events)
		}
	}
}

func (p *poller) handle(c *conn, events uint32) {
	l := c.lane
	if c.phase == phaseConnecting {
		errno, err := syscall.GetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
		if err == nil && errno != 0 {
			err = syscall.Errno(errno)
		}
		if err == nil {
			err = p.waitWrite(c, false)
		}
		if err != nil {
			c.end(endFault, ioReason(err), l.swarm.now())
			return
		}
		c.opened(l.swarm.now())
		return
	}
	if events&syscall.EPOLLOUT != 0 && c.blocked {
		n, err := p.write(c.fd, c.unsent)
		c.unsent = c.unsent[n:]
		if err == nil && len(c.unsent) == 0 {
			c.unsent, c.blocked = nil, false
			err = p.waitWrite(c, false)
		}
		if err != nil {
			c.end(endFault, ioReason(err), l.swarm.now())
			return
		}
	}
	if events&^uint32(syscall.EPOLLOUT) == 0 {
		return
	}
	if l.buf == nil {
		l.buf = make([]byte, readSize)
	}
	n, err := callNow(syscall.SYS_READ, c.fd, l.buf)
	now := l.swarm.now()
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
	case err != nil:
		c.end(endFault, ioReason(err), now)
	case n == 0:
		c.end(endFault, "closed by the pool", now)
	default:
		c.receive(l.buf[:n], now)
	}
}
