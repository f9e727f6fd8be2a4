package main

import (
	"context"
	"time"

	"github.com/poolkit/poolkit/stratum"
)

// reportEvery is how often an operator who watches the log is told that all is well.
const reportEvery = 10 * time.Second

// report writes a line now and then for as long as ctx lasts.
func (p *pool) report(ctx context.Context) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			server, totals := p.server.Stats(), p.totals.Snapshot(now)
			accepted, refused := int64(0), int64(0)
			for v, n := range server.Verdicts {
				if v.Accepted() {
					accepted += n
				} else {
					refused += n
				}
			}
			p.log.Info("status", "miners", server.States[stratum.Authorized], "accepted", accepted, "refused", refused,
				"hashrate", totals.Hashrate.String(), "blocks", totals.BlocksFound,
				"statistics", "http://"+p.web.Addr().String()+"/")
		}
	}
}
