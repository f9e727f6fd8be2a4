package stratumtest_test

import (
	"context"
	"fmt"
	"net"

	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// serveFarm is a pool of one job and no checks, for agents. Yours goes here.
func serveFarm(ln net.Listener) {
	conn, err := ln.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	r := btcagent.NewReader(conn, 0)
	for submits := uint16(0); ; {
		line, frame, err := r.Read()
		if err != nil {
			return
		}
		var reply []byte
		var req sv1.Request
		switch {
		case line == nil && frame.Command.IsSubmit():
			reply = btcagent.AppendSubmitResponse(nil, submits, btcagent.StatusAccept)
			submits++
		case line != nil && req.Decode(line) == nil:
			switch req.Method {
			case sv1.MethodAgentGetCapabilities:
				reply = sv1.AppendCapabilitiesResult(nil, req.ID, sv1.CapabilityVersionRolling, sv1.CapabilitySubmitResponse)
			case sv1.MethodSubscribe:
				reply = sv1.AppendSubscribeResult(nil, req.ID, []byte{1, 0, 0, 1}, btcagent.Extranonce2Size)
			case sv1.MethodAuthorize:
				reply = sv1.AppendTrue(nil, req.ID)
				reply = sv1.AppendSetDifficulty(reply, 1.0/(1<<20))
				reply = sv1.AppendNotify(reply, &sv1.Notify{JobID: "0", Version: 0x20000000, Bits: 0x207fffff, Clean: true})
			default:
				reply = sv1.AppendTrue(nil, req.ID)
			}
		}
		if len(reply) == 0 {
			continue
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}

// A farm logs in, names one of its miners, and submits a share of it.
func ExampleAgent() {
	ln := stratumtest.Listen()
	defer ln.Close()
	go serveFarm(ln)

	ctx := context.Background()
	conn, err := ln.Dial(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	a := stratumtest.NewAgent(conn, &stratumtest.AgentOptions{User: "alice"})
	defer a.Close()
	if err := a.Handshake(ctx); err != nil {
		fmt.Println(err)
		return
	}
	if err := a.Register(ctx, 0x1122, "cgminer/4.12.1", "rig01"); err != nil {
		fmt.Println(err)
		return
	}
	job, err := a.NextJob(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	share, err := a.Solve(ctx, job, 0x1122)
	if err != nil {
		fmt.Println(err)
		return
	}
	reply, err := a.Submit(ctx, 0x1122, share)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("extranonce1 %x, share %d accepted: %v\n", a.Work(job, 0x1122).Extranonce1, reply.Index, reply.Accepted)
	// Output: extranonce1 0100000100001122, share 0 accepted: true
}
