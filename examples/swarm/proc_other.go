//go:build !linux

package main

import (
	"errors"
	"time"
)

// A usage is what processes have taken so far.
type usage struct {
	cpu time.Duration
	rss int64 // resident memory in bytes, now
}

func processes([]int) (usage, error) {
	return usage{}, errors.New("-pid needs Linux: CPU time and memory are read from /proc")
}

func ownUsage() usage { return usage{} }
