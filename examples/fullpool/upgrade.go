package main

import (
	"context"
	"os"
	"time"

	"github.com/poolkit/poolkit/stratum/handover"
)

// obey does what signals ask for, until ctx ends or another process is ready to take over, which it returns.
func (p *pool) obey(ctx context.Context, signals <-chan os.Signal) *handover.Child {
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-signals:
			if s == reloadSignal {
				p.reload()
			} else if heir := p.upgrade(ctx); heir != nil {
				return heir
			}
		}
	}
}

// reload reads the certificate and opens the events file again. What cannot be replaced stays.
func (p *pool) reload() {
	if p.certificate != nil {
		if err := p.certificate.Reload(); err != nil {
			p.log.Error("the certificate stays the old one", "error", err)
		} else {
			p.log.Info("the certificate is read again", "expires", p.certificate.Leaf().NotAfter)
		}
	}
	if p.eventFile != nil {
		if err := p.eventFile.Reopen(); err != nil {
			p.log.Error("the events go on to the old file", "error", err)
		} else {
			p.log.Info("the events file is opened again", "file", p.cfg.Events)
		}
	}
}

// upgrade starts the program anew and waits until that process can take over. It returns nil when it cannot, and then
// nothing has changed.
func (p *pool) upgrade(ctx context.Context) *handover.Child {
	heir, err := handover.Start(ctx, p.sockets, nil)
	if err == nil {
		p.log.Info("another process is to take over", "pid", heir.Pid())
		err = heir.Ready(ctx)
	}
	if err != nil {
		p.log.Error("no other process takes over, this one goes on", "error", err)
		return nil
	}
	return heir
}

// drainTime is how long miners have to leave. Those who have left wait for the next process meanwhile, so it is short.
const drainTime = 3 * time.Second

// sendAway asks miners to connect again, and waits until they have left or the time is over.
func (p *pool) sendAway(ctx context.Context) {
	drain := time.Duration(p.cfg.Drain)
	if drain == 0 {
		drain = drainTime
	}
	ctx, cancel := context.WithTimeout(ctx, drain)
	defer cancel()
	p.log.Info("miners are asked to connect again", "within", drain)
	p.server.Shutdown(ctx)
}
