package stratum

import (
	"crypto/tls"
	"errors"
	"math"
	"net"
	"sync"
	"syscall"
	"time"
)

// errSlowReader ends a session whose miner takes nothing while the queue for it is full.
var errSlowReader = errors.New("the miner does not read")

// An outbox writes to one connection, for the session's goroutine and for whoever pushes jobs. At most one goroutine
// writes at a time, so lines never mix; while nothing waits it holds no buffer and no goroutine.
type outbox struct {
	sess   *Session
	conn   net.Conn        // for deadlines
	stream net.Conn        // for data: conn, or TLS on top of it
	raw    syscall.RawConn // of conn, where data goes straight to it; nil with TLS, and where there is no descriptor

	deadline int64 // Server.clock of the write deadline's setting; belongs to whoever writes

	mu      sync.Mutex
	waiting []byte        // complete lines, in order
	writing bool          // somebody writes, and will take what waits
	taken   int           // bytes that somebody is writing, which wait too until they are written
	rested  chan struct{} // closed when nobody writes any more; nil when nobody waits for that
	err     error         // the first failure; nothing is written after it
}

func (o *outbox) init(sess *Session, conn net.Conn) {
	o.sess, o.conn, o.stream = sess, conn, conn
	o.deadline = math.MinInt64
	if sc, ok := conn.(syscall.Conn); ok && canUseSockets {
		o.raw, _ = sc.SyscallConn()
	}
}

// ops are for writes; a scratch has one of its own.
var ops = sync.Pool{New: func() any { return newSocketOp() }}

// secure puts TLS between the session and the connection. Nothing has been written yet.
func (o *outbox) secure(stream *tls.Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stream, o.raw = stream, nil
}

// push writes lines without ever blocking: what the connection does not take at once is left to a goroutine that ends
// when all is written. A connection that fails, or for which more than the limit waits, is closed.
func (o *outbox) push(lines []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if o.writing {
		return o.enqueue(lines)
	}
	rest := lines
	if o.raw != nil {
		// Non-blocking, so the lock is held no longer than a copy into the socket takes.
		op := ops.Get().(*socketOp)
		n, err := op.writeTo(o.raw, lines)
		ops.Put(op)
		if err != nil {
			return o.fail(err)
		}
		rest = lines[n:]
	}
	if len(rest) == 0 {
		return nil
	}
	if err := o.enqueue(rest); err != nil {
		return err
	}
	o.writing = true
	go o.drain()
	return nil
}

// write writes lines and waits until the connection has taken them. It is for the session's own goroutine: a miner
// that does not read its replies is not read from either.
func (o *outbox) write(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	o.mu.Lock()
	for o.err == nil && o.writing { // a push that the miner has not taken yet goes first
		o.mu.Unlock()
		o.sess.mayBlock()
		o.flush()
		o.mu.Lock()
	}
	if o.err != nil {
		defer o.mu.Unlock()
		return o.err
	}
	o.writing, o.taken = true, len(lines)
	raw := o.raw
	o.mu.Unlock()

	var n int
	var err error
	if raw != nil {
		op := ops.Get().(*socketOp)
		n, err = op.writeTo(raw, lines)
		ops.Put(op)
	}
	if n < len(lines) && err == nil {
		o.sess.mayBlock()
		err = o.block(lines[n:])
	}
	o.mu.Lock()
	o.taken = 0
	if err != nil {
		err = o.fail(err)
		o.rest()
		o.mu.Unlock()
		return err
	}
	o.mu.Unlock()
	return o.drain()
}

func (o *outbox) enqueue(lines []byte) error {
	if o.taken+len(o.waiting)+len(lines) > o.sess.srv.opts.MaxQueue {
		return o.fail(errSlowReader)
	}
	o.waiting = append(o.waiting, lines...)
	return nil
}

// drain writes what waits until nothing does. The caller has set writing.
func (o *outbox) drain() error {
	for {
		o.mu.Lock()
		o.taken = 0
		if o.err != nil || len(o.waiting) == 0 {
			o.rest()
			err := o.err
			o.mu.Unlock()
			return err
		}
		lines := o.waiting
		o.waiting, o.taken = nil, len(lines)
		o.mu.Unlock()
		if err := o.block(lines); err != nil {
			o.mu.Lock()
			err = o.fail(err)
			o.rest()
			o.mu.Unlock()
			return err
		}
	}
}

// rest says that nobody writes any more. The lock is held.
func (o *outbox) rest() {
	o.writing = false
	if o.rested != nil {
		close(o.rested)
		o.rested = nil
	}
}

// flush waits until what was left to another goroutine is written, or has failed. It is for the session's own goroutine
// and for an end of the connection that the miner is to be told of.
func (o *outbox) flush() {
	o.mu.Lock()
	if o.err != nil || !o.writing {
		o.mu.Unlock()
		return
	}
	rested := make(chan struct{})
	o.rested = rested
	o.mu.Unlock()
	<-rested
}

func (o *outbox) block(lines []byte) error {
	// Setting a deadline costs as much as a short write, so one that has most of its time left is kept.
	timeout := o.sess.srv.opts.WriteTimeout
	if now := o.sess.srv.clock(time.Now()); timeout > 0 && (o.deadline == math.MinInt64 || now-o.deadline > int64(timeout/8)) {
		if err := o.conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		o.deadline = now
	}
	_, err := o.stream.Write(lines)
	return err
}

// abort ends the connection for a reason of ours.
func (o *outbox) abort(reason error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.fail(reason)
}

// fail ends the connection, which wakes the session's goroutine. The lock is held.
func (o *outbox) fail(err error) error {
	if o.err == nil {
		o.err = err
		o.waiting = nil
		o.conn.Close()
		o.sess.kick() // the poller does not see that it was closed
	}
	return o.err
}

// close ends the connection. An abrupt end tells a peer that is perhaps there but not listening at once: the kernel
// drops what it could not deliver and sends a reset, where it would otherwise try for minutes.
func (o *outbox) close(abrupt bool) {
	o.mu.Lock()
	if o.err == nil {
		o.err = net.ErrClosed
	}
	stream := o.stream
	o.mu.Unlock()
	if tcp, ok := o.conn.(*net.TCPConn); ok && abrupt {
		tcp.SetLinger(0)
	} else if stream != o.conn {
		stream.Close() // says goodbye within five seconds
	}
	o.conn.Close()
}

// failure returns why writing ended, nil when it has not.
func (o *outbox) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
