//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package dirlock

import (
	"errors"
	"fmt"
	"os"
)

// Lock refuses: without a lock that a dead process gives up, two processes could write one folder.
func Lock(string) (*os.File, error) {
	return nil, fmt.Errorf("locking a file: %w on this system", errors.ErrUnsupported)
}

// SyncDir does nothing.
func SyncDir(string) error { return nil }
