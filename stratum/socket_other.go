//go:build !unix

package stratum

import (
	"errors"
	"syscall"
)

// Elsewhere jobs are pushed through net.Conn, by a goroutine for each session.
type socketOp struct{}

func newSocketOp() *socketOp { return new(socketOp) }

func (*socketOp) readFrom(syscall.RawConn, []byte) (int, bool, error) {
	return 0, false, errors.ErrUnsupported
}

func (*socketOp) writeTo(syscall.RawConn, []byte) (int, error) { return 0, errors.ErrUnsupported }

const canUseSockets = false

func maxDescriptors() int { return 0 }
