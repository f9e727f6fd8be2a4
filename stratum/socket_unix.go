//go:build unix

package stratum

import (
	"os"
	"syscall"
)

// A socketOp reads from or writes to a socket without ever waiting. It is reused, because the function that the net
// package calls with the descriptor would otherwise be garbage each time.
type socketOp struct {
	b     []byte
	n     int
	again bool
	err   error
	read  func(fd uintptr)
	write func(fd uintptr)
}

func newSocketOp() *socketOp {
	op := new(socketOp)
	op.read = func(fd uintptr) {
		for {
			n, err := readNow(int(fd), op.b)
			switch {
			case err == syscall.EINTR:
				continue
			case err == syscall.EAGAIN:
				op.again = true
			case err != nil:
				op.err = os.NewSyscallError("read", err)
			default:
				op.n = n
			}
			return
		}
	}
	op.write = func(fd uintptr) {
		for op.n < len(op.b) {
			n, err := writeNow(int(fd), op.b[op.n:])
			switch {
			case err == syscall.EINTR:
			case err == syscall.EAGAIN:
				op.again = true
				return
			case err != nil:
				op.err = os.NewSyscallError("write", err)
				return
			default:
				op.n += n
			}
		}
	}
	return op
}

// readFrom reads what the socket has; again reports that it has nothing. A socket at its end gives 0 and no error.
func (op *socketOp) readFrom(raw syscall.RawConn, b []byte) (n int, again bool, err error) {
	op.b, op.n, op.again, op.err = b, 0, false, nil
	err = raw.Control(op.read)
	op.b = nil
	if op.err != nil {
		err = op.err
	}
	return op.n, op.again, err
}

// writeTo writes as much as the socket takes. It goes through Control: Write would fail once the deadline of the last
// blocking write has passed.
func (op *socketOp) writeTo(raw syscall.RawConn, b []byte) (n int, err error) {
	op.b, op.n, op.again, op.err = b, 0, false, nil
	err = raw.Control(op.write)
	op.b = nil
	if op.err != nil {
		err = op.err
	}
	return op.n, err
}

const canUseSockets = true

// maxDescriptors returns how many file descriptors the process may have, 0 when nobody can tell.
func maxDescriptors() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || uint64(limit.Cur) > 1<<30 {
		return 0
	}
	return int(limit.Cur)
}
