package stratumtest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// swarmPool serves one easy job on ln until ctx ends.
func swarmPool(ctx context.Context, ln net.Listener) (*stratum.Server, <-chan error) {
	must := func(err error) {
		if err != nil {
			panic(err) // it is for examples, too
		}
	}
	hub := job.NewHub(nil)
	users, err := stratum.OpenUsers("")
	must(err)
	sink := share.SinkFunc(func(context.Context, []share.Share) error { return nil })
	d := difficulty.Difficulty(1. / (1 << 24))
	server, err := stratum.New(hub, users, sink, noSolutions{}, &stratum.Options{
		StartDifficulty: d, MinDifficulty: d,
		NewPolicy: func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(d) },
	})
	must(err)
	var ids job.IDs
	now := time.Now()
	j, err := job.New(job.Job{
		ID: ids.Next(now), Height: 100, Version: 0x20000000, Bits: 0x1c7fffff,
		Time: uint32(now.Unix()), MinTime: uint32(now.Unix()) - 600, Coinb1: make([]byte, 50), Coinb2: make([]byte, 50),
	})
	must(err)
	must(hub.Broadcast(ctx, j))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, ln) }()
	return server, done
}

type noSolutions struct{}

func (noSolutions) PutSolution(context.Context, *share.Solution) error { return nil }

func TestASwarmMinesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		ln := stratumtest.Listen()
		server, served := swarmPool(ctx, ln)
		swarm := stratumtest.NewSwarm(ln.Dial, 20, &stratumtest.SwarmOptions{
			Miner:     stratumtest.MinerOptions{User: "alice.rig%d", Hashrate: 256},
			Reconnect: true,
		})
		done := make(chan error, 1)
		go func() { done <- swarm.Run(ctx) }()
		time.Sleep(10 * time.Second)
		st := swarm.Stats()
		require.Equal(t, 20, st.Mining)
		require.Equal(t, uint64(20), st.Connections)
		require.NotZero(t, st.Accepted)
		workers := make(map[string]bool)
		for s := range server.Sessions {
			w, _ := s.Worker()
			workers[w.String()] = true
			require.NoError(t, s.Reconnect(sv1.Reconnect{}))
		}
		require.Len(t, workers, 20, "each miner has its own name")
		time.Sleep(10 * time.Second)
		after := swarm.Stats()
		require.Equal(t, 20, after.Mining)
		require.Equal(t, uint64(40), after.Connections)
		require.Equal(t, uint64(20), after.Resumed)
		require.Greater(t, after.Accepted, st.Accepted)
		stop()
		require.NoError(t, <-done)
		require.NoError(t, <-served)
		end := swarm.Stats()
		require.Zero(t, end.Mining)
		require.Zero(t, end.Rejected)
		require.Equal(t, end.Submitted, end.Accepted+end.Unanswered)
	})
}

func TestASwarmWithoutReconnectEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no network")
		err := stratumtest.NewSwarm(func(context.Context) (net.Conn, error) { return nil, broken }, 3, nil).Run(t.Context())
		require.ErrorIs(t, err, broken)
	})
}

// A swarm puts many miners to work on whatever speaks Stratum.
func ExampleSwarm() {
	ctx, stop := context.WithCancel(context.Background())
	ln := stratumtest.Listen()
	_, served := swarmPool(ctx, ln)
	enough := make(chan struct{}, 1)
	swarm := stratumtest.NewSwarm(ln.Dial, 5, &stratumtest.SwarmOptions{Miner: stratumtest.MinerOptions{
		User: "alice.rig%d", Hashrate: 2560,
		Hooks: stratumtest.Hooks{OnReply: func(stratumtest.Share, stratumtest.Reply) {
			select {
			case enough <- struct{}{}:
			default:
			}
		}},
	}})
	done := make(chan error)
	go func() { done <- swarm.Run(ctx) }()
	<-enough
	fmt.Println("rejected:", swarm.Stats().Rejected)
	stop()
	fmt.Println("ended:", <-done, <-served)
	// Output:
	// rejected: 0
	// ended: <nil> <nil>
}
