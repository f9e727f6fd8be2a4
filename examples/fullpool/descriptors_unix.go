//go:build unix

package main

import (
	"math"
	"syscall"
)

// descriptorLimit returns how many descriptors this process may have open, 0 when that is not known. The limit of the
// system is not looked at.
func descriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}
