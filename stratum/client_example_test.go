package stratum_test

import (
	"context"
	"fmt"
	"net"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
)

// A client keeps a session with a pool. Here the pool is a server of our own, and one share is mined for it.
func ExampleClient() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	hub := job.NewHub(nil)
	users, _ := stratum.OpenUsers("")
	sink := share.SinkFunc(func(context.Context, []share.Share) error { return nil })
	server, err := stratum.New(hub, users, sink, &pool{}, &stratum.Options{StartDifficulty: 1.0 / (1 << 20), AboveNetwork: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	serving := make(chan error)
	go func() { serving <- server.Serve(ctx, ln) }()
	_ = hub.Broadcast(ctx, exampleJob())

	client, err := stratum.NewClient("stratum+tcp://"+ln.Addr().String(), &stratum.ClientOptions{User: "alice.rig01"})
	if err != nil {
		fmt.Println(err)
		return
	}
	running := make(chan error)
	clientCtx, stopClient := context.WithCancel(ctx)
	defer stopClient()
	go func() { running <- client.Run(clientCtx) }()

	work, err := client.NextJob(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	found := stratum.ClientShare{Job: work, Extranonce2: make([]byte, work.Extranonce2Size), NTime: work.NTime}
	target := work.Target()
	for {
		header := work.AppendHeader(nil, found.Extranonce2, found.NTime, found.Nonce, 0)
		if hash := double(header); target.MetBy(&hash) {
			break
		}
		found.Nonce++
	}
	verdict, err := client.Submit(ctx, found)
	fmt.Println("accepted:", verdict.Accepted, err)

	stopClient()
	fmt.Println("client:", <-running)
	stop()
	fmt.Println("server:", <-serving)
	// Output:
	// accepted: true <nil>
	// client: <nil>
	// server: <nil>
}
