package stratum

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// A logLimit keeps strangers from filling the log: of lines of one kind it lets one through a second, with how many
// there were before.
type logLimit struct {
	last   atomic.Int64 // Server.clock
	hidden atomic.Int64
}

func (s *Server) warn(l *logLimit, msg string, args ...any) {
	now := s.clock(time.Now())
	if last := l.last.Load(); last != 0 && now-last < int64(time.Second) || !l.last.CompareAndSwap(last, max(now, 1)) {
		l.hidden.Add(1)
		return
	}
	if n := l.hidden.Swap(0); n > 0 {
		args = append(args, slog.Int64("others_since_last", n))
	}
	s.opts.Logger.Warn(msg, args...)
}
