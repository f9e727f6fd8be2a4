//go:build unix

package stratum

import (
	"os"
	"syscall"
)

const (
	canTryWrite = true
	canWaitRead = true
)

// tryWrite writes as much of b as the socket takes without waiting.
func tryWrite(raw syscall.RawConn, b []byte) (n int, err error) {
	ctl := raw.Write(func(fd uintptr) bool {
		for n < len(b) {
			m, e := syscall.Write(int(fd), b[n:])
			switch {
			case e == syscall.EINTR:
			case e == syscall.EAGAIN:
				return true // the poller is not to wait
			case e != nil:
				err = os.NewSyscallError("write", e)
				return true
			default:
				n += m
			}
		}
		return true
	})
	if err == nil {
		err = ctl
	}
	return n, err
}

// readSocket reads what a socket has; again reports that it has nothing. A socket at its end gives 0 and no error.
func readSocket(fd uintptr, b []byte) (n int, again bool, err error) {
	for {
		n, e := syscall.Read(int(fd), b)
		switch {
		case e == syscall.EINTR:
		case e == syscall.EAGAIN:
			return 0, true, nil
		case e != nil:
			return 0, false, os.NewSyscallError("read", e)
		default:
			return n, false, nil
		}
	}
}
