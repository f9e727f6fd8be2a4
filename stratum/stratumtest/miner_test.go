package stratumtest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

func TestHandshakeAsksForEverything(t *testing.T) {
	m, p := newPool(t, &MinerOptions{User: "alice.rig01", Password: "d=1", Agent: "test/2", ResumeID: "1a00002b",
		VersionMask: 0x1fffe000, MinimumDifficulty: 0.5, SuggestDifficulty: 2048, SubscribeExtranonce: true})
	done := make(chan error, 1)
	go func() { done <- m.Handshake(t.Context()) }()

	r := p.expect(sv1.MethodConfigure)
	require.Equal(t, `[["version-rolling","minimum-difficulty","subscribe-extranonce"],`+
		`{"version-rolling.mask":"1fffe000","minimum-difficulty.value":0.5}]`, string(r.Params))
	p.send(sv1.AppendConfigureResult(nil, r.ID, []string{"version-rolling"}, sv1.ConfigureResult{VersionRolling: true, VersionMask: 0x1fff0000}))
	r = p.expect(sv1.MethodSubscribe)
	require.Equal(t, `["test/2","1a00002b"]`, string(r.Params))
	p.send(sv1.AppendSubscribeResult(nil, r.ID, extranonce1, 4))
	r = p.expect(sv1.MethodAuthorize)
	require.Equal(t, `["alice.rig01","d=1"]`, string(r.Params))
	p.send(sv1.AppendTrue(nil, r.ID))
	require.Equal(t, `[2048]`, string(p.expect(sv1.MethodSuggestDifficulty).Params))
	p.expect(sv1.MethodExtranonceSubscribe)
	require.NoError(t, <-done) // without the last two replies
	require.NoError(t, m.Handshake(t.Context()), "a second handshake does nothing")

	p.send(sv1.AppendNotify(nil, exampleNotify(t)))
	j, err := m.NextJob(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint32(0x1fff0000), j.VersionMask)
	require.Equal(t, extranonce1, j.Extranonce1)
	require.Equal(t, 4, j.Extranonce2Size)
	require.Equal(t, difficulty.Difficulty(1), j.Difficulty)
	require.Empty(t, p.requests)
}

func TestHandshakeDefaults(t *testing.T) {
	m, p := newPool(t, nil)
	done := make(chan error, 1)
	go func() { done <- m.Handshake(t.Context()) }()
	r := p.expect(sv1.MethodSubscribe)
	require.Equal(t, `["stratumtest/1"]`, string(r.Params))
	p.send(sv1.AppendSubscribeResult(nil, r.ID, extranonce1, 8))
	r = p.expect(sv1.MethodAuthorize)
	require.Equal(t, `["stratumtest.miner","x"]`, string(r.Params))
	p.send(sv1.AppendTrue(nil, r.ID))
	require.NoError(t, <-done)
	require.Empty(t, p.requests)
}

func TestHandshakeWithAnOldPool(t *testing.T) {
	m, p := newPool(t, &MinerOptions{VersionMask: 0x1fffe000})
	done := make(chan error, 1)
	go func() { done <- m.Handshake(t.Context()) }()
	p.send(sv1.AppendError(nil, p.expect(sv1.MethodConfigure).ID, sv1.CodeIllegalMethod, "?"))
	p.login()
	require.NoError(t, <-done)
	p.send(sv1.AppendNotify(nil, exampleNotify(t)))
	j, err := m.NextJob(t.Context())
	require.NoError(t, err)
	require.Zero(t, j.VersionMask)
	require.False(t, j.Share(nil, 0, 0, 0).HasVersionBits)
}

func TestHandshakeRefused(t *testing.T) {
	m, p := newPool(t, nil)
	done := make(chan error, 1)
	try := func() { done <- m.Handshake(t.Context()) }

	go try()
	p.send(sv1.AppendError(nil, p.expect(sv1.MethodSubscribe).ID, 20, "full"))
	require.ErrorContains(t, <-done, `subscribe: refused with code 20: "full"`)

	go try()
	p.send(sv1.AppendSubscribeResult(nil, p.expect(sv1.MethodSubscribe).ID, extranonce1, 8))
	p.send(sv1.AppendResult(nil, p.expect(sv1.MethodAuthorize).ID, []byte("false")))
	require.ErrorContains(t, <-done, "authorize stratumtest.miner: refused with code 20")

	go try()
	p.login()
	require.NoError(t, <-done)
}

func handshake(t *testing.T, m *Miner, p *pool) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- m.Handshake(t.Context()) }()
	p.login()
	require.NoError(t, <-done)
}

// Difficulty and extranonce apply from the next job, and a job keeps what it came with.
func TestWhatAppliesFromTheNextJob(t *testing.T) {
	m, p := newPool(t, nil)
	handshake(t, m, p)
	n := exampleNotify(t)
	p.send(sv1.AppendSetDifficulty(nil, 0.25), sv1.AppendNotify(nil, n),
		sv1.AppendSetDifficulty(nil, 8), sv1.AppendSetDifficulty(nil, 16), sv1.AppendSetExtranonce(nil, []byte{9, 9}, 4),
		sv1.AppendNotify(nil, n))
	first, err := m.NextJob(t.Context())
	require.NoError(t, err)
	second, err := m.NextJob(t.Context())
	require.NoError(t, err)
	require.Equal(t, difficulty.Difficulty(0.25), first.Difficulty)
	require.Equal(t, difficulty.Difficulty(0.25).Target(), first.Target)
	require.Equal(t, extranonce1, first.Extranonce1)
	require.Equal(t, 8, first.Extranonce2Size)
	require.Equal(t, difficulty.Difficulty(16), second.Difficulty)
	require.Equal(t, difficulty.Difficulty(16).Target(), second.Target)
	require.Equal(t, []byte{9, 9}, second.Extranonce1)
	require.Equal(t, 4, second.Extranonce2Size)
	require.EqualValues(t, 2, m.Stats().Jobs)
}

func TestSolveAndSubmit(t *testing.T) {
	var hooks []string
	var mu sync.Mutex
	note := func(s string) { mu.Lock(); hooks = append(hooks, s); mu.Unlock() }
	m, p := newPool(t, &MinerOptions{User: "alice.rig01", VersionMask: 0x1fffe000, Hooks: Hooks{
		OnJob:    func(j *Job) { note("job " + j.ID) },
		OnSubmit: func(s Share) { note("submit " + s.JobID) },
		OnReply:  func(s Share, r Reply) { note("reply to " + s.JobID + " " + r.Message) },
	}})
	done := make(chan error, 1)
	go func() { done <- m.Handshake(t.Context()) }()
	p.send(sv1.AppendConfigureResult(nil, p.expect(sv1.MethodConfigure).ID, []string{"version-rolling"},
		sv1.ConfigureResult{VersionRolling: true, VersionMask: 0x1fffe000}))
	p.login()
	require.NoError(t, <-done)
	p.send(sv1.AppendSetDifficulty(nil, float64(easy)), sv1.AppendNotify(nil, exampleNotify(t)))
	j, err := m.NextJob(t.Context())
	require.NoError(t, err)

	seen := map[[32]byte]bool{}
	for i := range 20 {
		s, err := m.Solve(t.Context(), j)
		require.NoError(t, err)
		require.True(t, j.Target.MetBy(&s.Hash))
		require.False(t, seen[s.Hash], "the same share again")
		seen[s.Hash] = true
		require.Equal(t, i > 0, s.VersionBits != 0)

		replies := make(chan Reply, 1)
		go func() {
			r, err := m.Submit(t.Context(), s)
			if err != nil {
				t.Error(err)
			}
			replies <- r
		}()
		id, got := p.expectSubmit(8)
		require.Equal(t, "alice.rig01", string(got.Worker))
		require.True(t, got.HasVersionBits)
		require.Equal(t, s, j.Share(got.Extranonce2[:], got.NTime, got.Nonce, got.VersionBits), "what the pool hashes")
		if i == 0 {
			p.send(sv1.AppendError(nil, id, sv1.CodeLowDifficulty, "Low"))
			r := <-replies
			require.False(t, r.Accepted)
			require.Equal(t, sv1.CodeLowDifficulty, r.Code)
			require.Equal(t, "Low", r.Message)
			continue
		}
		p.send(sv1.AppendTrue(nil, id))
		r := <-replies
		require.True(t, r.Accepted)
		require.Equal(t, "true", string(r.Result))
	}
	stats := m.Stats()
	require.NotZero(t, stats.Hashes)
	stats.Hashes = 0
	require.Equal(t, MinerStats{Jobs: 1, Submitted: 20, Accepted: 19, Rejected: 1}, stats)
	require.Equal(t, []string{"job 5", "submit 5", "reply to 5 Low", "submit 5", "reply to 5 "}, hooks[:5])
}

func TestSolveTarget(t *testing.T) {
	m, _ := newPool(t, nil)
	j := exampleJob(t) // difficulty 1: out of reach
	s, err := m.SolveTarget(t.Context(), j, easy.Target())
	require.NoError(t, err)
	target := easy.Target()
	require.True(t, target.MetBy(&s.Hash))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = m.Solve(ctx, j)
	require.ErrorIs(t, err, context.Canceled)
	_, err = (&Job{Bits: 0}).NetworkTarget()
	require.Error(t, err)
}

func TestSendAndReceive(t *testing.T) {
	m, p := newPool(t, nil)
	sent := make(chan error, 1)
	go func() {
		err := m.Send(t.Context(), []byte(`{"id":"mine","method":"eth_`))
		sent <- errors.Join(err, m.Send(t.Context(), []byte("x\"}\n")))
	}()
	r := <-p.requests
	require.NoError(t, <-sent)
	require.Equal(t, "eth_x", string(r.Name))
	p.send(sv1.AppendError(nil, r.ID, 26, "Illegal method"), sv1.AppendTrue(nil, []byte("7")), sv1.AppendShowMessage(nil, "hi"))
	msg, err := m.Receive(t.Context())
	require.NoError(t, err)
	require.Equal(t, `"mine"`, string(msg.ID))
	require.Equal(t, &sv1.ReplyError{Code: 26, Message: "Illegal method"}, msg.Err)
	msg, err = m.Receive(t.Context())
	require.NoError(t, err)
	require.Equal(t, "7", string(msg.ID))
	require.True(t, msg.Accepted())
	msg, err = m.Receive(t.Context())
	require.NoError(t, err)
	require.Equal(t, sv1.MethodShowMessage, msg.Method)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = m.Receive(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestReceiveKeepsTheLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newPool(t, nil)
		require.NoError(t, m.Send(t.Context(), []byte("{}\n"))) // it reads from now on
		for i := range queueSize + 10 {
			p.send(sv1.AppendGetVersion(nil, uint64(i)))
		}
		synctest.Wait()
		msg, err := m.Receive(t.Context())
		require.NoError(t, err)
		require.Equal(t, "10", string(msg.ID))
	})
}

func TestAnswersThePool(t *testing.T) {
	m, p := newPool(t, &MinerOptions{Agent: "test/2"})
	require.NoError(t, m.Send(t.Context(), []byte("\n"))) // it reads from now on
	p.send(sv1.AppendPing(nil, 10))
	r := <-p.requests
	require.True(t, r.IsReply)
	require.Equal(t, "10", string(r.ID))
	require.Equal(t, `"pong"`, string(r.Result))
	p.send(sv1.AppendGetVersion(nil, 11))
	r = <-p.requests
	require.Equal(t, "11", string(r.ID))
	require.Equal(t, `"test/2"`, string(r.Result))
}

func TestMinerDemandsTheProtocol(t *testing.T) {
	notify := example(t, "notify")
	for _, tt := range []struct{ name, line, err string }{
		{"not JSON", "hello", "not a JSON object"},
		{"a difficulty of zero", `{"id":null,"method":"mining.set_difficulty","params":[0]}`, "difficulty is not a positive number"},
		{"a job before the subscription", notify, "before the reply to mining.subscribe"},
		{"a job without a clean flag", strings.Replace(notify, ",false", "", 1), "8 params, want 9"},
		{"a mask of text", `{"id":null,"method":"mining.set_version_mask","params":["x"]}`, "version mask"},
		{"an extranonce without a size", `{"id":null,"method":"mining.set_extranonce","params":["00"]}`, "extranonce2 size"},
		{"a line without end", strings.Repeat("x", 66<<10), "line too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, p := newPool(t, nil)
			got := make(chan error, 1)
			go func() {
				_, err := m.NextJob(t.Context())
				got <- err
			}()
			_, _ = p.conn.Write([]byte(tt.line + "\n")) // may be cut off
			require.ErrorContains(t, <-got, tt.err)
			_, err := m.Call(t.Context(), sv1.AppendExtranonceSubscribeRequest)
			require.ErrorContains(t, err, tt.err, "later calls say the same")
			_, open := <-p.requests
			require.False(t, open, "it hangs up")
		})
	}
	for name, reply := range map[string]string{
		"a subscription without extranonce": `{"id":1,"result":[[],"x",8],"error":null}`,
		"a subscription that is true":       `{"id":1,"result":true,"error":null}`,
	} {
		t.Run(name, func(t *testing.T) {
			m, p := newPool(t, nil)
			done := make(chan error, 1)
			go func() { done <- m.Handshake(t.Context()) }()
			p.expect(sv1.MethodSubscribe)
			p.send([]byte(reply + "\n"))
			require.ErrorIs(t, <-done, sv1.ErrParams)
		})
	}
}

func TestEndsOfAConnection(t *testing.T) {
	t.Run("the pool hangs up", func(t *testing.T) {
		m, p := newPool(t, nil)
		handshake(t, m, p)
		p.send(sv1.AppendNotify(nil, exampleNotify(t)), sv1.AppendShowMessage(nil, "bye"))
		p.conn.Close()
		_, err := m.NextJob(t.Context())
		require.NoError(t, err, "what came before is still there")
		_, err = m.NextJob(t.Context())
		require.ErrorIs(t, err, io.EOF)
		msg, err := m.Receive(t.Context())
		require.NoError(t, err)
		require.Equal(t, sv1.MethodNotify, msg.Method)
		require.ErrorIs(t, m.Send(t.Context(), []byte("{}\n")), io.EOF)
		require.ErrorIs(t, m.Handshake(t.Context()), nil)
		require.NoError(t, m.Close())
	})
	t.Run("a submit without reply", func(t *testing.T) {
		m, p := newPool(t, nil)
		handshake(t, m, p)
		got := make(chan error, 1)
		go func() {
			_, err := m.Submit(t.Context(), Share{JobID: "5"})
			got <- err
		}()
		p.expect(sv1.MethodSubmit)
		p.conn.Close()
		require.ErrorIs(t, <-got, io.EOF)
	})
	t.Run("the test hangs up", func(t *testing.T) {
		m, p := newPool(t, nil)
		handshake(t, m, p)
		got := make(chan error, 1)
		go func() {
			_, err := m.NextJob(t.Context())
			got <- err
		}()
		require.NoError(t, m.Close())
		require.ErrorIs(t, <-got, net.ErrClosed)
		_, err := m.Receive(t.Context())
		require.ErrorIs(t, err, net.ErrClosed)
		_, open := <-p.requests
		require.False(t, open)
	})
	t.Run("closed before use", func(t *testing.T) {
		m, _ := newPool(t, nil)
		require.NoError(t, m.Close())
		require.ErrorIs(t, m.Handshake(t.Context()), net.ErrClosed)
		require.ErrorIs(t, m.Run(t.Context()), net.ErrClosed)
	})
}

// A context ends each wait, and a late reply does no harm.
func TestContextEndsACall(t *testing.T) {
	m, p := newPool(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := m.Call(ctx, sv1.AppendExtranonceSubscribeRequest)
		got <- err
	}()
	r := p.expect(sv1.MethodExtranonceSubscribe)
	cancel()
	require.ErrorIs(t, <-got, context.Canceled)
	p.send(sv1.AppendTrue(nil, r.ID))
	msg, err := m.Receive(t.Context())
	require.NoError(t, err)
	require.Equal(t, string(r.ID), string(msg.ID))
	handshake(t, m, p)
}

func TestContextEndsAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe() // nobody reads
		m := NewMiner(client, nil)
		defer server.Close()
		defer m.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, m.Send(ctx, []byte("{}\n")), context.DeadlineExceeded)

		// Nothing was written, so the connection is as good as before.
		go func() { _ = m.Send(t.Context(), []byte("[]\n")) }()
		buf := make([]byte, 10)
		n, err := server.Read(buf)
		require.NoError(t, err)
		require.Equal(t, "[]\n", string(buf[:n]))

		// Half a line is not.
		go func() { _, _ = server.Read(buf[:1]) }()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, m.Send(ctx, []byte("{}\n")), context.DeadlineExceeded)
		_, err = server.Read(buf)
		require.ErrorIs(t, err, io.EOF)
	})
}

type writesFail struct{ net.Conn }

func (writesFail) Write([]byte) (int, error) { return 0, errors.New("no route") }

// A connection that fails for writing only is given up soon, for the reason it failed.
func TestWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		m := NewMiner(writesFail{client}, nil)
		defer m.Close()
		start := time.Now()
		require.ErrorContains(t, m.Handshake(t.Context()), "stratumtest: no route")
		require.Equal(t, lastWords, time.Since(start))
		_, err := m.NextJob(t.Context())
		require.ErrorContains(t, err, "stratumtest: no route")
	})
}

// run starts m.Run in a bubble; stop ends it and returns its error.
func run(t *testing.T, m *Miner) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

func TestRunMines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type answered struct {
			share Share
			reply Reply
		}
		var mu sync.Mutex
		var replies []answered
		m, p := newPool(t, &MinerOptions{Threads: 3, Hashrate: 3000, Hooks: Hooks{
			OnReply: func(s Share, r Reply) { mu.Lock(); replies = append(replies, answered{s, r}); mu.Unlock() },
		}})
		stop := run(t, m)
		p.login()
		const d = difficulty.Difficulty(300.0 / (1 << 32)) // 10 shares a second
		p.send(sv1.AppendSetDifficulty(nil, float64(d)), sv1.AppendNotify(nil, exampleNotify(t)))

		j := exampleJob(t)
		j.VersionMask = 0
		seen := map[[32]byte]bool{}
		for i := range 60 {
			id, s := p.expectSubmit(8)
			share := j.Share(s.Extranonce2[:], s.NTime, s.Nonce, 0)
			target := d.Target()
			require.True(t, target.MetBy(&share.Hash), "share %d does not meet the target", i)
			require.False(t, seen[share.Hash], "share %d came before", i)
			require.False(t, s.HasVersionBits)
			seen[share.Hash] = true
			time.Sleep(25 * time.Millisecond) // in the bubble's time
			if i%2 == 0 {
				p.send(sv1.AppendTrue(nil, id))
			} else {
				p.send(sv1.AppendError(nil, id, sv1.CodeDuplicate, "Duplicate share"))
			}
		}
		synctest.Wait()
		go func() { // answer what is left
			for r := range p.requests {
				_, _ = p.conn.Write(sv1.AppendTrue(nil, r.ID))
			}
		}()
		require.NoError(t, stop())

		stats := m.Stats()
		require.EqualValues(t, 30, stats.Rejected)
		require.Equal(t, stats.Submitted, stats.Accepted+stats.Rejected, "every share was answered before Run returned")
		require.Len(t, replies, int(stats.Submitted))
		for i, a := range replies[:60] {
			require.Equal(t, i%2 == 0, a.reply.Accepted)
			require.GreaterOrEqual(t, a.reply.Latency, 25*time.Millisecond)
			if i%2 == 1 {
				require.Equal(t, sv1.CodeDuplicate, a.reply.Code)
			}
			require.True(t, seen[a.share.Hash])
			require.InDelta(t, float64(d), float64(a.share.Difficulty), 1e-12)
		}
		require.Equal(t, 25*time.Millisecond, slices.MinFunc(replies[:60], func(a, b answered) int {
			return int(a.reply.Latency - b.reply.Latency)
		}).reply.Latency)
		require.ErrorIs(t, m.Send(t.Context(), []byte("{}\n")), net.ErrClosed, "Run closes the miner")
	})
}

func TestRunHoldsItsHashrate(t *testing.T) {
	for _, tt := range []struct {
		name     string
		hashrate difficulty.Hashrate
		threads  int
	}{
		{"one thread", 1000, 1},
		{"four threads", 1000, 4},
		{"a hash in two seconds", 0.5, 1},
		{"chunks as long as can be", 1e5, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, p := newPool(t, &MinerOptions{Threads: tt.threads, Hashrate: tt.hashrate})
				stop := run(t, m)
				p.login()
				p.send(sv1.AppendSetDifficulty(nil, 1e9)) // never met
				n := exampleNotify(t)
				for range 20 { // new work does not make it faster
					p.send(sv1.AppendNotify(nil, n))
					time.Sleep(500 * time.Millisecond)
				}
				hashes := float64(m.Stats().Hashes)
				want := float64(tt.hashrate) * 10
				slack := max(want/10, float64(tt.threads))
				require.InDelta(t, want, hashes, slack)
				require.NoError(t, stop())
			})
		})
	}
}

// After a clean job nothing of older work is submitted; without the flag older shares are still good.
func TestRunDropsOldWorkAfterACleanJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newPool(t, &MinerOptions{Threads: 2, Hashrate: 2000})
		stop := run(t, m)
		p.login()
		n := exampleNotify(t)
		for id := range uint64(20) {
			clean := id%2 == 1
			p.send(sv1.AppendSetDifficulty(nil, float64(easy)), sv1.AppendNotifyFrom(nil, id, sv1.AppendNotifyBody(nil, n), clean))
			synctest.Wait() // it has read the job
			for len(p.requests) > 0 {
				rid, _ := p.expectSubmit(8) // of before
				p.send(sv1.AppendTrue(nil, rid))
			}
			for range 5 {
				rid, s := p.expectSubmit(8)
				require.Equal(t, id, s.JobID, "work of job %d after job %d", s.JobID, id)
				p.send(sv1.AppendTrue(nil, rid))
			}
		}
		go func() {
			for r := range p.requests {
				_, _ = p.conn.Write(sv1.AppendTrue(nil, r.ID))
			}
		}()
		require.NoError(t, stop())
	})
}

// A share that waited for a slot while its job went stale is not sent any more.
func TestRunForgetsAShareThatBecameStaleWaiting(t *testing.T) {
	for _, clean := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m, p := newPool(t, &MinerOptions{Hashrate: 1000, MaxInFlight: 1})
			stop := run(t, m)
			p.login()
			body := sv1.AppendNotifyBody(nil, exampleNotify(t))
			p.send(sv1.AppendSetDifficulty(nil, float64(easy)), sv1.AppendNotifyFrom(nil, 1, body, true))
			id, _ := p.expectSubmit(8)
			time.Sleep(10 * time.Second) // the next share is found, and waits
			require.Empty(t, p.requests)
			p.send(sv1.AppendNotifyFrom(nil, 2, body, clean))
			synctest.Wait()
			p.send(sv1.AppendTrue(nil, id))
			id, s := p.expectSubmit(8)
			require.Equal(t, clean, s.JobID == 2)
			p.send(sv1.AppendTrue(nil, id))
			go func() {
				for r := range p.requests {
					_, _ = p.conn.Write(sv1.AppendTrue(nil, r.ID))
				}
			}()
			require.NoError(t, stop())
		})
	}
}

func TestRunBoundsWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newPool(t, &MinerOptions{Hashrate: 1000, MaxInFlight: 3})
		stop := run(t, m)
		p.login()
		p.send(sv1.AppendSetDifficulty(nil, float64(easy)), sv1.AppendNotify(nil, exampleNotify(t)))
		time.Sleep(time.Minute)
		require.Len(t, p.requests, 3)
		start := time.Now()
		require.NoError(t, stop())
		require.Equal(t, drainTimeout, time.Since(start), "it waits for replies, but not for ever")
	})
}

// A pool that reads no more cannot hold up the end of Run.
func TestRunEndsInTheMiddleOfAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		m := NewMiner(client, &MinerOptions{Hashrate: 1000})
		stop := run(t, m)
		r := sv1.NewReader(server, 0)
		for _, reply := range [][]byte{
			sv1.AppendSubscribeResult(nil, []byte("1"), extranonce1, 8),
			sv1.AppendTrue(nil, []byte("2")),
		} {
			_, err := r.ReadLine()
			require.NoError(t, err)
			_, err = server.Write(reply)
			require.NoError(t, err)
		}
		_, err := server.Write(sv1.AppendNotify(sv1.AppendSetDifficulty(nil, float64(easy)), exampleNotify(t)))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, m.Stats().Submitted)
		start := time.Now()
		require.NoError(t, stop())
		require.Equal(t, drainTimeout, time.Since(start))
	})
}

func TestRunTakesANewVersionMaskAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newPool(t, &MinerOptions{Hashrate: 1000, VersionMask: 0x1fffe000})
		stop := run(t, m)
		p.send(sv1.AppendConfigureResult(nil, p.expect(sv1.MethodConfigure).ID, []string{"version-rolling"},
			sv1.ConfigureResult{VersionRolling: true, VersionMask: 0x1fffe000}))
		p.login()
		p.send(sv1.AppendSetDifficulty(nil, float64(easy)), sv1.AppendNotify(nil, exampleNotify(t)))
		j := exampleJob(t)
		for _, mask := range []uint32{0x1fffe000, 0x00010000, 0} {
			p.send(sv1.AppendSetVersionMask(nil, mask|1)) // bit 0 was not asked for
			synctest.Wait()
			for len(p.requests) > 0 {
				id, _ := p.expectSubmit(8)
				p.send(sv1.AppendTrue(nil, id))
			}
			j.VersionMask = mask
			rolled := uint32(0)
			for range 10 {
				id, s := p.expectSubmit(8)
				require.Equal(t, mask != 0, s.HasVersionBits)
				require.Zero(t, s.VersionBits&^mask)
				rolled |= s.VersionBits
				share := j.Share(s.Extranonce2[:], s.NTime, s.Nonce, s.VersionBits)
				target := easy.Target()
				require.True(t, target.MetBy(&share.Hash))
				p.send(sv1.AppendTrue(nil, id))
			}
		}
		go func() {
			for r := range p.requests {
				_, _ = p.conn.Write(sv1.AppendTrue(nil, r.ID))
			}
		}()
		require.NoError(t, stop())
	})
}

func TestRunEnds(t *testing.T) {
	t.Run("when the login is refused", func(t *testing.T) {
		m, p := newPool(t, nil)
		done := make(chan error, 1)
		go func() { done <- m.Run(t.Context()) }()
		p.send(sv1.AppendSubscribeResult(nil, p.expect(sv1.MethodSubscribe).ID, extranonce1, 8))
		p.send(sv1.AppendError(nil, p.expect(sv1.MethodAuthorize).ID, sv1.CodeInvalidUser, "Invalid username"))
		require.ErrorContains(t, <-done, "Invalid username")
		_, open := <-p.requests
		require.False(t, open, "it hangs up")
	})
	t.Run("when ctx ends before the login", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m, p := newPool(t, nil)
			stop := run(t, m)
			p.expect(sv1.MethodSubscribe)
			require.NoError(t, stop())
		})
	})
	t.Run("when the pool hangs up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m, p := newPool(t, &MinerOptions{Hashrate: 1000, Threads: 2})
			done := make(chan error, 1)
			go func() { done <- m.Run(t.Context()) }()
			p.login()
			p.send(sv1.AppendSetDifficulty(nil, float64(easy)), sv1.AppendNotify(nil, exampleNotify(t)))
			p.expectSubmit(8)
			p.conn.Close()
			require.ErrorIs(t, <-done, io.EOF)
		})
	})
	t.Run("when no job came", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m, p := newPool(t, nil)
			stop := run(t, m)
			p.login()
			synctest.Wait()
			start := time.Now()
			require.NoError(t, stop())
			require.Zero(t, time.Since(start))
			require.Zero(t, m.Stats().Hashes)
		})
	})
}

func TestRunWithoutALimitOverTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	conns := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
		}
		conns <- c
	}()
	m, err := Dial(t.Context(), ln.Addr().String(), &MinerOptions{Threads: 2})
	require.NoError(t, err)
	conn := <-conns
	defer conn.Close()
	notify := exampleNotify(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()

	enough := make(chan struct{})
	go func() {
		r := sv1.NewReader(conn, 0)
		for accepted := 0; ; {
			line, err := r.ReadLine()
			if err != nil {
				return // the miner hung up
			}
			var req sv1.Request
			if err := req.Decode(line); err != nil {
				t.Error(err)
			}
			reply := sv1.AppendTrue(nil, req.ID)
			switch req.Method {
			case sv1.MethodSubscribe:
				reply = sv1.AppendSubscribeResult(nil, req.ID, extranonce1, 8)
			case sv1.MethodAuthorize:
				reply = sv1.AppendSetDifficulty(reply, 1000.0/(1<<32))
				reply = sv1.AppendNotify(reply, notify)
			case sv1.MethodSubmit:
				if accepted++; accepted == 200 {
					close(enough)
				}
			}
			if _, err = conn.Write(reply); err != nil {
				return
			}
		}
	}()
	<-enough
	cancel()
	require.NoError(t, <-done)
	stats := m.Stats()
	require.GreaterOrEqual(t, stats.Submitted, uint64(200))
	require.Equal(t, stats.Submitted, stats.Accepted)
	require.GreaterOrEqual(t, m.Stats().Hashes, uint64(50_000))

	ln.Close()
	_, err = Dial(t.Context(), ln.Addr().String(), nil)
	require.Error(t, err)
}

// A unit that runs out of nonces is followed by another.
func TestSearchEndsAtTheLastNonce(t *testing.T) {
	j := exampleJob(t)
	u := &unit{job: j, header: j.Header(make([]byte, 8), 0, 0, 0)}
	n, found := u.search(math.MaxUint32, 100, difficulty.Target{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)})
	require.True(t, found)
	require.Equal(t, uint32(math.MaxUint32), n)
	_, found = u.search(math.MaxUint32-10, 100, difficulty.Target{})
	require.False(t, found)
}

func TestRepliesAreJSON(t *testing.T) {
	m, p := newPool(t, nil)
	got := make(chan Reply, 1)
	go func() {
		r, err := m.Call(t.Context(), func(dst []byte, id uint64) []byte {
			return sv1.AppendGetTransactionsRequest(dst, id, "5")
		})
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	p.send(sv1.AppendNoTransactions(nil, p.expect(sv1.MethodGetTransactions).ID))
	r := <-got
	require.False(t, r.Accepted)
	require.Equal(t, "Not supported", r.Message)
	require.True(t, json.Valid(r.Result))
}
