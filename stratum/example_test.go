package stratum_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
)

// A server takes its jobs from a feed and gives every share to a sink. Here one miner sends one share.
func ExampleServer() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	hub := job.NewHub(nil)
	users, _ := stratum.OpenUsers("") // open to everybody, forgotten at the end
	sink := share.SinkFunc(func(_ context.Context, shares []share.Share) error {
		for _, s := range shares {
			fmt.Println("recorded:", s.Worker, s.Difficulty, s.Verdict)
		}
		return nil
	})
	server, err := stratum.New(hub, users, sink, &pool{}, &stratum.Options{StartDifficulty: 1.0 / 1024, AboveNetwork: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error)
	go func() { done <- server.Serve(ctx, ln) }()
	_ = hub.Broadcast(ctx, exampleJob())

	miner, err := stratumtest.Dial(ctx, ln.Addr().String(), &stratumtest.MinerOptions{User: "alice.rig01"})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = miner.Handshake(ctx)
	work, _ := miner.NextJob(ctx)
	found, _ := miner.Solve(ctx, work)
	reply, err := miner.Submit(ctx, found)
	fmt.Println("answered:", reply.Err(), err)

	stop()
	fmt.Println("stopped:", <-done)
	// Output:
	// recorded: alice.rig01 0.0009765625 Share accepted
	// answered: <nil> <nil>
	// stopped: <nil>
}

func exampleJob() *job.Job {
	var ids job.IDs
	j, err := job.New(job.Job{
		ID: ids.Next(time.Now()), Height: 1, Version: 0x20000000, Bits: difficulty.One.Bits(),
		Time: uint32(time.Now().Unix()), Coinb1: make([]byte, 60), Coinb2: make([]byte, 40),
	})
	if err != nil {
		panic(err)
	}
	return j
}
