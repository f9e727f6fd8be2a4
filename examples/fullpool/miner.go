package main

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/poolkit/poolkit/stratum/stratumtest"
)

// mine connects the CPU miner to the pool's first port, like any other miner, and again when it is cut off.
func (p *pool) mine(ctx context.Context) error {
	dial := new(net.Dialer).DialContext
	if p.ports[0].RequireTLS {
		// Whom it talks to is known, whatever names the certificate is for.
		dial = (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext
	}
	for ctx.Err() == nil {
		conn, err := dial(ctx, "tcp", localAddr(p.ports[0].Addr()))
		if err == nil {
			err = p.mineOn(ctx, conn)
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

func (p *pool) mineOn(ctx context.Context, conn net.Conn) error {
	m := stratumtest.NewMiner(conn, &stratumtest.MinerOptions{
		User:    "fullpool.cpu",
		Agent:   "fullpool/cpu",
		Threads: p.cfg.Mine,
		Hooks: stratumtest.Hooks{OnReply: func(s stratumtest.Share, r stratumtest.Reply) {
			p.log.Debug("share answered", "worker", "fullpool.cpu", "accepted", r.Err() == nil, "error", r.Err())
		}},
	})
	defer m.Close()
	return m.Run(ctx)
}

// localAddr returns an address of this machine for a listener that may listen on all of them.
func localAddr(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return a.String()
}
