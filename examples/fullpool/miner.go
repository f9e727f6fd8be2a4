package main

import (
	"context"
	"net"
	"time"

	"github.com/poolkit/poolkit/stratum/stratumtest"
)

// mine connects the CPU miner to the pool's own port, like any other miner, and again when it is cut off.
func (p *pool) mine(ctx context.Context) error {
	for ctx.Err() == nil {
		m, err := stratumtest.Dial(ctx, localAddr(p.miners.Addr()), &stratumtest.MinerOptions{
			User:    "fullpool.cpu",
			Agent:   "fullpool/cpu",
			Threads: p.cfg.Mine,
			Hooks: stratumtest.Hooks{OnReply: func(s stratumtest.Share, r stratumtest.Reply) {
				p.log.Debug("share answered", "worker", "fullpool.cpu", "accepted", r.Err() == nil, "error", r.Err())
			}},
		})
		if err == nil {
			err = m.Run(ctx)
			m.Close()
		}
		if ctx.Err() != nil {
			break
		}
		p.log.Warn("the CPU miner was cut off, it connects again", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return nil
}

// localAddr returns an address of this machine for a listener that may listen on all of them.
func localAddr(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return a.String()
}
