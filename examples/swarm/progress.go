package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// A progress writes a line every few seconds.
type progress struct {
	load atomic.Bool
	stop func()
}

// newProgress begins to write about a run, unless the settings say not to.
func newProgress(s *swarm, out io.Writer) *progress {
	p := &progress{stop: func() {}}
	if s.cfg.every == 0 {
		return p
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(s.cfg.every)
		defer tick.Stop()
		last, lastSubmits := time.Now(), uint64(0)
		for {
			select {
			case <-quit:
				return
			case now := <-tick.C:
				t, c := s.tally(), s.counts()
				line := fmt.Sprintf("%4.0fs  %s connected", time.Since(s.start).Seconds(), num(t.live))
				if t.joining > 0 {
					line += fmt.Sprintf(", %s joining", num(t.joining))
				}
				if n := c.failures.total(); n > 0 {
					line += fmt.Sprintf(", %s failed", num(n))
				}
				if p.load.Load() && c.submits > 0 {
					rate := float64(c.submits-lastSubmits) / now.Sub(last).Seconds()
					line += fmt.Sprintf("  %s submits/s  p99 %s  %s accepted, %s rejected, %s open", num(int64(rate)),
						short(c.latency.quantile(0.99)), num(c.accepted), num(c.rejected()), num(t.open))
				}
				last, lastSubmits = now, c.submits
				fmt.Fprintln(out, line)
			}
		}
	})
	p.stop = sync.OnceFunc(func() { close(quit); wg.Wait() })
	return p
}

// loading says that submits go out from now on.
func (p *progress) loading() { p.load.Store(true) }
