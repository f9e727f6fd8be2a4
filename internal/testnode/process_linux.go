package testnode

import (
	"os/exec"
	"syscall"
)

// bind makes the system end the process with the thread that starts it, so that a test binary that is killed leaves no
// node behind.
func bind(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
