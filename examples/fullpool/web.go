package main

import (
	"context"
	"net/http"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/stats/httpstats"
	"github.com/poolkit/poolkit/stratum/promstratum"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// handler serves the statistics, and /metrics for Prometheus.
func (p *pool) handler() (http.Handler, error) {
	pages, err := p.statistics()
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		promstratum.New(p.server, &promstratum.Options{ServerID: uint8(p.cfg.ServerID)}),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/", pages)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux, nil
}

// statistics are the totals, and what the records of blocks add to them.
func (p *pool) statistics() (http.Handler, error) {
	return httpstats.NewHandler(p.totals, httpstats.BlockSourceFunc(p.foundBlocks), &httpstats.Options{
		Title:  "poolkit on " + p.cfg.Network,
		Nodes:  httpstats.NodeSourceFunc(p.nodeStates),
		Logger: p.log,
	})
}

var states = map[block.State]httpstats.State{
	block.Candidate: httpstats.Candidate,
	block.Immature:  httpstats.Immature,
	block.Matured:   httpstats.Matured,
	block.Orphaned:  httpstats.Matured,
}

func (p *pool) foundBlocks(ctx context.Context) ([]httpstats.Block, error) {
	found, err := p.found.Found(ctx, block.Query{})
	if err != nil {
		return nil, err
	}
	next := p.nextHeight()
	blocks := make([]httpstats.Block, len(found))
	for i, f := range found {
		blocks[i] = httpstats.Block{
			Height:     f.Height,
			Hash:       f.Hash,
			Time:       f.FoundAt,
			Difficulty: f.Difficulty,
			JobID:      f.JobID,
			Nonce:      f.Nonce,
			State:      states[f.State],
			Orphan:     f.IsOrphaned(),
			RewardSats: f.Rewards,
			Finder:     f.WorkerName,
		}
		blocks[i].SubsidySats = blockchain.CalcBlockSubsidy(f.Height, networks[p.cfg.Network])
		blocks[i].FeesSats = f.Rewards - blocks[i].SubsidySats
		if f.State == block.Immature || f.State == block.Matured {
			blocks[i].Confirmations = int(max(0, next-f.Height))
		}
	}
	return blocks, nil
}

// nextHeight returns the height that the pool works on, 0 before the first job.
func (p *pool) nextHeight() int32 {
	if j := p.server.LatestJob(); j != nil {
		return j.Height
	}
	return 0
}

func (p *pool) nodeStates(context.Context) ([]httpstats.Node, error) {
	node := httpstats.Node{Name: p.backend.name, Chain: p.cfg.Network}
	if j := p.server.LatestJob(); j != nil {
		node.Height, node.Difficulty, node.LastBeat = j.Height, j.Target().Difficulty(), j.ID.Time()
	}
	return []httpstats.Node{node}, nil
}
