package stratum

import (
	"syscall"
	"unsafe"
)

// readNow and writeNow call the kernel without telling the runtime, which is for calls that cannot wait: the sockets of
// the net package never block. What such a call is otherwise accompanied by costs more than the entry into the kernel,
// because a write takes a dozen microseconds (the kernel delivers on the same thread), and after that long the runtime's
// monitor gives the processor to another thread. With 1,000 miners of 5 shares a second it was a third of all.

func readNow(fd int, b []byte) (int, error) { return callNow(syscall.SYS_READ, fd, b) }

func writeNow(fd int, b []byte) (int, error) { return callNow(syscall.SYS_WRITE, fd, b) }

func callNow(number uintptr, fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(number, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
