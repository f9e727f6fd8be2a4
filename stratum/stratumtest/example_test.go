package stratumtest_test

import (
	"context"
	"fmt"
	"net"

	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// servePool is a pool of one job and no checks. Yours goes here.
func servePool(ln net.Listener) {
	conn, err := ln.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	r := sv1.NewReader(conn, 0)
	for {
		line, err := r.ReadLine()
		if err != nil {
			return
		}
		var req sv1.Request
		if req.Decode(line) != nil {
			return
		}
		reply := sv1.AppendTrue(nil, req.ID)
		switch req.Method {
		case sv1.MethodSubscribe:
			reply = sv1.AppendSubscribeResult(nil, req.ID, []byte{1, 0, 0, 1}, 8)
		case sv1.MethodAuthorize:
			reply = sv1.AppendSetDifficulty(reply, 1.0/(1<<20))
			reply = sv1.AppendNotify(reply, &sv1.Notify{JobID: "0", Version: 0x20000000, Bits: 0x207fffff, Clean: true})
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}

// A miner logs in, finds a share of the difficulty it was given, and submits it.
func Example() {
	ln := stratumtest.Listen()
	defer ln.Close()
	go servePool(ln)

	ctx := context.Background()
	conn, err := ln.Dial(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	m := stratumtest.NewMiner(conn, &stratumtest.MinerOptions{User: "alice.rig01"})
	defer m.Close()
	if err := m.Handshake(ctx); err != nil {
		fmt.Println(err)
		return
	}
	job, err := m.NextJob(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	share, err := m.Solve(ctx, job)
	if err != nil {
		fmt.Println(err)
		return
	}
	reply, err := m.Submit(ctx, share)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(job.Difficulty, job.Target.MetBy(&share.Hash), reply.Accepted)
	// Output: 0.00000095367431640625 true true
}
