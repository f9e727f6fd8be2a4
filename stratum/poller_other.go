//go:build !linux

package stratum

import "errors"

// Elsewhere every session has a goroutine of its own, which reads from the net.Conn.
type poller struct{}

type pollLoop struct{}

const canPoll = false

func newPoller(func(*Session)) (*poller, error) { return nil, errors.ErrUnsupported }

func (*poller) start()            {}
func (*poller) add(*Session) bool { return false }
func (*poller) remove(*Session)   {}
func (*poller) dispatch(*Session) {}

func (*poller) handOver(*pollLoop) {}
func (*poller) close()             {}
