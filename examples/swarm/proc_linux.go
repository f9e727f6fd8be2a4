package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A usage is what processes have taken so far.
type usage struct {
	cpu time.Duration // of all threads, also those that ended
	rss int64         // resident memory in bytes, now
}

// ticks is what the kernel counts the times in /proc in: USER_HZ, which is 100 on every architecture.
const tick = 10 * time.Millisecond

// processes returns the usage of processes of this machine together.
func processes(pids []int) (usage, error) {
	var u usage
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return usage{}, fmt.Errorf("process %d: %w", pid, err)
		}
		// The second field is the name in parentheses and may hold anything, so the count begins after it.
		i := bytes.LastIndexByte(stat, ')')
		f := strings.Fields(string(stat[i+1:]))
		if i < 0 || len(f) < 22 {
			return usage{}, fmt.Errorf("process %d: /proc holds no statistics", pid)
		}
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		pages, _ := strconv.ParseInt(f[21], 10, 64)
		u.cpu += time.Duration(user+system) * tick
		u.rss += pages * int64(os.Getpagesize())
	}
	return u, nil
}

// ownUsage returns the usage of this process.
func ownUsage() usage {
	u, _ := processes([]int{os.Getpid()})
	return u
}
