package stratum

import (
	"errors"
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
	conn    net.Conn
	raw     syscall.RawConn // nil where the connection has no descriptor: TLS, pipes
	timeout time.Duration   // of one blocking write, none when negative
	limit   int             // bytes that may wait

	deadline time.Time // when the write deadline was last set; belongs to whoever writes

	mu      sync.Mutex
	waiting []byte // complete lines, in order
	writing bool   // somebody writes, and will take what waits
	err     error  // the first failure; nothing is written after it
}

func (o *outbox) init(conn net.Conn, timeout time.Duration, limit int) {
	o.conn, o.timeout, o.limit = conn, timeout, limit
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil && canTryWrite {
			o.raw = raw
		}
	}
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
		n, err := tryWrite(o.raw, lines)
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
	if o.err != nil || o.writing {
		defer o.mu.Unlock()
		if o.err != nil {
			return o.err
		}
		return o.enqueue(lines)
	}
	o.writing = true
	o.mu.Unlock()

	err := o.block(lines)
	o.mu.Lock()
	if err != nil {
		err = o.fail(err)
		o.writing = false
		o.mu.Unlock()
		return err
	}
	o.mu.Unlock()
	return o.drain()
}

func (o *outbox) enqueue(lines []byte) error {
	if len(o.waiting)+len(lines) > o.limit {
		return o.fail(errSlowReader)
	}
	o.waiting = append(o.waiting, lines...)
	return nil
}

// drain writes what waits until nothing does. The caller has set writing.
func (o *outbox) drain() error {
	for {
		o.mu.Lock()
		if o.err != nil || len(o.waiting) == 0 {
			o.writing = false
			err := o.err
			o.mu.Unlock()
			return err
		}
		lines := o.waiting
		o.waiting = nil
		o.mu.Unlock()
		if err := o.block(lines); err != nil {
			o.mu.Lock()
			err = o.fail(err)
			o.writing = false
			o.mu.Unlock()
			return err
		}
	}
}

func (o *outbox) block(lines []byte) error {
	// Setting a deadline costs as much as a short write, so one that has most of its time left is kept.
	if now := time.Now(); o.timeout > 0 && now.Sub(o.deadline) > o.timeout/8 {
		if err := o.conn.SetWriteDeadline(now.Add(o.timeout)); err != nil {
			return err
		}
		o.deadline = now
	}
	_, err := o.conn.Write(lines)
	return err
}

// fail ends the connection, which wakes the session's goroutine. The lock is held.
func (o *outbox) fail(err error) error {
	if o.err == nil {
		o.err = err
		o.waiting = nil
		o.conn.Close()
	}
	return o.err
}

// failure returns why writing ended, nil when it has not.
func (o *outbox) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
