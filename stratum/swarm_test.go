package stratum_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/stretchr/testify/require"
)

// Miners that really hash, on real sockets, through new jobs, new blocks and changes of difficulty: whatever they were
// told is accepted is recorded, once, and nothing that was worth something is refused but for a block in between.
func TestASwarmOnRealSockets(t *testing.T) {
	const miners, jobs = 12, 8
	p := &pool{t: t, hub: job.NewHub(nil)}
	users, err := stratum.OpenUsers("")
	require.NoError(t, err)
	var policies atomic.Int64
	const easiest = easy / 8
	p.server, err = stratum.New(p.hub, users, p, p, &stratum.Options{
		StartDifficulty: easiest, MinDifficulty: easiest,
		NewPolicy: func(*stratum.Session) difficulty.Policy {
			n := policies.Add(1)
			return &steps{easiest * difficulty.Difficulty(int64(1)<<(n%3)), easiest, easiest * 4, easiest * 2, easiest}
		},
	})
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- p.server.Serve(ctx, ln) }()

	height := int32(100)
	p.broadcast(height, hardBits)
	var accepted, stale, wrong atomic.Int64
	enough := make(chan struct{}, miners*1000)
	mineCtx, stopMining := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range miners {
		wg.Go(func() {
			m, err := stratumtest.Dial(mineCtx, ln.Addr().String(), &stratumtest.MinerOptions{
				User:        fmt.Sprintf("user%d.rig", i%5),
				VersionMask: 0x1fffe000 * uint32(i%2),
				Hashrate:    10_000,
				MaxInFlight: 4,
				Hooks: stratumtest.Hooks{OnReply: func(s stratumtest.Share, r stratumtest.Reply) {
					switch {
					case r.Err() == nil:
						accepted.Add(1)
					case r.Code == 21:
						stale.Add(1)
					default:
						wrong.Add(1)
						t.Errorf("miner %d: %v", i, r.Err())
					}
					select {
					case enough <- struct{}{}:
					default:
					}
				}},
			})
			if !errorsOnlyAtTheEnd(t, mineCtx, err) {
				return
			}
			defer m.Close()
			errorsOnlyAtTheEnd(t, mineCtx, m.Run(mineCtx))
		})
	}
	for n := range jobs {
		for range miners * 2 {
			<-enough
		}
		if n%2 == 0 {
			height++
		}
		p.broadcast(height, hardBits)
	}
	stopMining()
	wg.Wait()
	stop()
	require.NoError(t, <-served)

	byKey := make(map[string]int)
	good := int64(0)
	for _, s := range p.recorded() {
		if s.Verdict.Accepted() {
			good++
			byKey[fmt.Sprint(s.JobID, s.SessionID, s.Nonce, s.VersionBits, s.BitsReached)]++
		}
	}
	require.GreaterOrEqual(t, good, accepted.Load(), "every acknowledged share is recorded")
	require.Len(t, byKey, int(good), "and none twice")
	require.Zero(t, wrong.Load())
	require.Greater(t, accepted.Load(), int64(miners))
	require.Zero(t, p.server.Stats().Sessions)
	counted := int64(0)
	for v, n := range p.server.Stats().Verdicts {
		if v == share.Accepted {
			counted = n
		}
	}
	require.Equal(t, good, counted)
}

func errorsOnlyAtTheEnd(t *testing.T, ctx context.Context, err error) bool {
	if err != nil && ctx.Err() == nil {
		t.Errorf("miner: %v", err)
		return false
	}
	return err == nil
}

// Real sockets wait without a buffer; this is about what such a session does when its miner goes away, sends half a
// line, or sends much at once.
func TestRealSockets(t *testing.T) {
	addr, server, hub := tcpPool(t, 1024)
	require.NoError(t, hub.Broadcast(t.Context(), benchJob(t)))
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	c := newClient(t, conn)
	c.start("alice.rig")
	for i := range 3 {
		_, err := conn.Write([]byte(`{"id":7,"method":"mini`))
		require.NoError(t, err)
		_, err = conn.Write([]byte(`ng.ping"}` + "\n"))
		require.NoError(t, err)
		require.Equal(t, `{"id":7,"result":"pong","error":null}`, c.line(), "round %d", i)
	}
	many := make([]byte, 0, 1<<20)
	const pings = 20000
	for i := range pings {
		many = fmt.Appendf(many, `{"id":%d,"method":"mining.ping"}`+"\n", i)
	}
	go conn.Write(many)
	for i := range pings {
		require.Equal(t, fmt.Sprintf(`{"id":%d,"result":"pong","error":null}`, i), c.line())
	}
	require.NoError(t, conn.Close())
	require.Eventually(t, func() bool { return server.Stats().Sessions == 0 }, 10*time.Second, time.Millisecond)
}
