//go:build unix

package handover

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// duplicate returns another descriptor of the same open socket. It stays non-blocking, which is a property of the
// socket and not of the descriptor.
func duplicate(fd uintptr, name string) (*os.File, error) {
	syscall.ForkLock.RLock()
	n, err := syscall.Dup(int(fd))
	if err == nil {
		syscall.CloseOnExec(n)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return os.NewFile(uintptr(n), name), nil
}

// openInherited takes a descriptor that this process was started with.
func openInherited(fd uintptr) (*os.File, error) {
	syscall.CloseOnExec(int(fd))
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		return nil, os.NewSyscallError("setnonblock", err)
	}
	return os.NewFile(fd, fmt.Sprintf("inherited-%d", fd)), nil
}

// openPipe takes the end of a pipe that this process was started with.
func openPipe(fd uintptr) (*os.File, error) {
	// Looked at before it is touched: the variable may have come to a process that it was not meant for.
	var st syscall.Stat_t
	if err := syscall.Fstat(int(fd), &st); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, os.NewSyscallError("fstat", err))
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return nil, fmt.Errorf("descriptor %d is no pipe: %s was meant for another process", fd, envName)
	}
	return openInherited(fd)
}

// isBrokenPipe reports whether nobody is left to read what was written.
func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
