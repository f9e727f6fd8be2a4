// Command solo is the smallest pool there is: a regtest chain, a server for miners, and every block they find.
package main

import (
	"context"
	"log"
	"net"
	"os/signal"
	"syscall"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/regtest"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/sharelog"
	"github.com/poolkit/poolkit/stratum"
	"golang.org/x/sync/errgroup"
)

func main() {
	chain := must(regtest.Open("solo/chain", nil)) // or rpcjob.New and rpcblock.New for a bitcoind
	payout := must(job.PayoutScript(chain.ThrowawayAddress().String(), chain.Params()))
	builder := must(job.NewBuilder("regtest", payout, &job.BuilderOptions{Text: "/solo/"}))
	hub := job.NewHub(nil)
	jobs := must(job.NewMaker(chain, builder.Build, hub, nil))
	shares := must(sharelog.NewWriter(must(sharelog.OpenDir("solo/shares", nil)), nil))
	found := must(block.OpenFile("solo/blocks.jsonl", nil))
	blocks := must(block.NewMaker(must(block.OpenSpool("solo/blocks", nil)), chain, found, nil))
	users := must(stratum.OpenUsers("solo/users"))
	server := must(stratum.New(hub, users, shares, blocks, &stratum.Options{StartDifficulty: 1, AboveNetwork: true}))
	miners := must(net.Listen("tcp", "127.0.0.1:3333"))

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	pool, ctx := errgroup.WithContext(ctx)
	pool.Go(func() error { return jobs.Run(ctx) })
	pool.Go(func() error { return shares.Run(ctx) })
	pool.Go(func() error { return blocks.Run(ctx) })
	pool.Go(func() error { return server.Serve(ctx, miners) })
	if err := pool.Wait(); err != nil {
		log.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
