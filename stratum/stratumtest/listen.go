package stratumtest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// A Listener is a network of its own in memory: what one side dials the other accepts, as a net.Pipe. Nothing is
// buffered, so a peer that does not read stops the other's writes at once, and every wait is one that a
// testing/synctest bubble sees through. Its methods may be called from any goroutine.
type Listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	dialed atomic.Uint32
}

var _ net.Listener = (*Listener)(nil)

// Listen returns a Listener. Inside a synctest bubble, call it there.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept returns the server's end of the next connection that is dialed. After Close it fails with net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
	default:
		select {
		case c := <-l.conns:
			return c, nil
		case <-l.closed:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close ends all waiting and later calls of Accept and Dial. Connections stay open.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr returns 127.0.0.1:3333, where nothing listens because of it.
func (l *Listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 3333} }

// Dial waits until the connection is accepted and returns the client's end. To the server each seems to come from a
// port of its own of 127.0.0.1.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	port := 49152 + int(l.dialed.Add(1)-1)%(65536-49152)
	return l.DialFrom(ctx, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
}

// DialFrom is Dial with the address that the server sees.
func (l *Listener) DialFrom(ctx context.Context, remote net.Addr) (net.Conn, error) {
	client, server := net.Pipe()
	err := context.Cause(ctx)
	if err == nil {
		select {
		case <-l.closed:
			err = net.ErrClosed
		default:
			select {
			case l.conns <- &pipeConn{server, l.Addr(), remote}:
				return &pipeConn{client, remote, l.Addr()}, nil
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-l.closed:
				err = net.ErrClosed
			}
		}
	}
	client.Close()
	server.Close()
	return nil, fmt.Errorf("stratumtest: dial: %w", err)
}

type pipeConn struct {
	net.Conn
	local, remote net.Addr
}

func (c *pipeConn) LocalAddr() net.Addr  { return c.local }
func (c *pipeConn) RemoteAddr() net.Addr { return c.remote }
