package stratum_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// tcpPool starts a server on a TCP socket with mainnet-sized merkle branches and a sink that only counts.
func tcpPool(b testing.TB, d difficulty.Difficulty) (addr string, server *stratum.Server, hub *job.Hub) {
	hub = job.NewHub(nil)
	users, err := stratum.OpenUsers("")
	require.NoError(b, err)
	sink := share.SinkFunc(func(context.Context, []share.Share) error { return nil })
	server, err = stratum.New(hub, users, sink, &pool{}, &stratum.Options{
		StartDifficulty: d, MinDifficulty: d, AboveNetwork: true, Limits: stratum.NoLimits(),
		NewPolicy: func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(d) },
	})
	require.NoError(b, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, ln) }()
	b.Cleanup(func() { cancel(); require.NoError(b, <-done) })
	return ln.Addr().String(), server, hub
}

// BenchmarkSubmit is a submit through a TCP socket: 16 in flight on each of 50 connections, every one hashed, judged,
// answered. The miners run in the same process and take their part of the time.
func BenchmarkSubmit(b *testing.B) {
	addr, _, hub := tcpPool(b, 1<<40)
	j := benchJob(b)
	require.NoError(b, hub.Broadcast(b.Context(), j))
	const conns, flight = 50, 16
	var clients []*client
	for range conns {
		conn, err := net.Dial("tcp", addr)
		require.NoError(b, err)
		c := newClient(b, conn)
		c.start("alice.rig")
		clients = append(clients, c)
	}
	b.ReportAllocs()
	b.ResetTimer()
	done := make(chan error, conns)
	for i, c := range clients {
		n := b.N/conns + 1
		go func() {
			var out []byte
			nonce := uint32(i) << 24
			for sent, got := 0, 0; got < n; {
				out = out[:0]
				for sent-got < flight && sent < n {
					out = fmt.Appendf(out, `{"id":4,"method":"mining.submit","params":["alice.rig","0","0000000000000000","%08x","%08x"]}`+"\n", j.Time, nonce)
					nonce++
					sent++
				}
				if _, err := c.conn.Write(out); err != nil {
					done <- err
					return
				}
				for range sent - got {
					if _, err := c.r.ReadLine(); err != nil {
						done <- err
						return
					}
					got++
				}
			}
			done <- nil
		}()
	}
	for range conns {
		require.NoError(b, <-done)
	}
}

func benchJob(b testing.TB) *job.Job {
	var ids job.IDs
	j := makeJob(b, ids.Next(time.Now()), 100, hardBits)
	fields := *j
	for len(fields.Branch) < 12 {
		fields.Branch = append(fields.Branch, fields.Branch[0])
	}
	j, err := job.New(fields)
	require.NoError(b, err)
	return j
}

// BenchmarkConnect is connect, subscribe, authorize and the first job.
func BenchmarkConnect(b *testing.B) {
	addr, _, hub := tcpPool(b, 1024)
	require.NoError(b, hub.Broadcast(b.Context(), benchJob(b)))
	b.ReportAllocs()
	for b.Loop() {
		conn, err := net.Dial("tcp", addr)
		require.NoError(b, err)
		r := sv1.NewReader(conn, 1<<16)
		_, err = conn.Write([]byte(`{"id":1,"method":"mining.subscribe","params":["cgminer/4.12.1"]}` + "\n" +
			`{"id":2,"method":"mining.authorize","params":["alice.rig","x"]}` + "\n"))
		require.NoError(b, err)
		for range 4 {
			_, err := r.ReadLine()
			require.NoError(b, err)
		}
		conn.Close()
	}
}
