//go:build unix

package main

import (
	"fmt"
	"syscall"
)

// spareDescriptors is what a swarm needs besides its connections.
const spareDescriptors = 64

// needDescriptors makes sure that n connections can be open, by raising the soft limit where the hard one allows.
func needDescriptors(n int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil // then the connections will tell
	}
	need := n + spareDescriptors
	if uint64(limit.Cur) >= uint64(need) {
		return nil
	}
	if uint64(limit.Max) >= uint64(need) {
		limit.Cur = limit.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%d connections need %d file descriptors and this process may have %d: "+
		"ask for fewer or raise the limit (ulimit -n)", n, need, limit.Max)
}
