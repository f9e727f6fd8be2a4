package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

func TestRealSharesAreAllAccepted(t *testing.T) {
	t.Parallel()
	p := openPool(t, easy, nil)
	r, code, stderr := load(t, p.addr, "-conns 24 -rate 20 -real -for 1s -strict")
	require.Zero(t, code, stderr)
	require.Equal(t, 24, r.LoggedIn)
	require.Equal(t, 24, r.LiveAtEnd)
	require.Greater(t, r.Accepted, uint64(100))
	require.Equal(t, r.Submits, r.Accepted)
	require.Equal(t, r.Accepted, p.recorded(share.Accepted), "the pool counts the same")
	require.Empty(t, r.Rejected)
	require.EqualValues(t, r.Replies, r.Latency.Count)
	require.EqualValues(t, 24, r.Login.Count)
	require.EqualValues(t, 24, r.FirstJob.Count)
	require.Len(t, p.workers, 24, "each miner has a name of its own")
	require.True(t, p.workers["swarm.w23"], "%v", p.workers)
}

func TestFastSharesAreAllJudged(t *testing.T) {
	t.Parallel()
	p := openPool(t, 1<<40, nil)
	r, code, stderr := load(t, p.addr, "-conns 30 -inflight 8 -for 500ms -strict")
	require.Zero(t, code, stderr)
	require.Greater(t, r.Submits, uint64(1000))
	require.Equal(t, r.Submits, r.Replies)
	require.Equal(t, map[string]uint64{"23": r.Replies}, r.Rejected, "hashed, judged and found too low, none a duplicate")
	require.Zero(t, r.Lost)
	verdicts := p.server.Stats().Verdicts
	require.EqualValues(t, r.Replies, verdicts[share.LowDifficulty])
}

func TestARateIsKept(t *testing.T) {
	t.Parallel()
	p := openPool(t, 1<<40, nil)
	r, code, stderr := load(t, p.addr, "-conns 40 -rate 10 -for 1s -strict -version-rolling=false")
	require.Zero(t, code, stderr)
	require.InDelta(t, 400, float64(r.Submits+r.Missed), 45)
	require.Equal(t, r.Submits, r.Replies)
}

func TestATotalRateIsDividedAmongAll(t *testing.T) {
	t.Parallel()
	p := openPool(t, 1<<40, nil)
	r, code, stderr := load(t, p.addr, "-conns 30 -total-rate 300 -for 1s -strict")
	require.Zero(t, code, stderr)
	require.InDelta(t, 300, float64(r.Submits+r.Missed), 35)
}

// mining.set_extranonce is for the jobs to come; shares of the job at hand keep their size.
func TestSetExtranonceHoldsFromTheNextJob(t *testing.T) {
	t.Parallel()
	var wrong, after atomic.Int64
	p := openScript(t, func(n int, p *peer) {
		if _, ok := p.login("1a000000", "s"); !ok {
			return
		}
		p.notify("1", "a", true)
		p.send(`{"id":null,"method":"mining.set_extranonce","params":["2b000000",6]}`)
		for i := 0; p.next(); i++ {
			if i == 3 {
				p.notify("2", "a", false)
			}
			size := 4
			if bytes.Contains(p.req.Params, []byte(`,"2",`)) {
				size = 6
				after.Add(1)
			}
			var s sv1.Submit
			if s.Decode(p.req.Params, size) != nil {
				wrong.Add(1)
			}
			p.reply("true")
		}
	})
	_, code, stderr := load(t, p.addr, "-conns 1 -inflight 1 -for 300ms -strict")
	require.Zero(t, code, stderr)
	require.Zero(t, wrong.Load())
	require.NotZero(t, after.Load())
}

func TestIdleConnectionsSubmitNothing(t *testing.T) {
	t.Parallel()
	p := openPool(t, 1<<40, nil)
	r, code, stderr := load(t, p.addr, "-conns 50 -connect-rate 500 -for 50ms -strict")
	require.Zero(t, code, stderr)
	require.Equal(t, 50, r.LoggedIn)
	require.Zero(t, r.Submits)
	require.GreaterOrEqual(t, r.ConnectSec, 0.098, "the last of 50 begins 98 ms after the first")
}

func TestNewBlocksAreTimed(t *testing.T) {
	t.Parallel()
	p := openPool(t, 1<<40, nil)
	stop := broadcasting(t, p, 200*time.Millisecond)
	r, code, stderr := load(t, p.addr, "-conns 40 -rate 20 -for 1500ms -strict")
	stop()
	require.Zero(t, code, stderr)
	require.GreaterOrEqual(t, r.NewBlocks, 3)
	require.Len(t, r.Blocks, r.NewBlocks)
	full := 0
	for _, b := range r.Blocks {
		require.LessOrEqual(t, b.Reached, uint64(40))
		require.LessOrEqual(t, b.P50MS, b.P99MS)
		require.LessOrEqual(t, b.P99MS, b.LastMS)
		if b.Reached == 40 {
			full++
		}
	}
	require.GreaterOrEqual(t, full, 2, "those after the login reach everybody: %+v", r.Blocks)
}

// broadcasting sends new blocks until the returned function is called.
func broadcasting(t *testing.T, p *testPool, every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for height := int32(101); ; height++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				p.broadcast(height)
			}
		}
	}()
	return func() { cancel(); <-done }
}

func TestBlocksAreTimedFromTheCommandThatMakesThem(t *testing.T) {
	t.Parallel()
	p := openPool(t, 1<<40, nil)
	file := filepath.Join(t.TempDir(), "block")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // the node
		defer close(done)
		look := time.NewTicker(5 * time.Millisecond)
		defer look.Stop()
		for height := int32(101); ctx.Err() == nil; <-look.C {
			if os.Remove(file) == nil {
				p.broadcast(height)
				height++
			}
		}
	}()
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"-pool", p.addr, "-conns", "10", "-for", "1s", "-strict", "-progress", "0",
		"-settle", "0", "-block-cmd", "touch " + file, "-block-every", "300ms"}, &out, &errs)
	cancel()
	<-done
	require.Zero(t, code, errs.String())
	require.Contains(t, out.String(), "after -block-cmd began")
	require.Contains(t, out.String(), "10 connections: first ")

	out.Reset()
	Main(t.Context(), []string{"-pool", p.addr, "-conns", "1", "-settle", "0", "-for", "300ms", "-progress", "0",
		"-block-cmd", "echo no such node; exit 3", "-block-every", "100ms"}, &out, &errs)
	require.Contains(t, out.String(), "exit status 3: no such node")
}

func TestChurnReplacesConnections(t *testing.T) {
	t.Parallel()
	p := openPool(t, easy, nil)
	r, code, stderr := load(t, p.addr, "-conns 24 -rate 10 -real -churn 40 -for 1s -strict")
	require.Zero(t, code, stderr)
	require.InDelta(t, 40, float64(r.Churned), 15)
	require.EqualValues(t, r.Churned, r.Disconnects["churn"])
	require.Equal(t, 24, r.LiveAtEnd, "all are replaced")
	require.EqualValues(t, 24+r.Churned, r.Connect.Count)
	require.Zero(t, r.Lost)
	require.Equal(t, r.Accepted+r.Abandoned, r.Submits)
}

// Each connection is closed in the middle of its submits, and once more by client.reconnect. The pool hands the old
// session back, and has taken the first of the submits that it did not answer.
func TestReconnectResumesAndSendsAgain(t *testing.T) {
	t.Parallel()
	var closed, resent atomic.Int64
	sessions := make(chan string, 16)
	p := openScript(t, func(n int, p *peer) {
		asked, ok := p.login("1a00002b", "old")
		sessions <- asked
		if !ok {
			return
		}
		switch n {
		case 0: // takes two submits, answers none
			p.notify("7", "a", true)
			if p.next() && p.next() {
				closed.Add(2)
			}
		case 1: // the two come first
			for i := range 2 {
				if !p.next() || p.req.Method != sv1.MethodSubmit || !bytes.Contains(p.req.Params, []byte(`"7"`)) {
					return
				}
				resent.Add(1)
				if i == 0 {
					p.refuse(22, "Duplicate share")
				} else {
					p.reply("true")
				}
			}
			p.notify("8", "a", true)
			p.send(`{"id":null,"method":"client.reconnect","params":[]}`)
			for p.next() {
			}
		default:
			p.notify("9", "a", true)
			for p.next() {
				if p.req.Method == sv1.MethodSubmit {
					p.reply("true")
				}
			}
		}
	})
	r, code, stderr := load(t, p.addr, "-conns 1 -inflight 2 -for 2500ms -reconnect -lanes 1")
	require.Zero(t, code, stderr)
	require.Equal(t, "", <-sessions)
	require.Equal(t, "old", <-sessions)
	require.Equal(t, "old", <-sessions)
	require.EqualValues(t, 2, closed.Load())
	require.EqualValues(t, 2, resent.Load())
	require.EqualValues(t, 2, r.Resumed)
	require.Zero(t, r.Fresh)
	require.EqualValues(t, 1, r.ResentKnown)
	require.GreaterOrEqual(t, r.Resent, uint64(2))
	require.EqualValues(t, 1, r.Reconnects)
	require.Zero(t, r.Lost)
	require.Empty(t, r.Rejected, "a duplicate of what was sent again is no fault")
	require.EqualValues(t, 1, r.Disconnects["closed by the pool"])
	require.EqualValues(t, 1, r.Disconnects["client.reconnect"])
	require.Greater(t, r.Accepted, uint64(10))
}

// A pool that does not know the session any more gives another extranonce1, to which the old shares do not belong.
func TestSubmitsOfASessionThatIsGoneAreLost(t *testing.T) {
	t.Parallel()
	p := openScript(t, func(n int, p *peer) {
		if _, ok := p.login(fmt.Sprintf("1a00000%d", n%10), "s"); !ok {
			return
		}
		p.notify("7", "a", true)
		if n == 0 {
			p.next()
			return
		}
		for p.next() {
			p.reply("true")
		}
	})
	r, code, stderr := load(t, p.addr, "-conns 1 -inflight 1 -for 2s -reconnect")
	require.Zero(t, code, stderr)
	require.EqualValues(t, 1, r.Fresh)
	require.Zero(t, r.Resumed)
	require.Zero(t, r.Resent)
	require.EqualValues(t, 1, r.Lost)
	_, code, stderr = load(t, openScript(t, func(n int, p *peer) {
		if _, ok := p.login("1a000000", "s"); ok {
			p.notify("7", "a", true)
			p.next()
		}
	}).addr, "-conns 1 -inflight 1 -for 1s -strict")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "1 submits were never answered")
}

// A stale reply is excused by a new block before or right after it, and by nothing else.
func TestStaleRepliesAreExplained(t *testing.T) {
	t.Parallel()
	serve := func(after string, clean bool) func(n int, p *peer) {
		return func(n int, p *peer) {
			if _, ok := p.login("1a000000", "s"); !ok {
				return
			}
			p.notify("1", "a", true)
			p.next()
			id := p.req.ID
			if after == "before" {
				p.notify("2", "b", clean)
			}
			p.req.ID = id
			p.refuse(21, "Job not found (=stale)")
			if after == "after" {
				p.notify("2", "b", clean)
			}
			for p.next() {
				p.reply("true")
			}
		}
	}
	for _, test := range []struct {
		name   string
		after  string
		clean  bool
		excuse uint64
	}{
		{"a new block before the reply", "before", true, 1},
		{"a new block after the reply", "after", true, 1},
		{"no new block", "never", true, 0},
		{"only more work", "before", false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, code, stderr := load(t, openScript(t, serve(test.after, test.clean)).addr, "-conns 1 -inflight 1 -for 400ms -strict")
			require.Equal(t, map[string]uint64{"21": 1}, r.Rejected)
			require.Equal(t, test.excuse, r.StaleRaces)
			require.Equal(t, test.excuse == 1, code == 0, stderr)
		})
	}
}

func TestABlockThatDoesNotReachEverybody(t *testing.T) {
	t.Parallel()
	p := openScript(t, func(n int, p *peer) {
		if _, ok := p.login("1a000000", "s"); !ok {
			return
		}
		p.notify("1", "a", true)
		for i := 0; p.next(); i++ {
			p.reply("true")
			if n != 0 && i == 0 {
				p.notify("2", "b", true)
			}
		}
	})
	r, code, stderr := load(t, p.addr, "-conns 3 -rate 20 -for 500ms -strict")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "a new block did not reach 1 connections")
	require.Len(t, r.Blocks, 1)
	require.EqualValues(t, 2, r.Blocks[0].Reached)
	require.Equal(t, 1, r.Blocks[0].Missing)
}

// A pool that was started again shows an older block first. The one after it is no news to whoever connects then.
func TestABlockIsNoNewsToLaterConnections(t *testing.T) {
	t.Parallel()
	p := openScript(t, func(n int, p *peer) {
		if _, ok := p.login("1a000000", "s"); !ok {
			return
		}
		p.notify("1", "a", true)
		for i := 0; i < 2 || n > 0; i++ {
			if !p.next() {
				return
			}
			p.reply("true")
			if i == 0 {
				p.notify("2", "b", true)
			}
		}
	})
	r, code, stderr := load(t, p.addr, "-conns 1 -inflight 1 -for 1500ms -reconnect")
	require.Zero(t, code, stderr)
	require.EqualValues(t, 2, r.Login.Count)
	require.Len(t, r.Blocks, 1)
	require.EqualValues(t, 1, r.Blocks[0].Reached)
	require.Less(t, r.Blocks[0].LastMS, 100.0)
}

func TestOddPoolsAreSurvived(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		serve func(n int, p *peer)
		check func(t *testing.T, r jsonReport, code int, stderr string)
	}{
		{"it speaks HTTP", func(n int, p *peer) { p.next(); p.send("HTTP/1.1 400 Bad Request", "", "no") },
			func(t *testing.T, r jsonReport, code int, stderr string) {
				require.Equal(t, 1, code)
				require.Contains(t, stderr, "no connection logged in")
				require.NotZero(t, r.Malformed)
				require.NotZero(t, r.Failures["closed by the pool"])
			}},
		{"it says nothing", func(n int, p *peer) {
			for p.next() {
			}
		}, func(t *testing.T, r jsonReport, code int, stderr string) {
			require.Equal(t, 1, code)
			require.NotZero(t, r.Failures["no reply to mining.configure (see -version-rolling) within the time allowed"])
		}},
		{"it refuses users", func(n int, p *peer) {
			for p.next() {
				switch p.req.Method {
				case sv1.MethodSubscribe:
					p.reply(`[[],"00",4]`)
				default:
					p.refuse(29, "Invalid username")
				}
			}
		}, func(t *testing.T, r jsonReport, code int, stderr string) {
			require.Equal(t, 1, code)
			require.NotZero(t, r.Failures["mining.authorize was refused: 29 Invalid username"])
		}},
		{"a line without end", func(n int, p *peer) {
			p.conn.Write(bytes.Repeat([]byte("x"), 2*maxLine))
			for p.next() {
			}
		}, func(t *testing.T, r jsonReport, code int, stderr string) {
			require.Equal(t, 1, code)
			require.NotZero(t, r.Failures["a line without end"])
		}},
		{"replies to nothing, pings and words", func(n int, p *peer) {
			if _, ok := p.login("00", "s"); !ok {
				return
			}
			p.send(`{"id":999,"result":true,"error":null}`, `{"id":99999999999999,"result":true,"error":null}`, `junk`,
				`{"id":null,"method":"client.show_message","params":["hello"]}`,
				`{"id":5,"method":"mining.ping","params":[]}`)
			if p.next() && string(p.req.Result) == `"pong"` {
				p.send(`{"id":null,"method":"client.show_message","params":["ponged"]}`)
			}
			for p.next() {
			}
		}, func(t *testing.T, r jsonReport, code int, stderr string) {
			require.Zero(t, code, stderr)
			require.EqualValues(t, 4, r.Strange)
			require.EqualValues(t, 2, r.Malformed)
			require.EqualValues(t, 2, r.Messages["hello"])
			require.EqualValues(t, 2, r.Messages["ponged"])
			require.EqualValues(t, 2, r.Requests)
		}},
		{"it never answers a submit", func(n int, p *peer) {
			if _, ok := p.login("00", "s"); ok {
				p.notify("1", "a", true)
				for p.next() {
				}
			}
		}, func(t *testing.T, r jsonReport, code int, stderr string) {
			require.Zero(t, code, stderr)
			require.EqualValues(t, 6, r.Submits, "no more than may be in flight")
			require.EqualValues(t, 6, r.Lost)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := openScript(t, test.serve)
			r, code, stderr := load(t, p.addr, "-conns 2 -inflight 3 -connect-timeout 300ms -for 300ms -drain 100ms")
			test.check(t, r, code, stderr)
		})
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close())
	r, code, stderr := load(t, addr, "-conns 5 -for 1s")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "no connection logged in")
	require.EqualValues(t, 5, r.Failures["connection refused"])
	require.EqualValues(t, 5, r.Dialed)
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, file := certificate(t)
	p := openPool(t, easy, func(ln net.Listener) net.Listener {
		return tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}})
	})
	for _, trust := range []string{"-insecure", "-ca " + file} {
		before := p.recorded(share.Accepted)
		r, code, stderr := load(t, p.addr, "-tls "+trust+" -conns 10 -rate 10 -real -churn 10 -for 600ms -strict")
		require.Zero(t, code, stderr)
		require.Equal(t, 10, r.LoggedIn)
		require.NotZero(t, r.Accepted)
		require.NotZero(t, r.Churned)
		require.LessOrEqual(t, r.Accepted, p.recorded(share.Accepted)-before)
	}
	r, code, stderr := load(t, p.addr, "-tls -conns 2 -for 100ms")
	require.Equal(t, 1, code, stderr)
	require.EqualValues(t, 2, r.Failures["the certificate is not trusted: x509: certificate signed by unknown authority"], "%v", r.Failures)
}

func certificate(t *testing.T) (cert tls.Certificate, file string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "test"}}, &key.PublicKey, key)
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "cert.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// The pool of this test reads what a BTCAgent sends and answers by index.
func TestAgents(t *testing.T) {
	t.Parallel()
	const workers = 5
	var registered, submits, odd atomic.Int64
	var subres atomic.Bool
	subres.Store(true)
	p := openScript(t, func(n int, p *peer) {
		index := uint16(0)
		var buf []byte
		chunk := make([]byte, 4096)
		for {
			k, err := p.conn.Read(chunk)
			if err != nil {
				return
			}
			buf = append(buf, chunk[:k]...)
			for len(buf) > 0 {
				if buf[0] == btcagent.Magic {
					f, k, err := btcagent.Next(buf)
					if k == 0 || err != nil {
						break
					}
					var r btcagent.Register
					var share btcagent.Submit
					switch {
					case r.Decode(f) == nil && string(r.Software) == "swarm/1" && string(r.Worker) == fmt.Sprintf("w%d", r.SessionID):
						registered.Add(1)
					case share.Decode(f) == nil && share.JobID == 42 && share.SessionID < workers && share.NTime == 0x66669991:
						submits.Add(1)
						status := btcagent.StatusAccept
						if index%4 == 3 {
							status = btcagent.StatusStale
						}
						if subres.Load() {
							p.conn.Write(btcagent.AppendSubmitResponse(nil, index, status))
						}
						index++
					default:
						odd.Add(1)
					}
					buf = buf[k:]
					continue
				}
				line, k := sv1.NextLine(buf)
				if k == 0 {
					break
				}
				buf = buf[k:]
				if p.req.Decode(line) != nil {
					odd.Add(1)
					continue
				}
				switch p.req.Method {
				case sv1.MethodAgentGetCapabilities:
					if subres.Load() {
						p.reply(`{"capabilities":["verrol","subres"]}`)
					} else {
						p.reply(`{"capabilities":["verrol"]}`)
					}
				case sv1.MethodConfigure:
					p.reply(`{"version-rolling":true,"version-rolling.mask":"1fffe000"}`)
					p.send(`{"id":null,"method":"mining.set_version_mask","params":["1fffe000"]}`)
				case sv1.MethodSubscribe:
					if !strings.Contains(string(p.req.Params), "btccom-agent/") {
						odd.Add(1)
					}
					p.reply(`[[["mining.notify","1a00002c"]],"1a00002c",8]`)
				case sv1.MethodAuthorize:
					if string(p.req.Params) != `["swarm",""]` {
						odd.Add(1)
					}
					p.reply("true")
					p.send(`{"id":null,"method":"mining.set_difficulty","params":[16384]}`)
					p.conn.Write(btcagent.AppendSetDifficulty(nil, 13, 2))
					p.notify("42", "a", true)
				}
			}
		}
	})
	r, code, stderr := load(t, p.addr, "-conns 0 -agents 2 -workers 5 -rate 20 -for 1s")
	require.Zero(t, code, stderr)
	require.Equal(t, 2, r.LoggedIn)
	require.EqualValues(t, 2*workers, registered.Load())
	require.InDelta(t, 200, float64(r.Submits+r.Missed), 30)
	require.EqualValues(t, r.Submits, submits.Load())
	require.Equal(t, r.Submits, r.Replies)
	require.Equal(t, r.Submits, r.Accepted+r.Rejected["37"])
	require.NotZero(t, r.Rejected["37"])
	require.Zero(t, odd.Load())
	require.Zero(t, r.Strange+r.Malformed+r.Lost)

	submits.Store(0)
	r, code, stderr = load(t, p.addr, "-conns 0 -agents 1 -workers 5 -inflight 50 -for 300ms")
	require.Zero(t, code, stderr)
	require.Greater(t, r.Replies, uint64(100))
	require.Equal(t, r.Submits, r.Replies)

	// Without the capability nothing is answered, and nothing is waited for.
	subres.Store(false)
	r, code, stderr = load(t, p.addr, "-conns 0 -agents 1 -workers 5 -rate 20 -for 300ms -strict")
	require.Zero(t, code, stderr)
	require.NotZero(t, r.Submits)
	require.Equal(t, r.Submits, r.Untold)
	require.Zero(t, r.Replies+r.Lost)
}

func TestAnInterruptEndsTheRunWithAReport(t *testing.T) {
	t.Parallel()
	p := openPool(t, 1<<40, nil)
	for _, args := range []string{"-for 1h -inflight 2", "-connect-rate 0.01 -connect-timeout 1h"} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(300*time.Millisecond, cancel)
		var out, errs bytes.Buffer
		begun := time.Now()
		code := Main(ctx, append(strings.Fields(args), "-pool", p.addr, "-conns", "3", "-progress", "50ms", "-settle", "10ms"), &out, &errs)
		require.Less(t, time.Since(begun), 10*time.Second)
		require.Zero(t, code, errs.String())
		require.Contains(t, out.String(), "connections")
		require.Contains(t, errs.String(), "connected")
	}
}

func TestTheReportReadsAsText(t *testing.T) {
	t.Parallel()
	p := openPool(t, 1<<40, nil)
	var out, errs bytes.Buffer
	args := fmt.Sprintf("-pool %s -conns 4 -inflight 2 -for 200ms -progress 0 -settle 10ms -pid %d", p.addr, os.Getpid())
	if runtime.GOOS != "linux" {
		args, _, _ = strings.Cut(args, " -pid")
	}
	require.Zero(t, Main(t.Context(), strings.Fields(args), &out, &errs), errs.String())
	for _, want := range []string{"2 unhashed shares in flight", "4 of 4 logged in", "rejected 23", "(100.00 %): Low difficulty", "p99 "} {
		require.Contains(t, out.String(), want)
	}
	if runtime.GOOS == "linux" {
		require.Contains(t, out.String(), "pool memory")
	}
	require.NotContains(t, out.String(), "%!")
}

func TestAProcessThatIsNotThere(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("-pid needs Linux")
	}
	var out, errs bytes.Buffer
	code := Main(t.Context(), strings.Fields("-pool 127.0.0.1:1 -conns 1 -pid 2147483646"), &out, &errs)
	require.Equal(t, 1, code)
	require.Contains(t, errs.String(), "process 2147483646")
}

func TestCurvePrintsATable(t *testing.T) {
	t.Parallel()
	p := openPool(t, 1<<40, nil)
	stop := broadcasting(t, p, 150*time.Millisecond)
	defer stop()
	var out, errs bytes.Buffer
	args := fmt.Sprintf("-pool %s -settle 10ms -curve 3,120 -total-rate 300 -for 600ms -strict -pid %d", p.addr, os.Getpid())
	if runtime.GOOS != "linux" {
		args, _, _ = strings.Cut(args, " -pid")
	}
	require.Zero(t, Main(t.Context(), strings.Fields(args), &out, &errs), errs.String())
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 4, out.String())
	for _, line := range lines {
		require.Equal(t, 11, strings.Count(line, "|"), line)
	}
	require.True(t, strings.HasPrefix(lines[2], "| 3 |"), out.String())
	require.True(t, strings.HasPrefix(lines[3], "| 120 |"), out.String())
	require.Contains(t, lines[3], "ms")
}

// Sources are local addresses; a loopback has many on Linux.
func TestSources(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	seen := make(chan string, 8)
	p := openScript(t, func(n int, p *peer) {
		seen <- p.conn.RemoteAddr().(*net.TCPAddr).IP.String()
		p.login("00", "s")
		for p.next() {
		}
	})
	_, code, stderr := load(t, p.addr, "-conns 2 -source 127.0.0.2,127.0.0.3 -for 50ms")
	require.Zero(t, code, stderr)
	require.ElementsMatch(t, []string{"127.0.0.2", "127.0.0.3"}, []string{<-seen, <-seen})
	_, code, stderr = load(t, p.addr, "-conns 2 -source ::1 -for 50ms")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "-source ::1")
}
