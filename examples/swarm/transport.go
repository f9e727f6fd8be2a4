package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// connect begins to connect, in the way that suits: over the lane's poller or, with TLS or where there is none, over
// a goroutine.
func (c *conn) connect() error {
	s := c.lane.swarm
	var source netip.Addr
	if len(s.cfg.sources) > 0 {
		source = s.cfg.sources[c.index%len(s.cfg.sources)]
	}
	if c.lane.poll != nil && s.cfg.tls == nil {
		return c.lane.poll.connect(c, source, s.addr)
	}
	c.stream = &stream{wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.timeout)
	c.stream.cancel = cancel
	st, gen := c.stream, c.gen
	s.streams.Go(func() { st.run(ctx, c, gen, source) })
	return nil
}

// closeSocket ends the connection at once: what was not sent yet is of no use to the pool. With reset nothing of it
// stays behind, where else a port would be taken for another minute and soon be missing in the next run.
func (c *conn) closeSocket(reset bool) {
	if c.stream != nil {
		c.stream.cancel()
		if c.stream.conn != nil {
			c.stream.conn.Close()
		}
		close(c.stream.wake)
		c.stream = nil
	}
	if c.fd >= 0 {
		c.lane.poll.forget(c, reset)
	}
}

var errUnsent = errors.New("the pool does not read")

// write sends b, which it does not keep, as far as the pool takes it, and the rest when it takes more.
func (c *conn) write(b []byte) error {
	if c.stream == nil && !c.blocked {
		n, err := c.lane.poll.write(c.fd, b)
		if err != nil {
			return err
		}
		if b = b[n:]; len(b) == 0 {
			return nil
		}
	}
	if len(c.unsent)+len(b) > maxUnsent {
		return errUnsent
	}
	c.unsent = append(c.unsent, b...)
	if c.stream != nil {
		select {
		case c.stream.wake <- struct{}{}:
		default: // it is awake
		}
		return nil
	}
	if c.blocked {
		return nil
	}
	c.blocked = true
	return c.lane.poll.waitWrite(c, true)
}

// A stream is a socket that goroutines read and write.
type stream struct {
	conn   net.Conn      // nil until it is open; the lane's lock guards it
	wake   chan struct{} // takes an element when there is something to write
	cancel context.CancelFunc
}

// streamBuffer is what a stream reads at once. Each connection has one, so it is small.
const streamBuffer = 2 << 10

// run connects and reads until the connection ends.
func (st *stream) run(ctx context.Context, c *conn, gen uint32, source netip.Addr) {
	l := c.lane
	conn, err := l.swarm.dial(ctx, source)
	st.cancel()
	l.mu.Lock()
	if c.gen != gen {
		l.mu.Unlock()
		if err == nil {
			conn.Close()
		}
		return
	}
	now := l.swarm.now()
	if err != nil {
		c.end(endFault, ioReason(err), now)
		l.mu.Unlock()
		return
	}
	st.conn = conn
	c.opened(now)
	l.mu.Unlock()
	l.swarm.streams.Go(func() { st.write(conn, c, gen) })

	buf := make([]byte, streamBuffer)
	for {
		n, err := conn.Read(buf)
		l.mu.Lock()
		if c.gen != gen {
			l.mu.Unlock()
			return
		}
		now := l.swarm.now()
		if n > 0 {
			c.receive(buf[:n], now)
		}
		if err != nil && c.gen == gen {
			c.end(endFault, ioReason(err), now)
		}
		ended := c.gen != gen
		l.mu.Unlock()
		if ended {
			return
		}
	}
}

// write writes what waits, until wake is closed.
func (st *stream) write(conn net.Conn, c *conn, gen uint32) {
	l := c.lane
	var b []byte
	for range st.wake {
		l.mu.Lock()
		if c.gen != gen {
			l.mu.Unlock()
			return
		}
		b, c.unsent = c.unsent, nil
		l.mu.Unlock()
		conn.SetWriteDeadline(time.Now().Add(l.swarm.cfg.timeout))
		if _, err := conn.Write(b); err != nil {
			l.mu.Lock()
			if c.gen == gen {
				c.end(endFault, ioReason(err), l.swarm.now())
			}
			l.mu.Unlock()
			return
		}
	}
}

// dial opens a connection to the pool, and the TLS session on it.
func (s *swarm) dial(ctx context.Context, source netip.Addr) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	if source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
	}
	conn, err := d.DialContext(ctx, "tcp", s.addr.String())
	if err != nil || s.cfg.tls == nil {
		return conn, err
	}
	session := tls.Client(conn, s.cfg.tls)
	if err := session.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return session, nil
}

// ioReason says in a few words why a connection failed, without addresses: the same reason is to be counted together.
func ioReason(err error) string {
	var certificate *tls.CertificateVerificationError
	var errno syscall.Errno
	switch {
	case errors.Is(err, io.EOF):
		return "closed by the pool"
	case errors.Is(err, errUnsent):
		return err.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset by the pool"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "no local port left: give more addresses with -source"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "no file descriptor left: raise the limit (ulimit -n)"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "no connection within the time allowed"
	case errors.As(err, &certificate):
		return "the certificate is not trusted: " + certificate.Err.Error()
	case errors.As(err, &errno):
		return errno.Error()
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}
