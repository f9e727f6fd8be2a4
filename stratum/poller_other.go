//go:build !linux

package stratum

import "errors"

// Elsewhere every session has a goroutine of its own, which reads from the net.Conn.
type poller struct{ work func(*Session) }

type pollWorker struct{}

const canPoll = false

func newPoller(func(*Session)) (*poller, error) { return nil, errors.ErrUnsupported }

func (*poller) start()            {}
func (*poller) add(*Session) bool { return false }
func (*poller) remove(*Session)   {}
func (*poller) glance()           {}
func (*poller) close()            {}

func (*pollWorker) handOver() {}
