//go:build !unix

package main

import "syscall"

// There is no signal to upgrade by, nor can sockets be passed on.
const (
	reloadSignal  = syscall.SIGHUP
	upgradeSignal = syscall.Signal(-1)
)
