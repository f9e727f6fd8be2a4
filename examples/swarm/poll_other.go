//go:build !linux

package main

import (
	"errors"
	"net/netip"
	"time"
)

// A poller does not exist here: every connection has goroutines of its own.
type poller struct{}

func newPoller() (*poller, error) { return nil, nil }

// reserve has nothing to do where lanes sleep as goroutines do.
func reserve(int) (release func()) { return func() {} }

var errNoPoller = errors.New("no poller on this system")

func (*poller) close()                                          {}
func (*poller) connect(*conn, netip.Addr, netip.AddrPort) error { return errNoPoller }
func (*poller) forget(*conn, bool)                              {}
func (*poller) waitWrite(*conn, bool) error                     { return errNoPoller }
func (*poller) write(int, []byte) (int, error)                  { return 0, errNoPoller }
func (*poller) wait(_ *lane, d time.Duration)                   { time.Sleep(d) }
