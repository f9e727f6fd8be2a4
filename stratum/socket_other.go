//go:build !unix

package stratum

import (
	"errors"
	"syscall"
)

// Elsewhere sessions read and write through net.Conn alone: a connection that waits holds its buffer, and jobs are
// pushed by a goroutine each.
const (
	canTryWrite = false
	canWaitRead = false
)

func tryWrite(syscall.RawConn, []byte) (int, error) { return 0, errors.ErrUnsupported }

func readSocket(uintptr, []byte) (int, bool, error) { return 0, false, errors.ErrUnsupported }
